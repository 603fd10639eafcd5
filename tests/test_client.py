"""The client and a server that is there: publishing, asking, watching, and leaving."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import triows
from tests.support import SECRET, memory_server, token
from tests.support_client import CHANNEL, Network, connected, offsets, read

UNLIMITED = triows.Limits(messages_per_second=0)


async def test_publish_returns_positions(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Each publish tells where its message stands: one epoch, offsets from 1 on."""
    async with memory_server() as server, connected(nursery, server) as client:
        first = await client.publish(CHANNEL, triows.log("a"))
        second = await client.publish(CHANNEL, triows.status("b"))
        other = await client.publish("session:43", triows.log("c"))

        assert (first.offset, second.offset, other.offset) == (1, 2, 1)
        assert first.epoch == second.epoch != other.epoch


async def test_publish_many_keeps_the_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Many messages stand in the log as they were given, and so do their positions."""
    async with memory_server(limits=UNLIMITED) as server, connected(nursery, server) as client:
        positions = await client.publish_many(CHANNEL, (triows.log(i) for i in range(500)))
        page = await client.history(CHANNEL, limit=1000)

        assert [p.offset for p in positions] == list(range(1, 501))
        assert [m["data"] for m in page["messages"]] == list(range(500))
        assert await client.publish_many(CHANNEL, []) == []


async def test_publish_keeps_type_id_and_data(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What a viewer gets is what was published, byte for byte."""
    async with memory_server() as server, connected(nursery, server) as client:
        raw = b'{"b": 1.50, "a": [ "\xc3\xa9" ]}'
        await client.publish(CHANNEL, triows.Message("event", raw, id="my own"))
        async with client.subscribe(CHANNEL, from_start=True) as messages:
            [message] = await read(messages, 1)

        assert (message.type, message.id, message.raw) == ("event", "my own", raw)


async def test_command_returns_the_result(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A command's answer holds what the application's handler said, and its position."""

    async def handle(request: triows.Request) -> Any:
        await trio.lowlevel.checkpoint()
        return {"user": request.identity.user, "asked": request.message.data}

    async with memory_server(on_command=handle) as server, connected(nursery, server) as client:
        answer = await client.command(CHANNEL, "stop")

        assert answer["result"] == {"user": "me", "asked": "stop"}
        assert answer["offset"] == 1


async def test_history_returns_a_page(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """`from` and `to` bound a page, both inclusive."""
    async with memory_server() as server, connected(nursery, server) as client:
        for number in range(1, 11):
            await server.publish(CHANNEL, triows.log(number))
        page = await client.history(CHANNEL, **{"from": 3, "to": 6})

        assert [m["offset"] for m in page["messages"]] == [3, 4, 5, 6]
        assert (page["offset"], page["earliest"]) == (10, 1)


async def test_request_asks_anything(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A request of any type comes back with the data of its answer."""
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL):
            answer = await client.request(triows.Message("presence", channel=CHANNEL))

        assert [c["user"] for c in answer["connections"]] == ["me"]
        assert client.session["user"] == "me"
        assert client.session["connection"] == answer["connections"][0]["connection"]


async def test_publish_refused_says_why(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A refused request raises RequestError with its code, and the connection lives on."""
    async with memory_server() as server:
        bearer = token(publish=["session:42"])
        async with connected(nursery, server, token=bearer) as client:
            for channel, code in [("session:43", "forbidden"), ("no channel", "bad_channel")]:
                with pytest.raises(triows.RequestError) as caught:
                    await client.publish(channel, triows.log("a"))
                assert caught.value.code == code
            await client.publish(CHANNEL, triows.end(exit_code=0))
            with pytest.raises(triows.RequestError) as caught:
                await client.publish(CHANNEL, triows.log("too late"))
            assert caught.value.code == "ended"
            with pytest.raises(triows.RequestError) as caught:
                await client.command(CHANNEL, "stop")
            assert caught.value.code == "forbidden"

            assert len(server.connections()) == 1
        assert server.statistics().opened == 1


async def test_publish_many_refused_publishes_the_others(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """One refused message of many raises; those beside it are published."""
    async with memory_server() as server, connected(nursery, server) as client:
        bad = triows.Message("end", b'{"exit_code": "zero"}')
        with pytest.raises(triows.RequestError) as caught:
            await client.publish_many(CHANNEL, [triows.log(1), bad, triows.log(3)])
        page = await client.history(CHANNEL)

        assert caught.value.code == "bad_request"
        assert [m["data"] for m in page["messages"]] == [1, 3]


async def test_history_of_another_epoch_is_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """History of an epoch that is over is refused, not answered from the new log."""
    async with memory_server() as server, connected(nursery, server) as client:
        with pytest.raises(triows.RequestError) as caught:
            await client.history(CHANNEL, epoch="gone")
        assert caught.value.code == "bad_position"


async def test_body_exception_comes_out_as_it_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What the application raises inside the block is not wrapped in a group."""
    async with memory_server() as server:
        with pytest.raises(ValueError, match=r"^mine$"):
            async with connected(nursery, server) as client, client.subscribe(CHANNEL):
                raise ValueError("mine")


async def test_open_client_cancelled_leaves_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Cancelled in the middle of everything: no task is left, and nothing is waited for."""
    async with memory_server() as server:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        started = trio.current_time()
        with trio.move_on_after(10) as scope:
            async with connected(nursery, server) as client:
                async with client.subscribe(CHANNEL) as messages:
                    await anext(messages)
        assert trio.current_time() - started == pytest.approx(10)
        with trio.move_on_after(5):
            await trio.testing.wait_all_tasks_blocked(1)

        assert scope.cancelled_caught
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert [c.code for c in server.closed_connections()] == [1006]


async def test_open_client_cancelled_while_connecting_leaves_nothing(
    autojump_clock: MockClock,
) -> None:
    """A server that does not answer does not hold up whoever leaves."""

    async def slow() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    before = trio.lowlevel.current_statistics().tasks_living
    started = trio.current_time()
    async with triows.open_client("ws://a/ws", open_stream=slow) as client:
        with trio.move_on_after(2):
            await client.publish(CHANNEL, triows.log("a"))
    assert trio.current_time() - started == pytest.approx(2)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_publish_cancelled_is_not_sent_later(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What nobody waits for any more before it was sent is not sent."""
    async with memory_server() as server:
        opening = trio.Event()
        streams = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, streams[1], "test")

        async def late() -> trio.abc.Stream:
            await opening.wait()
            return streams[0]

        async with triows.open_client("ws://a/ws", token=token(), open_stream=late) as client:
            with trio.move_on_after(1):
                await client.publish(CHANNEL, triows.log("given up"))
            opening.set()
            await client.publish(CHANNEL, triows.log("wanted"))
            page = await client.history(CHANNEL)
        assert [m["data"] for m in page["messages"]] == ["wanted"]


async def test_token_is_refreshed_in_band(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A token function is asked before the token expires, and the connection goes on."""
    asked: list[float] = []

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        return triows.make_token(SECRET, "me", ttl=100, subscribe=["*"])

    async with memory_server() as server:
        network = Network(nursery, server)
        async with network.client(token=fresh):
            await trio.sleep(1000)
            [connection] = server.connections()
            assert connection.age == pytest.approx(1000, abs=1)
        waits = [b - a for a, b in pairwise(asked)]
        assert len(network.opened) == 1
        assert len(waits) > 8
        assert all(50 < wait < 95 for wait in waits)


async def test_static_token_expires(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Without a function the connection ends with its token: 4000, and then 401 is final."""
    states: list[triows.TriowsError | None] = []

    def tell(state: str, reason: triows.TriowsError | None) -> None:
        states.extend([reason] if state == "disconnected" else [])

    bearer = triows.make_token(SECRET, "me", ttl=50, subscribe=["*"])
    async with memory_server() as server:
        async with Network(nursery, server).client(token=bearer, on_state=tell):
            await trio.sleep(51)
    [reason] = states
    assert isinstance(reason, triows.ConnectionClosed)
    assert reason.code == 4000


async def test_token_function_is_asked_for_each_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """No connection is opened with a token of an earlier one."""
    given: list[str] = []

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        given.append(token())
        return given[-1]

    async with memory_server() as server:
        network = Network(nursery, server)
        async with network.client(token=fresh) as client:
            for number in range(1, 4):
                await client.publish(CHANNEL, triows.log(number))
                assert len(given) == number
                network.cut()


async def test_refreshed_token_with_less_ends_a_subscription(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A channel that the new token does not cover ends with an error; the others go on."""
    grants = [["session:*"], ["session:43"]]

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        covered = grants.pop(0) if len(grants) > 1 else grants[0]
        return triows.make_token(SECRET, "me", ttl=100, subscribe=covered)

    async with memory_server() as server:
        async with Network(nursery, server).client(token=fresh) as client:
            async with (
                client.subscribe(CHANNEL) as lost,
                client.subscribe("session:43") as kept,
            ):
                with pytest.raises(triows.RequestError) as caught, trio.fail_after(100):
                    await anext(lost)
                await server.publish("session:43", triows.log("a"))
                assert offsets(await read(kept, 1)) == [1]
    assert caught.value.code == "forbidden"


async def test_keep_alive_outlives_the_idle_timeout(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Watching a quiet channel, a client stays connected."""
    limits = triows.Limits(idle_timeout=40, ping_interval=30)
    async with memory_server(limits=limits) as server:
        network = Network(nursery, server)
        async with network.client() as client, client.subscribe(CHANNEL):
            await trio.sleep(1000)
            assert [c.channels for c in server.connections()] == [(CHANNEL,)]
        assert len(network.opened) == 1


async def test_silent_server_is_noticed(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A network that swallows everything costs a ping's time, and no message."""
    reasons: list[triows.TriowsError | None] = []

    def tell(state: str, reason: triows.TriowsError | None) -> None:
        reasons.extend([reason] if state == "disconnected" else [])

    async with memory_server() as server:
        network = Network(nursery, server)
        async with network.client(on_state=tell) as client:
            async with client.subscribe(CHANNEL) as messages:
                await trio.testing.wait_all_tasks_blocked()
                network.streams[0].deaf = network.streams[0].mute = True
                await server.publish(CHANNEL, triows.log("lost?"))
                started = trio.current_time()
                assert offsets(await read(messages, 1)) == [1]
                assert trio.current_time() - started < 30 + 10 + 2
    [reason] = reasons
    assert isinstance(reason, triows.ConnectionClosed)
    assert reason.code == 4002


async def test_on_state_is_told(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """connecting, connected and disconnected, in turn, the last with its reason."""
    told: list[tuple[str, bool]] = []
    async with memory_server() as server:
        network = Network(nursery, None)

        def tell(state: str, reason: triows.TriowsError | None) -> None:
            told.append((state, reason is not None))

        async with network.client(on_state=tell) as client:
            await trio.sleep(0.1)
            network.server = server
            await client.publish(CHANNEL, triows.log(1))
            network.cut()
            await client.publish(CHANNEL, triows.log(2))
    failed = [("connecting", False), ("disconnected", True)]
    lost = [("connecting", False), ("connected", False), ("disconnected", True)]
    assert told == failed + lost + lost[:2]
