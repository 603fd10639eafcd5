"""A client's subscription: where it begins, what it hands out, and what it asks for again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import memory_server, token
from tests.support_client import CHANNEL, connected, offsets, read, read_all
from triows.viewer import BUFFER, Subscription


async def test_subscribe_refused_says_why(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A subscription that may not be raises out of the iteration, again and again."""
    async with memory_server() as server:
        async with connected(nursery, server, token=token(publish=["*"])) as client:
            async with client.subscribe(CHANNEL) as messages:
                for _ in range(2):
                    with pytest.raises(triows.RequestError) as caught, trio.fail_after(10):
                        await anext(messages)
                    assert caught.value.code == "forbidden"


async def test_subscribe_checks_the_name(autojump_clock: MockClock) -> None:
    """A name that is no channel is refused before anything is sent."""

    async def nowhere() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("nobody listens")

    async with triows.open_client("ws://a/ws", open_stream=nowhere) as client:
        with pytest.raises(triows.RequestError) as caught:
            async with client.subscribe("no channel"):
                pass
        assert caught.value.code == "bad_channel"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({}, [6, 7]),
        ({"tail": 0}, [6, 7]),
        ({"tail": 2}, [4, 5, 6, 7]),
        ({"tail": 100}, [1, 2, 3, 4, 5, 6, 7]),
        ({"from_start": True}, [1, 2, 3, 4, 5, 6, 7]),
        ({"since": 3}, [4, 5, 6, 7]),
        ({"since": 5}, [6, 7]),
    ],
)
async def test_subscribe_begins_where_asked(
    nursery: trio.Nursery, autojump_clock: MockClock, start: dict[str, Any], expected: list[int]
) -> None:
    """tail, since and from_start begin where they say; without them, with what comes next."""
    async with memory_server() as server, connected(nursery, server) as client:
        for number in range(5):
            position = await server.publish(CHANNEL, triows.log(number))
        if "since" in start:
            start = {"since": triows.Position(position.epoch, start["since"])}
        async with client.subscribe(CHANNEL, **start) as messages:
            await trio.testing.wait_all_tasks_blocked()
            await server.publish(CHANNEL, triows.log(5))
            await server.publish(CHANNEL, triows.end())
            received = await read_all(messages)

            assert offsets(received) == expected
            assert messages.position == triows.Position(position.epoch, 7)
            assert (messages.head, messages.lag, messages.is_over) == (7, 0, True)


async def test_subscribe_past_the_head_is_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A position that the log has not reached yet is an error, not a wait."""
    async with memory_server() as server, connected(nursery, server) as client:
        here = await server.publish(CHANNEL, triows.log("a"))
        beyond = triows.Position(here.epoch, here.offset + 1)
        async with client.subscribe(CHANNEL, since=beyond) as messages:
            with pytest.raises(triows.RequestError) as caught, trio.fail_after(10):
                await anext(messages)
            assert caught.value.code == "bad_position"


@pytest.mark.parametrize("start", [{}, {"tail": 0}, {"since": 2}])
async def test_subscribe_to_an_ended_channel_is_over_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, start: dict[str, Any]
) -> None:
    """With the end behind it, a subscription has nothing to wait for."""
    async with memory_server() as server, connected(nursery, server) as client:
        await server.publish(CHANNEL, triows.log("a"))
        last = await server.publish(CHANNEL, triows.end())
        async with client.subscribe(CHANNEL, **({"since": last} if start else start)) as messages:
            assert await read_all(messages) == []
            assert messages.is_over


async def test_subscribe_gets_the_end_of_an_ended_channel(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Whoever comes later reads to the end, with its exit code."""
    async with memory_server() as server, connected(nursery, server) as client:
        await server.publish(CHANNEL, triows.log("a"))
        await server.publish(CHANNEL, triows.end(exit_code=3))
        async with client.subscribe(CHANNEL, tail=10) as messages:
            received = await read_all(messages)
        assert [m.type for m in received] == ["log", "end"]
        assert received[1].data == {"exit_code": 3}


async def test_subscribe_tells_what_is_no_longer_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A position from before the oldest message gives one gap, with from, to and count."""
    log = triows.LogLimits(max_messages=3)
    async with memory_server(log=log) as server, connected(nursery, server) as client:
        first = await server.publish(CHANNEL, triows.log(1))
        for number in range(2, 11):
            await server.publish(CHANNEL, triows.log(number))
        async with client.subscribe(CHANNEL, since=first) as messages:
            gap, *others = await read(messages, 4)

        assert gap.type == "gap"
        assert {k: gap.data[k] for k in ("from", "to", "count", "reason")} == {
            "from": 2,
            "to": 7,
            "count": 6,
            "reason": "retention",
        }
        assert offsets(others) == [8, 9, 10]


async def test_subscribe_twice_is_refused(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """One client watches a channel once; the first subscription stays as it is."""
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL, from_start=True) as messages:
            with pytest.raises(triows.RequestError) as caught:
                async with client.subscribe(CHANNEL):
                    pass
            assert caught.value.code == "bad_request"
            async with client.subscribe("session:43"):
                await server.publish(CHANNEL, triows.log("a"))
                assert offsets(await read(messages, 1)) == [1]


async def test_subscribe_ends_with_its_block(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """After the block the server sends nothing more for it."""
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL):
            await trio.testing.wait_all_tasks_blocked()
            assert server.connections()[0].channels == (CHANNEL,)
        await trio.testing.wait_all_tasks_blocked()
        assert server.connections()[0].channels == ()


async def test_next_cancelled_loses_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Waiting with a time limit, again and again, still gets every message once."""
    async with memory_server() as server, connected(nursery, server) as client:
        received: list[triows.Message] = []
        async with client.subscribe(CHANNEL, from_start=True) as messages:
            for number in range(20):
                if number % 3 == 0:
                    await server.publish(CHANNEL, triows.log(number))
                    await server.publish(CHANNEL, triows.log(number))
                with trio.move_on_after(0 if number % 2 else 1):
                    received.append(await anext(messages))
            received += await read(messages, 14 - len(received))
        assert offsets(received) == list(range(1, 15))


async def test_next_by_two_tasks_is_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A subscription belongs to one task at a time: the second is told so."""
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL) as messages:
            nursery.start_soon(read, messages, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(messages)
            await server.publish(CHANNEL, triows.log("a"))
            await trio.testing.wait_all_tasks_blocked()
            await server.publish(CHANNEL, triows.log("b"))
            assert offsets(await read(messages, 1)) == [2]


async def test_slow_application_pauses_and_goes_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """An application that does not read costs the server nothing, and misses nothing."""
    count = BUFFER * 3 + 1
    async with memory_server() as server, connected(nursery, server) as client:
        async with client.subscribe(CHANNEL) as messages:
            await trio.testing.wait_all_tasks_blocked()
            for number in range(count):
                await server.publish(CHANNEL, triows.log(number))
            await trio.testing.wait_all_tasks_blocked()
            assert messages.paused
            assert server.connections()[0].channels == ()
            assert BUFFER <= messages.lag <= count

            received = await read(messages, BUFFER + 1)
            assert server.connections()[0].channels == (CHANNEL,)
            await server.publish(CHANNEL, triows.end())
            received += await read_all(messages)
        assert offsets(received) == list(range(1, count + 2))


def _subscription(**start: Any) -> tuple[Subscription, list[Subscription]]:
    asked: list[Subscription] = []
    return Subscription(CHANNEL, start, triows.OnLag.GAP, asked.append), asked


def _ack(head: int, *, epoch: str = "e", earliest: int = 1, ended: Any = None) -> dict[str, Any]:
    return {"epoch": epoch, "offset": head, "earliest": earliest, "ended": ended}


def _log(offset: int) -> triows.Message:
    return triows.Message("log", channel=CHANNEL, offset=offset)


def _gap(first: int, last: int, *, epoch: str = "e", reason: str = "lag") -> triows.Message:
    data = {"epoch": epoch, "from": first, "to": last, "count": last - first + 1}
    return triows.Message("gap", msgspec.json.encode({**data, "reason": reason}), CHANNEL)


def _taken(subscription: Subscription, count: int) -> list[int | None]:
    async def take() -> list[int | None]:
        return offsets(await read(subscription, count))

    return trio.run(take)


def test_request_names_the_start_then_the_position() -> None:
    """Before anything was read it asks for its start; then for what follows its position."""
    subscription, _ = _subscription(tail=5)
    assert subscription.request() == {"tail": 5, "on_lag": "gap"}
    subscription.acknowledged(_ack(10))
    assert subscription.request()["since"] == {"epoch": "e", "offset": 5}
    assert subscription.deliver(_log(6))
    assert subscription.request() == {"since": {"epoch": "e", "offset": 6}, "on_lag": "gap"}


@given(st.lists(st.integers(1, 12), max_size=60))
def test_deliver_takes_each_offset_once_in_order(sent: list[int]) -> None:
    """Whatever comes in whatever order: 1, 2, 3, each once; and it says when one is missing."""
    subscription, _ = _subscription(**{"from": "start"})
    subscription.acknowledged(_ack(12))
    expected: list[int] = []
    for offset in sent:
        fits = offset <= len(expected) + 1
        assert subscription.deliver(_log(offset)) is fits
        if offset == len(expected) + 1:
            expected.append(offset)
    assert _taken(subscription, len(expected)) == expected
    assert subscription.request()["since"]["offset"] == len(expected)


def test_deliver_before_the_answer_is_ignored() -> None:
    """What comes before the server has answered belongs to an earlier subscription."""
    subscription, _ = _subscription(tail=5)
    assert subscription.deliver(_log(3))
    assert subscription.position is None
    assert subscription.lag == 0


def test_deliver_while_paused_is_ignored() -> None:
    """What was on its way when it paused will be sent again."""
    subscription, asked = _subscription()
    subscription.acknowledged(_ack(0))
    for offset in range(1, BUFFER + 1):
        assert subscription.deliver(_log(offset))
    assert subscription.paused
    assert asked == [subscription]
    assert subscription.deliver(_log(BUFFER + 1))
    assert subscription.request()["since"]["offset"] == BUFFER


def test_deliver_gap_moves_on() -> None:
    """After a gap comes what follows it; the gap itself is handed out."""
    subscription, _ = _subscription(since={"epoch": "e", "offset": 2})
    subscription.acknowledged(_ack(20))
    assert subscription.deliver(_gap(3, 9))
    assert subscription.deliver(_log(10))
    assert _taken(subscription, 2) == [None, 10]
    assert subscription.position == triows.Position("e", 10)


def test_deliver_gap_again_does_not_move_back() -> None:
    """A gap that is told again, on another connection, brings nothing a second time."""
    subscription, _ = _subscription(since={"epoch": "e", "offset": 4})
    subscription.acknowledged(_ack(12))
    for _ in range(2):
        assert subscription.deliver(_gap(5, 10))
        assert subscription.deliver(_log(11))
        assert subscription.deliver(_log(12))
    assert subscription.request()["since"]["offset"] == 12
    assert _taken(subscription, 3) == [None, 11, 12]
    assert subscription.lag == 0


def test_deliver_empty_gap_is_not_shown() -> None:
    """A gap of no messages is no news, unless the log began anew."""
    subscription, _ = _subscription(since={"epoch": "old", "offset": 2})
    subscription.acknowledged(_ack(0))
    assert subscription.deliver(_gap(1, 0, epoch="e", reason="epoch"))
    assert subscription.deliver(_gap(1, 0))
    assert subscription.lag == 1
    assert subscription.request()["since"] == {"epoch": "e", "offset": 0}


def test_deliver_after_the_log_began_anew() -> None:
    """A log that begins anew while it is watched: a gap says so, and offsets start over."""
    subscription, _ = _subscription()
    subscription.acknowledged(_ack(7))
    assert subscription.deliver(_log(8))
    assert subscription.deliver(_gap(1, 2, epoch="new", reason="epoch"))
    assert (subscription.head, subscription.lag) == (2, 2)
    assert subscription.deliver(_log(3))
    assert _taken(subscription, 3) == [8, None, 3]
    assert subscription.position == triows.Position("new", 3)
    assert subscription.lag == 0


def test_acknowledged_again_keeps_the_position() -> None:
    """The answer on a new connection does not move what was read already."""
    subscription, _ = _subscription(tail=1)
    subscription.acknowledged(_ack(10))
    subscription.deliver(_log(10))
    subscription.acknowledged(_ack(15))
    assert subscription.request()["since"]["offset"] == 10
    assert (subscription.head, subscription.lag) == (15, 6)


def test_acknowledged_tail_stops_at_the_oldest() -> None:
    """A tail longer than what is kept begins with the oldest message there is."""
    subscription, _ = _subscription(tail=100)
    subscription.acknowledged(_ack(50, earliest=41))
    assert subscription.position == triows.Position("e", 40)


async def test_failure_comes_after_what_is_there() -> None:
    """Messages read before the failure are handed out first; the first failure counts."""
    subscription, _ = _subscription()
    subscription.acknowledged(_ack(0))
    subscription.deliver(_log(1))
    subscription.fail(triows.ConnectionClosed(4503, "first"))
    subscription.fail(triows.ConnectionClosed(4500, "second"))
    assert (await anext(subscription)).offset == 1
    with pytest.raises(triows.ConnectionClosed) as caught:
        await anext(subscription)
    assert caught.value.code == 4503


async def test_end_comes_before_a_failure() -> None:
    """What has ended has ended, whatever became of the connection afterwards."""
    subscription, _ = _subscription()
    subscription.acknowledged(_ack(0))
    subscription.deliver(triows.Message("end", b"{}", CHANNEL, offset=1))
    subscription.fail(triows.ConnectionClosed(4500, "afterwards"))
    assert [message.type async for message in subscription] == ["end"]
