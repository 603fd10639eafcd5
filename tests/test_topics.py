"""Cohorts: those who keep up share a cursor, and nobody can tell by what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import PING, Nursery, run_virtually
from triows import hub as hub_module
from triows import topics
from triows.codec import encode_push
from triows.config import LogLimits
from triows.errors import Close
from triows.frames import encode_frame
from triows.hub import Hub
from triows.logs import Log
from triows.messages import MessageType
from triows.sender import Sender
from triows.testing.streams import FaultySocket, Pipe
from triows.topics import COHORT, Subscription, Topic
from triows.transport import Transport

WIDE = 1 << 30
CHANNELS = ("session:a", "session:b")
VIEWERS = 4


class Viewer:
    """A connection without a peer: what is sent to it is kept.

    Answers tell where its cursors are put, so what it gets can be checked by itself alone.
    """

    def __init__(self, hub: Hub, nursery: Nursery) -> None:
        self.hub = hub
        self.close: Close | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.unanswered = 0
        self.got = bytearray()
        self.pipe = Pipe(WIDE, self.got.extend)
        self.transport = Transport(FaultySocket(Pipe(), self.pipe), "viewer")
        self.sender = Sender(self.transport, hub, self, 1e9)
        self.asked: list[dict[str, int]] = []  # heads of the logs, when an answer was given
        nursery.start_soon(self.sender.run)

    def request_close(self, close: Close) -> None:
        """Watch no longer."""
        self.close = close
        for channel in list(self.subscriptions):
            self.hub.unsubscribe(self.subscriptions.pop(channel))

    def lose(self, close: Close) -> None:
        """Send nothing more, and watch no longer."""
        self.sender.stop()
        self.request_close(close)

    def describe(self) -> dict[str, object]:
        """Nobody asks."""
        return {}

    def subscribe(self, log: Log, cursor: int | None = None) -> None:
        """Watch from a place on, or from now on."""
        cursor = log.head if cursor is None else cursor
        place = {"epoch": log.epoch, "offset": cursor}
        self._answer("subscribed", log.channel, place)
        self.subscriptions[log.channel] = self.hub.subscribe(self.sender, log, cursor)

    def unsubscribe(self, log: Log) -> None:
        """Watch no longer."""
        self.hub.unsubscribe(self.subscriptions.pop(log.channel))
        self._answer("unsubscribed", log.channel, {})

    def ask(self, logs: dict[str, Log]) -> None:
        """Have it answered something."""
        self._answer("answered", None, len(self.asked))
        self.asked.append({log.epoch: log.head for log in logs.values()})

    def _answer(self, what: str, channel: str | None, data: Any) -> None:
        self.sender.offer(encode_push(MessageType.ACK, data, id=what, channel=channel))

    def heard(self) -> Iterator[dict[str, Any]]:
        """Return the messages of whole frames so far."""
        at = 0
        while at < len(self.got):
            length, begin = self.got[at + 1], at + 2
            if length >= 126:
                extended = 2 if length == 126 else 8
                length = int.from_bytes(self.got[begin : begin + extended], "big")
                begin += extended
            assert begin + length <= len(self.got), "half a frame"
            if self.got[at] & 15 == 1:
                yield json.loads(self.got[begin : begin + length])
            at = begin + length

    def check(self, logs: dict[str, Log]) -> int:
        """Check all it got, to the end; return how many published messages there were."""
        next_ones: dict[str, int] = {}  # offset of the next message, by channel
        epochs: dict[str, str] = {}
        published = answered = 0
        for message in self.heard():
            channel: str = message.get("channel", "")
            data: Any = message.get("data")
            if message["type"] == "log":
                assert message["offset"] == next_ones[channel]
                next_ones[channel] += 1
                published += 1
            elif message["type"] == "gap":
                assert data["reason"] == "epoch" or data["from"] == next_ones[channel]
                next_ones[channel], epochs[channel] = data["to"] + 1, data["epoch"]
            elif message["id"] == "subscribed":
                next_ones[channel], epochs[channel] = data["offset"] + 1, data["epoch"]
            elif message["id"] == "unsubscribed":
                del next_ones[channel]
            else:
                assert data == answered, "an answer is missing"
                answered += 1
                heads = self.asked[data]
                for name, following in next_ones.items():
                    assert following - 1 <= heads.get(epochs[name], following), "too late"
        assert answered == len(self.asked)
        assert next_ones == {c: logs[c].head + 1 for c in self.subscriptions}
        return published


def begin_anew(log: Log, hub: Hub) -> None:
    """Do what an engine does whose store was emptied."""
    log.epoch, log.head, log.earliest, log.held = f"{log.epoch}+", 0, 1, 1
    log._frames.clear()
    log._skip = 0
    del log._times[:]
    log.append(triows.log("new"), "u", 0.0)
    hub.renew(log)


_viewers = st.integers(0, VIEWERS - 1)
_publish_some = st.tuples(
    st.just("publish"), st.sampled_from((1, 1, 1, 3)), st.sampled_from((1, 1, 40_000))
)
_something = st.one_of(
    _publish_some,
    st.tuples(st.just("narrow"), _viewers, st.sampled_from((0, 1, 150, 50_000))),
    st.tuples(st.sampled_from(("widen", "ask", "settle", "ping")), _viewers),
    st.tuples(st.sampled_from(("unsubscribe", "subscribe", "resume")), _viewers),
    st.sampled_from((("renew",), ("tick",))),
)
_steps = st.lists(
    st.tuples(st.sampled_from((0, 0, 0, 1)), st.booleans(), _publish_some | _something),
    min_size=20,
    max_size=60,
)


class Play:
    """Viewers of two logs, and what is done to them."""

    def __init__(self, nursery: Nursery, most: int) -> None:
        self.hub = Hub()
        limits = LogLimits(max_messages=most)
        self.logs = {channel: Log(channel, limits, 0.0) for channel in CHANNELS}
        self.viewers = [Viewer(self.hub, nursery) for _ in range(VIEWERS)]
        nursery.start_soon(self.hub.run)
        for viewer in self.viewers:
            viewer.subscribe(self.logs[CHANNELS[0]])

    async def step(self, channel: str, what: str, *arguments: int) -> None:
        """Do one thing, if it can be done."""
        log, hub = self.logs[channel], self.hub
        if what == "publish":
            count, size = arguments
            for _ in range(count):
                log.append(triows.log("x" * size), "u", trio.current_time())
            hub.mark(log, count)
        elif what == "renew":
            begin_anew(log, hub)
        elif what == "tick":
            await trio.lowlevel.checkpoint()
        else:
            await self._with(self.viewers[arguments[0]], log, what, *arguments[1:])

    async def _with(self, viewer: Viewer, log: Log, what: str, *arguments: int) -> None:
        watching = log.channel in viewer.subscriptions
        if what in ("subscribe", "resume") and not watching:
            resumed = what == "resume"
            viewer.subscribe(log, max(0, log.earliest - 1, log.head - 3) if resumed else None)
        elif what == "unsubscribe" and watching:
            viewer.unsubscribe(log)
        elif what == "ask":
            viewer.ask(self.logs)
        elif what == "settle":
            viewer.sender.settle()
        elif what == "ping" and not viewer.sender.is_blocked:
            await viewer.sender.output(encode_frame(b"", PING))
        elif what == "narrow":
            viewer.pipe.set(capacity=viewer.pipe.size + arguments[0])
        elif what == "widen":
            viewer.pipe.set(capacity=WIDE)

    async def finish(self) -> None:
        """Let everybody have everything, and check it."""
        for viewer in self.viewers:
            viewer.pipe.set(capacity=WIDE)
        for channel in CHANNELS:
            await wait_all_tasks_blocked()
            await self.step(channel, "publish", 1, 1)
        await wait_all_tasks_blocked()
        for topic in self.hub._topics.values():
            assert all(cohort.members for cohort in topic.cohorts)
        for viewer in self.viewers:
            published = viewer.check(self.logs)
            viewer.sender.settle()
            assert viewer.sender.sent_messages == published
            assert viewer.transport.sent == len(viewer.got)
            assert viewer.close is None
            assert viewer.sender.sink is viewer.transport.sink


@settings(max_examples=200)
@given(steps=_steps, pausing=st.booleans(), size=st.integers(1, 3), most=st.sampled_from((3, 1000)))
def test_nobody_can_tell(
    steps: list[tuple[int, bool, tuple[Any, ...]]], pausing: bool, size: int, most: int
) -> None:
    """Whatever happens, each gets every message once and in order, answers first, and all bytes
    and messages are counted.
    """

    async def play(nursery: Nursery) -> None:
        stage = Play(nursery, most)
        for channel, rest, step in steps:
            await stage.step(CHANNELS[channel], *step)
            if rest:
                await wait_all_tasks_blocked()
        await stage.finish()

    budget = -1.0 if pausing else 1e9
    with (
        patch.object(hub_module, "_BUDGET", budget),
        patch.object(hub_module, "_MUSTERED", size),
        patch.object(topics, "COHORT", size),
    ):
        run_virtually(play)


async def _keeping_up(nursery: Nursery, count: int) -> tuple[Hub, Log, list[Viewer], Topic]:
    """Return viewers of one log who have got its first message."""
    hub, log = Hub(), Log(CHANNELS[0], LogLimits(max_messages=3), 0.0)
    nursery.start_soon(hub.run)
    viewers = [Viewer(hub, nursery) for _ in range(count)]
    for viewer in viewers:
        viewer.subscribe(log)
    await wait_all_tasks_blocked()
    await _publish(hub, log)
    return hub, log, viewers, hub._topics[log.channel]


async def _publish(hub: Hub, log: Log, count: int = 1) -> None:
    for _ in range(count):
        log.append(triows.log("x"), "u", trio.current_time())
    hub.mark(log, count)
    await wait_all_tasks_blocked()


async def test_who_keeps_up_is_in_a_cohort(nursery: Nursery, autojump_clock: MockClock) -> None:
    """From the first message on, and not more than so many in one."""
    _, _, _, topic = await _keeping_up(nursery, COHORT + 1)
    assert [len(cohort.members) for cohort in topic.cohorts] == [COHORT, 1]
    nursery.cancel_scope.cancel()


def _nothing(hub: Hub, log: Log, viewer: Viewer) -> None:
    """Keep up."""


def _ask(hub: Hub, log: Log, viewer: Viewer) -> None:
    viewer.ask({log.channel: log})


def _fill(hub: Hub, log: Log, viewer: Viewer) -> None:
    viewer.pipe.set(capacity=viewer.pipe.size + 1)


def _watch_another(hub: Hub, log: Log, viewer: Viewer) -> None:
    """Two logs grow in one tick: who watches both is visited once, for both."""
    other = Log(CHANNELS[1], LogLimits(), 0.0)
    viewer.subscribe(other)
    other.append(triows.log("x"), "u", 0.0)
    hub.mark(other, 1)


async def test_others_stand_elsewhere(nursery: Nursery) -> None:
    """Cohorts are of those at one place."""
    log = Log(CHANNELS[0], LogLimits(), 0.0)
    for _ in range(3):
        log.append(triows.log("x"), "u", 0.0)
    topic = Topic(log)
    for cursor in (1, 1, 2, 3):
        viewer = Viewer(Hub(), nursery)
        topic.add(Subscription(viewer.sender, log, cursor, triows.OnLag.GAP))
    await wait_all_tasks_blocked()
    others = topic.muster(topic.loose)
    assert [subscription.cursor for subscription in others] == [3]  # it has everything
    assert [(c.cursor, len(c.members)) for c in topic.cohorts] == [(1, 2), (2, 1)]
    nursery.cancel_scope.cancel()


async def test_cohorts_do_not_crumble(nursery: Nursery) -> None:
    """Not when their members come in any order, nor for ever when these came from many places."""
    log = Log(CHANNELS[0], LogLimits(), 0.0)
    for _ in range(8):
        log.append(triows.log("x"), "u", 0.0)
    topic = Topic(log)
    for cursor in [1, 2] * COHORT + list(range(8)):
        viewer = Viewer(Hub(), nursery)
        topic.add(Subscription(viewer.sender, log, cursor, triows.OnLag.GAP))
    topic.muster(topic.loose)
    assert [len(cohort.members) for cohort in topic.cohorts] == [COHORT, COHORT, *[1] * 8]
    await wait_all_tasks_blocked()
    for cohort in topic.cohorts:
        topic.advance(cohort, log.slice(cohort.cursor, WIDE), 0.0)
    log.append(triows.log("x"), "u", 0.0)
    topic.tidy()
    topic.muster(topic.loose)
    assert [len(cohort.members) for cohort in topic.cohorts] == [COHORT, COHORT, 8]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("event", "staying"),
    [(_nothing, 3), (_ask, 2), (_fill, 2), (_watch_another, 2)],
    ids=["nothing", "answer", "full", "several"],
)
async def test_who_has_something_else_leaves_and_comes_back(
    nursery: Nursery,
    autojump_clock: MockClock,
    event: Callable[[Hub, Log, Viewer], None],
    staying: int,
) -> None:
    """With the next message it is told of, once it is up to date again."""
    hub, log, viewers, topic = await _keeping_up(nursery, 3)
    event(hub, log, viewers[0])
    await _publish(hub, log)
    assert sum(len(cohort.members) for cohort in topic.cohorts) == staying
    viewers[0].pipe.set(capacity=WIDE)
    await wait_all_tasks_blocked()
    await _publish(hub, log)
    assert sum(len(cohort.members) for cohort in topic.cohorts) == 3
    nursery.cancel_scope.cancel()


async def test_broken_socket_is_found(nursery: Nursery, autojump_clock: MockClock) -> None:
    """By the writer, as one that takes nothing; the others do not notice."""
    hub, log, viewers, topic = await _keeping_up(nursery, 3)
    viewers[0].pipe.break_off()
    await _publish(hub, log)
    assert viewers[0].close is not None
    assert viewers[0].close.reason == "the peer is gone"
    assert list(topic.subscriptions) == [v.subscriptions[log.channel] for v in viewers[1:]]
    assert [v.check({log.channel: log}) for v in viewers[1:]] == [2, 2]
    nursery.cancel_scope.cancel()


async def test_cohort_that_was_left_behind(nursery: Nursery, autojump_clock: MockClock) -> None:
    """More came in one tick than is kept: all are told of the gap."""
    hub, log, viewers, _ = await _keeping_up(nursery, 3)
    await _publish(hub, log, 5)
    for viewer in viewers:
        assert [m["type"] for m in viewer.heard()] == ["ack", "log", "gap", "log", "log", "log"]
    nursery.cancel_scope.cancel()


async def test_page_that_comes_late(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One that has come by what it waited for in another way is left where it is."""
    hub, log, viewers, topic = await _keeping_up(nursery, 1)
    hub._resume(viewers[0].subscriptions[log.channel])
    assert not viewers[0].sender.stale
    await _publish(hub, log)
    assert len(topic.cohorts) == 1
    nursery.cancel_scope.cancel()


async def test_log_that_begins_anew_while_others_have_their_turn(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gets a message of the old epoch in the place of a new one at the same offset."""
    hub, log, viewers, _ = await _keeping_up(nursery, COHORT + 1)

    def begin() -> None:
        begin_anew(log, hub)
        viewers[-1].sender.flush(0.0)  # as for a control frame
        log.append(triows.log("newer"), "u", 0.0)
        hub.mark(log, 1)

    _after_one_cohort(monkeypatch, begin)
    await _publish(hub, log)
    got = [[_brief(m) for m in viewer.heard()][1:] for viewer in viewers]
    assert got == [["x", "x", "gap", "new", "newer"]] * COHORT + [["x", "gap", "new", "newer"]]
    nursery.cancel_scope.cancel()


def _after_one_cohort(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have something done in the flusher's next pause, which comes after one cohort."""

    async def pause(turn: object) -> None:
        monkeypatch.undo()
        act()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(hub_module, "_BUDGET", -1.0)
    monkeypatch.setattr(hub_module._Turn, "pause", pause)


def _brief(message: dict[str, Any]) -> Any:
    return message["data"] if message["type"] == "log" else message["type"]


async def test_who_leaves_while_others_have_their_turn(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not reached it by then does not."""
    hub, log, viewers, topic = await _keeping_up(nursery, COHORT + 1)
    _after_one_cohort(monkeypatch, lambda: viewers[-1].unsubscribe(log))
    await _publish(hub, log)
    assert [v.check({log.channel: log}) for v in (viewers[0], viewers[-1])] == [2, 1]
    assert len(topic.cohorts) == 1
    nursery.cancel_scope.cancel()


async def test_who_leaves_before_its_turn(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was to stand in a cohort and watches no longer is left out."""
    hub, log, viewers, topic = await _keeping_up(nursery, 2)
    for viewer in viewers:
        viewer.ask({log.channel: log})
    await _publish(hub, log)  # all are visited, and stand alone
    _after_one_cohort(monkeypatch, lambda: viewers[-1].unsubscribe(log))
    await _publish(hub, log)
    assert [v.check({log.channel: log}) for v in viewers] == [3, 2]
    assert [len(cohort.members) for cohort in topic.cohorts] == [1]
    nursery.cancel_scope.cancel()


async def test_who_watches_several_is_sent_all_at_once(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Of logs that grow in one tick; not piece by piece."""
    hub, log, viewers, _ = await _keeping_up(nursery, 2)
    other = Log(CHANNELS[1], LogLimits(), 0.0)
    viewers[0].subscribe(other)
    await wait_all_tasks_blocked()
    sent: list[bytes] = []
    viewers[0].pipe.tap = sent.append
    other.append(triows.log("x"), "u", 0.0)
    hub.mark(other, 1)
    await _publish(hub, log)
    assert [piece.count(b'"type":"log"') for piece in sent] == [2]
    nursery.cancel_scope.cancel()
