"""What is published, and how it comes: in order, once, without a hole that is not told."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, connect, memory_server, run_virtually
from triows.config import LogLimits
from triows.connection import Connection
from triows.hub import PULL_BYTES

A, B = "session:a", "session:b"


def _offsets(messages: list[Any]) -> list[int]:
    return [m["offset"] for m in messages]


async def _publish(server: triows.Server, count: int, *, size: int = 1, to: str = A) -> str:
    """Publish some messages of a size; return the log's epoch."""
    for _ in range(count):
        position = await server.publish(to, triows.log("x" * size))
    return position.epoch


def _follow(messages: list[Any], since: int) -> int:
    """Check that `messages` follow `since` one by one, gaps included; return the last offset."""
    for message in messages:
        if message["type"] == "gap":
            gap = message["data"]
            assert (gap["from"], gap["count"]) == (since + 1, gap["to"] - since)
            since = gap["to"]
        else:
            since += 1
            assert message["offset"] == since
    return since


PUBLISH = st.tuples(st.just("publish"), st.integers(1, 6))
SUBSCRIBE = st.tuples(st.just("subscribe"), st.floats(0, 1))
READ = st.tuples(st.just("read"), st.integers(1, 8))
TICK = st.tuples(st.just("tick"), st.integers(1, 4))


@settings(max_examples=150)
@given(
    steps=st.lists(st.one_of(PUBLISH, SUBSCRIBE, READ, TICK), max_size=25),
    size=st.sampled_from([1, 30_000]),
    kept=st.sampled_from([5, 1000]),
    narrow=st.booleans(),
)
def test_no_hole_and_no_double(
    steps: list[tuple[str, float]], size: int, kept: int, narrow: bool
) -> None:
    """However publishing, subscribing and reading mix, each offset comes once or is in a gap."""

    async def main(nursery: Nursery) -> None:
        async with memory_server(log=LogLimits(max_messages=kept)) as server:
            peer = await connect(server, nursery, narrow=narrow)
            epoch, head = await _publish(server, 1, size=size), 1
            heard: list[Any] = []
            positions = []
            for step, amount in [*steps, ("subscribe", 0.5)]:
                if step == "publish":
                    await _publish(server, int(amount), size=size)
                    head += int(amount)
                elif step == "subscribe":
                    positions.append(round(amount * head))
                    since = {"epoch": epoch, "offset": positions[-1]}
                    await peer.say("subscribe", channel=A, data={"since": since})
                elif step == "read":
                    for _ in range(int(amount)):
                        with trio.move_on_after(0.001):
                            heard.append(await peer.hear())
                else:
                    for _ in range(int(amount)):
                        await trio.lowlevel.checkpoint()
            await _publish(server, 2, size=size)
            heard += await peer.hear_all()
            acks = [i for i, m in enumerate(heard) if m["type"] == "ack"] + [len(heard)]
            assert acks[0] == 0
            assert len(acks) == len(positions) + 1
            for position, (at, end) in zip(positions, pairwise(acks), strict=True):
                last = _follow(heard[at + 1 : end], position)
            assert last == head + 2

    run_virtually(main)


@pytest.mark.parametrize(
    ("start", "gap"),
    [
        ({"from": "start"}, {"from": 1, "to": 7, "count": 7, "reason": "retention"}),
        ({"since": 3}, {"from": 4, "to": 7, "count": 4, "reason": "retention"}),
        ({"since": 7}, None),
        ({"tail": 99}, None),
        ({"epoch": 5}, {"from": 1, "to": 7, "count": 7, "reason": "epoch"}),
    ],
)
async def test_gap_at_the_start(
    nursery: Nursery, autojump_clock: MockClock, start: dict[str, Any], gap: Any
) -> None:
    """What is no longer kept when a subscription begins is told, between ack and messages."""
    async with memory_server(log=LogLimits(max_messages=3)) as server:
        peer = await connect(server, nursery)
        epoch = await _publish(server, 10)
        if "since" in start:
            start = {"since": {"epoch": epoch, "offset": start["since"]}}
        elif "epoch" in start:
            start = {"since": {"epoch": "another", "offset": start["epoch"]}}
        ack = await peer.ask("subscribe", id="1", channel=A, data=start)
        assert (ack["data"]["earliest"], ack["data"]["offset"]) == (8, 10)
        if gap is not None:
            told = await peer.hear()
            assert (told["type"], told["channel"]) == ("gap", A)
            assert told["data"] == {"epoch": epoch, **gap}
        assert _offsets(await peer.hear_all()) == [8, 9, 10]


async def test_another_epoch_of_an_empty_log(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A log that began anew is told by a gap, also when there is nothing in it yet."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        since = {"epoch": "another", "offset": 5}
        ack = await peer.ask("subscribe", channel=A, data={"since": since})
        gap = (await peer.hear())["data"]
        assert (gap["reason"], gap["count"], gap["epoch"]) == ("epoch", 0, ack["data"]["epoch"])


@pytest.mark.parametrize("on_lag", ["gap", "latest"])
async def test_gap_for_one_who_lags(
    nursery: Nursery, autojump_clock: MockClock, on_lag: str
) -> None:
    """Who fell behind what is kept is told what it misses, and goes on with the oldest kept, or
    with the newest if it said `latest`.
    """
    async with memory_server(log=LogLimits(max_messages=5)) as server:
        peer = await connect(server, nursery, narrow=True)
        await peer.ask("subscribe", channel=A, data={"on_lag": on_lag})
        await _publish(server, 1)
        await wait_all_tasks_blocked()
        await _publish(server, 20)
        first, gap, *rest = await peer.hear_all()
        last = 16 if on_lag == "gap" else 20
        assert first["offset"] == 1
        assert gap["data"].pop("epoch")
        assert gap["data"] == {"from": 2, "to": last, "count": last - 1, "reason": "lag"}
        assert _offsets(rest) == list(range(last + 1, 22))


async def test_close_for_one_who_lags(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who said `close` is closed with 4003 when it fell behind, rather than miss something."""
    async with memory_server(log=LogLimits(max_messages=5)) as server:
        peer = await connect(server, nursery, narrow=True)
        await peer.ask("subscribe", channel=A, data={"on_lag": "close"})
        await _publish(server, 1)
        await wait_all_tasks_blocked()
        await _publish(server, 20)
        assert (await peer.hear())["offset"] == 1
        assert await peer.close_code() == 4003


async def test_dropped_range_can_be_fetched(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What `latest` left out can still be had by `history` while it is kept."""
    async with memory_server(log=LogLimits(max_messages=10)) as server:
        peer = await connect(server, nursery, narrow=True)
        await peer.ask("subscribe", channel=A, data={"on_lag": "latest"})
        await _publish(server, 1)
        await wait_all_tasks_blocked()
        await _publish(server, 15)
        _, gap, last = await peer.hear_all()
        bounds = {"from": gap["data"]["from"], "to": gap["data"]["to"]}
        page = await peer.ask("history", channel=A, data=bounds)
        assert (bounds, last["offset"]) == ({"from": 2, "to": 15}, 16)
        assert _offsets(page["data"]["messages"]) == list(range(7, 16))
        assert page["data"]["earliest"] == 7


async def test_replay_is_paced(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A long replay is given out piece by piece, and delays nobody else."""
    async with memory_server() as server:
        await _publish(server, 1000, size=5000)
        quick = await connect(server, nursery)
        slow = await connect(server, nursery, narrow=True)
        await quick.ask("subscribe", channel=A)
        await slow.ask("subscribe", channel=A, data={"from": "start"})
        await wait_all_tasks_blocked()
        connection = server._registry.members()[1]
        assert isinstance(connection, Connection)
        unsent = connection.outgoing._unsent
        assert unsent is not None
        assert PULL_BYTES // 2 < len(unsent) <= PULL_BYTES
        await _publish(server, 1)
        assert _offsets(await quick.hear_all()) == [1001]
        assert server.connections()[1].lag > 970
        assert _offsets(await slow.hear_all()) == list(range(1, 1002))


@pytest.mark.parametrize(
    "sizes",
    [[(A, 60_000), (B, 60_000)], [(A, 1000), (B, 500_000)], [(A, 500_000)], [(A, 30_000)] * 4],
    ids=str,
)
async def test_pull_is_bounded(
    nursery: Nursery, autojump_clock: MockClock, sizes: list[tuple[str, int]]
) -> None:
    """Of several channels together no more is taken at a time than of one; a message that is
    larger by itself goes alone.
    """
    async with memory_server() as server:
        for channel, size in sizes:
            await _publish(server, 1, size=size, to=channel)
        peer = await connect(server, nursery)
        for channel in (A, B):
            await peer.ask("subscribe", channel=channel)
        await wait_all_tasks_blocked()
        connection = server._registry.members()[0]
        assert isinstance(connection, Connection)
        sender = connection.outgoing
        for subscription in connection.subscriptions.values():
            subscription.cursor = 0
            sender.stale[subscription] = None
        pieces = []
        while sender.stale:
            pieces.append(len(sender._pull(trio.current_time())))
        largest = max(size for _, size in sizes)
        assert sum(pieces) > sum(size for _, size in sizes)
        assert max(pieces) <= max(PULL_BYTES, largest + 200)


async def test_channels_take_turns(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A long replay of one channel does not keep back what is live in another."""
    async with memory_server() as server:
        await _publish(server, 100, size=20_000)
        await _publish(server, 100, size=20_000, to=B)
        peer = await connect(server, nursery, narrow=True)
        for channel in (A, B):
            await peer.say("subscribe", channel=channel, data={"from": "start"})
        heard = [m["channel"] for m in await peer.hear_all() if m["type"] == "log"]
        assert (heard.count(A), heard.count(B)) == (100, 100)
        ahead = [abs(heard[:i].count(A) - heard[:i].count(B)) for i in range(150)]
        assert max(ahead) < 5 * PULL_BYTES // 20_000


async def test_answers_overtake_a_replay(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who is in the middle of a long replay gets its answers at once all the same."""
    async with memory_server() as server:
        await _publish(server, 100, size=20_000)
        peer = await connect(server, nursery, narrow=True)
        await peer.say("subscribe", channel=A, data={"from": "start"})
        await peer.hear()
        await peer.say("ping")
        types = [m["type"] for m in await peer.hear_all()]
        assert types.index("pong") < 10
        assert types.count("log") == 100


async def test_nothing_comes_after_unsubscribe(nursery: Nursery, autojump_clock: MockClock) -> None:
    """After the ack of an unsubscribe nothing comes, not even of a replay under way."""
    async with memory_server() as server:
        await _publish(server, 100, size=20_000)
        peer = await connect(server, nursery, narrow=True)
        await peer.say("subscribe", channel=A, data={"from": "start"})
        await peer.say("unsubscribe", id="u", channel=A)
        await _publish(server, 1)
        heard = await peer.hear_all()
        assert heard[-1].get("id") == "u"
        assert len(heard) < 10


@pytest.mark.parametrize("busy", [False, True])
async def test_slices_are_shared(nursery: Nursery, autojump_clock: MockClock, busy: bool) -> None:
    """Viewers at the same place are sent the very same bytes, joined once."""
    async with memory_server() as server:
        if busy:  # another channel has something, too
            elsewhere = await connect(server, nursery)
            await elsewhere.ask("subscribe", channel=B)
        peers = [await connect(server, nursery, narrow=True) for _ in range(5)]
        for peer in peers:
            await peer.ask("subscribe", channel=A)
        await wait_all_tasks_blocked()
        for i in range(3):  # at once: no viewer is served in between
            server._bus.submit(A, triows.log(i), "", trio.current_time(), lambda *outcome: None)
            server._bus.submit(B, triows.log(i), "", trio.current_time(), lambda *outcome: None)
        await wait_all_tasks_blocked()
        waiting = set()
        for member in server._registry.members()[-5:]:
            assert isinstance(member, Connection)
            assert member.outgoing._unsent is not None
            waiting.add(id(member.outgoing._unsent.obj))
        assert len(waiting) == 1
        assert [_offsets(await peer.hear_all()) for peer in peers] == [[1, 2, 3]] * 5


async def test_publishing_waits_for_nobody(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The application publishes on while no viewer reads; bad channels are its error."""
    async with memory_server() as server:
        stuck = await connect(server, nursery, narrow=True)
        await stuck.ask("subscribe", channel=A)
        started = trio.current_time()
        epoch = await _publish(server, 500, size=10_000)
        assert trio.current_time() == started
        first = await server.publish(B, triows.log(1, id="x"))
        again = await server.publish(B, triows.log(2, id="x"))
        assert (first, first.offset) == (again, 1)
        assert first.epoch != epoch
        with pytest.raises(triows.RequestError, match="not a channel"):
            await server.publish("nowhere", triows.log(1))


async def test_slow_but_steady_is_not_cut(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A viewer that takes a little all the time is slow, not dead."""
    async with memory_server(limits=triows.Limits(ping_interval=1000)) as server:
        peer = await connect(server, nursery, narrow=True)
        await peer.ask("subscribe", channel=A)
        for _ in range(4):
            await server.publish(A, triows.log("x" * 50_000))
        offsets: list[int] = []
        while len(offsets) < 4:
            await trio.sleep(server.settings.limits.write_timeout - 1)
            with trio.move_on_after(0.001):
                offsets.append((await peer.hear())["offset"])
        assert offsets == [1, 2, 3, 4]
