"""A network or a server that fails: the client comes back, with nothing lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import memory_server
from tests.support_client import (
    CHANNEL,
    Network,
    Script,
    Serve,
    Stage,
    connected,
    offsets,
    play,
    read,
    read_all,
    welcome,
)

_RATES_OFF = triows.Limits(messages_per_second=0, handshakes_per_second_per_address=0)
_cuts = st.lists(
    st.tuples(st.none() | st.integers(0, 6000), st.none() | st.integers(0, 4000)), max_size=8
)


def _highest(a: float, b: float) -> float:
    return b


@given(_cuts, st.lists(st.sampled_from([0.0, 0.01, 0.3, 2.0]), min_size=1, max_size=30))
@settings(max_examples=60)
def test_every_message_once_over_lost_connections(
    cuts: list[tuple[int | None, int | None]], pauses: list[float]
) -> None:
    """Cut at any byte in either direction, any number of times: each offset once, in order."""

    async def scenario() -> None:
        async with memory_server(limits=_RATES_OFF) as server, trio.open_nursery() as nursery:
            network = Network(nursery, server)
            network.limits = list(cuts)
            async with network.client() as client:

                async def speak() -> None:
                    for number, pause in enumerate(pauses):
                        await server.publish(CHANNEL, triows.log(f"there {number}"))
                        await client.publish_many(CHANNEL, [triows.log(number)] * 2)
                        await trio.sleep(pause)
                    await client.publish(CHANNEL, triows.end())

                nursery.start_soon(speak)
                async with client.subscribe(CHANNEL, from_start=True) as messages:
                    received = await read_all(messages)
            nursery.cancel_scope.cancel()
        assert offsets(received) == list(range(1, 3 * len(pauses) + 2))
        mine = [m.data for m in received if m.type == "log" and isinstance(m.data, int)]
        assert mine == [number for number in range(len(pauses)) for _ in range(2)]

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


async def test_publish_is_sent_again_with_the_same_id(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What was not answered goes out again on the next connection, under the same id."""
    heard: list[dict[str, Any]] = []

    async def vanish(script: Script) -> None:
        await script.greet()
        heard.extend([await script.hear(), await script.hear()])

    async def stay(script: Script) -> None:
        await script.greet()
        for _ in range(2):
            heard.append(await script.hear())
            await script.ack(heard[-1], epoch="e", offset=len(heard))
        await trio.sleep_forever()

    async with Stage(nursery, play(vanish), play(stay)).client() as client:
        positions = await client.publish_many(CHANNEL, [triows.log(1), triows.log(2, id="own")])

    assert [p.offset for p in positions] == [3, 4]
    assert [m["data"] for m in heard] == [1, 2, 1, 2]
    assert [m["id"] for m in heard[:2]] == [m["id"] for m in heard[2:]]
    assert heard[1]["id"] == "own"


async def test_publish_is_kept_once_when_its_answer_was_lost(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The server kept it, the answer was lost: sent again, it gets the first answer."""
    async with memory_server() as server:
        network = Network(nursery, server)
        async with network.client() as client:
            await client.publish(CHANNEL, triows.log("before"))
            network.streams[-1].deaf = True

            async def cut_later() -> None:
                await trio.sleep(1)
                network.cut()

            nursery.start_soon(cut_later)
            position = await client.publish(CHANNEL, triows.log("once"))
            page = await client.history(CHANNEL)

        assert position.offset == 2
        assert [m["data"] for m in page["messages"]] == ["before", "once"]
        assert len(network.opened) == 2


async def test_backoff_grows_to_its_limit(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest pauses double from 1 s, the first one jittered too, up to 20 s."""
    monkeypatch.setattr(random, "uniform", _highest)
    network = Network(nursery, None)
    async with network.client():
        await trio.sleep(100)
    pauses = [b - a for a, b in zip(network.opened, network.opened[1:], strict=False)]
    assert pauses == pytest.approx([1, 1.5, 2.5, 4.5, 8.5, 16.5, 20, 20, 20])


async def test_backoff_begins_anew_after_a_stable_connection(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a connection that was up for 5 s makes the pauses short again."""
    monkeypatch.setattr(random, "uniform", _highest)

    def up(seconds: float) -> Serve:
        async def act(script: Script) -> None:
            await script.greet()
            await trio.sleep(seconds)
            await script.close(1011)

        return play(act)

    stage = Stage(nursery, *(up(s) for s in (0, 0, 4, 0, 6, 0, 0)))
    async with stage.client():
        await trio.sleep(40)
    away = [p - s for p, s in zip(stage.pauses, (0, 0, 4, 0, 6, 0), strict=False)]
    assert away == pytest.approx([1, 1.5, 2.5, 4.5, 1, 1.5])


async def test_reconnect_message_is_obeyed_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """`reconnect` says how long to stay away, this time."""

    async def restart(script: Script) -> None:
        await script.greet()
        await script.say("reconnect", data={"after": 40.5, "reason": "restart"})
        await script.close(1012)

    async def fall(script: Script) -> None:
        await script.greet()
        await script.close(1012)

    stage = Stage(nursery, play(restart), play(fall), play(welcome))
    async with stage.client() as client:
        await client.publish(CHANNEL, triows.log(1))
    assert stage.pauses[0] == pytest.approx(40.5, abs=1e-3)
    assert stage.pauses[1] <= 1.5


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4001, 4003, 4499])
async def test_close_for_now_comes_back(
    nursery: trio.Nursery, autojump_clock: MockClock, code: int
) -> None:
    """What is not the client's fault for good leads to another connection."""

    async def leave(script: Script) -> None:
        await script.greet()
        await script.close(code)

    stage = Stage(nursery, play(leave), play(welcome))
    async with stage.client() as client:
        await client.publish(CHANNEL, triows.log(1))
    assert len(stage.opened) == 2


@pytest.mark.parametrize("code", [1002, 1009, 4500, 4501, 4503, 4504, 4999])
async def test_close_for_good_ends_everything(
    nursery: trio.Nursery, autojump_clock: MockClock, code: int
) -> None:
    """A terminal code comes out of iterations and requests, those of later too."""

    async def leave(script: Script) -> None:
        await script.greet()
        await script.hear()
        await script.hear()
        await script.close(code)

    stage = Stage(nursery, play(leave))
    codes: list[int] = []

    async def fail(work: Callable[[], Any]) -> None:
        with pytest.raises(triows.ConnectionClosed) as caught:
            await work()
        codes.append(caught.value.code)

    async with stage.client() as client, client.subscribe(CHANNEL) as messages:
        async with trio.open_nursery() as work:
            work.start_soon(fail, messages.__anext__)
            work.start_soon(fail, lambda: client.publish(CHANNEL, triows.log(1)))
        await fail(lambda: client.publish(CHANNEL, triows.log(2)))
        async with client.subscribe("session:43") as others:
            await fail(others.__anext__)
        await trio.sleep(100)
    assert codes == [code] * 4
    assert len(stage.opened) == 1


async def test_disconnected_by_an_administrator_is_over(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Thrown out by the server, a client does not come back."""
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL) as messages:
            await server.publish("session:other", triows.log(1))
            await trio.testing.wait_all_tasks_blocked()
            assert server.disconnect(server.connections()[0].id)
            with pytest.raises(triows.ConnectionClosed) as caught:
                await anext(messages)
        await trio.sleep(60)
        assert caught.value.code == 4503
        assert server.connections() == []


async def test_restarted_server_is_told_by_a_gap(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A new log is announced by a gap of reason `epoch`; then all of it comes, once."""
    async with memory_server() as first, memory_server() as second:
        network = Network(nursery, first)
        async with network.client() as client:
            async with client.subscribe(CHANNEL, from_start=True) as messages:
                for number in range(5):
                    await first.publish(CHANNEL, triows.log(number))
                before = await read(messages, 5)
                network.server = None
                network.cut()
                for number in range(7):
                    await second.publish(CHANNEL, triows.log(f"new {number}"))
                await trio.sleep(10)
                network.server = second
                gap, *after = await read(messages, 8)
                await second.publish(CHANNEL, triows.end())
                after += await read(messages, 1)

        assert offsets(before) == [1, 2, 3, 4, 5]
        assert (gap.type, gap.data["reason"], gap.data["count"]) == ("gap", "epoch", 0)
        assert offsets(after) == list(range(1, 9))
        assert after[0].data == "new 0"


async def test_drained_server_gives_everything_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What was published before a planned restart arrives before the connection ends."""
    ended = trio.Event()

    def tell(state: str, reason: triows.TriowsError | None) -> None:
        if "1012" in str(reason):
            ended.set()

    async with memory_server() as second:
        network = Network(nursery, None)
        async with (
            network.client(on_state=tell) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            async with memory_server() as first:
                network.server = first
                await client.publish(CHANNEL, triows.log(1))
                for number in range(2, 51):
                    await first.publish(CHANNEL, triows.log(number))
                network.server = second
                first.drain()
                await ended.wait()
            received = await read(messages, 50)
            await second.publish(CHANNEL, triows.log("new"))
            gap, new = await read(messages, 2)
        assert offsets(received) == list(range(1, 51))
        assert (gap.data["reason"], new.data) == ("epoch", "new")


async def test_missing_message_is_asked_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A server that skips an offset is asked again, from the last one that came."""
    requests: list[dict[str, object]] = []

    async def forgetful(script: Script) -> None:
        await script.greet()
        request = await script.hear()
        await script.ack_subscribe(request, 0)
        await script.log(1, 3)
        requests.append(await script.hear())
        await script.ack_subscribe(requests[-1], 3)
        await script.log(2, 3, 4)
        await trio.sleep_forever()

    async with Stage(nursery, play(forgetful)).client() as client:
        async with client.subscribe(CHANNEL) as messages:
            received = await read(messages, 4)
    assert offsets(received) == [1, 2, 3, 4]
    assert requests[0]["data"] == {"since": {"epoch": "e", "offset": 1}, "on_lag": "gap"}


async def test_subscribe_put_off_is_asked_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A server that says "later" to a subscription is asked later."""

    async def busy(script: Script) -> None:
        await script.greet()
        request = await script.hear()
        data = {"code": "unavailable", "message": "later", "retry": True, "retry_after": 3}
        await script.say("error", id=request["id"], channel=CHANNEL, data=data)
        asked_at = trio.current_time()
        request = await script.hear()
        assert trio.current_time() - asked_at == pytest.approx(3, abs=1e-3)
        await script.ack_subscribe(request, 0)
        await script.log(1)
        await trio.sleep_forever()

    async with Stage(nursery, play(busy)).client() as client:
        async with client.subscribe(CHANNEL) as messages:
            assert offsets(await read(messages, 1)) == [1]
