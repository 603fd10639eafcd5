"""Simulations find bugs: each of these, planted, is found within some seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest

from triows import hub, topics
from triows.bus.database import Database
from triows.bus.memory import MemoryBus
from triows.bus.sqlite import SQLiteBus
from triows.connection import Connection
from triows.heartbeat import Heartbeat
from triows.hub import Hub
from triows.logs import Log, Slice
from triows.messages import Position, Receipt
from triows.outbox import Outbox
from triows.pager import Pager
from triows.requests import SubscribeData
from triows.sender import Sender
from triows.testing.schedule import draw
from triows.testing.simulation import simulate
from triows.topics import Cohort, Subscription
from triows.viewer import Subscription as View

SEEDS: Final = 250
"""Within which each has to be found."""

Plant = Callable[[pytest.MonkeyPatch], None]


def every(count: int) -> Callable[[], bool]:
    """Return a function that is true each so many times."""
    numbers = itertools.count(1)
    return lambda: not next(numbers) % count


def slice_drops_a_message(patch: pytest.MonkeyPatch) -> None:
    """A slice of a log lacks its second message."""
    slice_ = Log.slice

    def planted(self: Log, cursor: int, max_bytes: int) -> Slice:
        whole = slice_(self, cursor, max_bytes)
        if whole.last < cursor + 3:
            return whole
        first = slice_(self, cursor, 1).data
        rest = slice_(self, cursor + 2, max_bytes)
        return Slice(first + rest.data, rest.last)

    patch.setattr(Log, "slice", planted)


def gap_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """A viewer that lags is moved on in silence."""
    catch_up = Subscription.catch_up

    def planted(self: Subscription) -> None:
        catch_up(self)

    patch.setattr(Subscription, "catch_up", planted)


def gap_is_too_short(patch: pytest.MonkeyPatch) -> None:
    """A gap ends one before what is missing does."""
    encode = topics.encode_gap
    patch.setattr(
        topics, "encode_gap", lambda log, first, last, why: encode(log, first, last - 1, why)
    )


def id_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was published is published again."""
    append_all = Log.append_all

    def planted(self: Log, messages: Any, user: str, now: float) -> Any:
        self.forget_all_ids()
        return append_all(self, messages, user, now)

    patch.setattr(Log, "append_all", planted)  # of the engine in memory
    patch.setattr(Log, "place_of", lambda *_: None)  # of the others


def message_is_delivered_twice(patch: pytest.MonkeyPatch) -> None:
    """A cursor does not move on, now and then."""
    advance, now = Cohort.advance, every(5)

    def planted(self: Cohort, piece: Slice, at: float) -> list[Subscription]:
        cursor = self.cursor
        left = advance(self, piece, at)
        if now():
            self.cursor = cursor
        return left

    patch.setattr(Cohort, "advance", planted)


def busy_are_not_passed_over(patch: pytest.MonkeyPatch) -> None:
    """Who has an answer waiting gets the next piece before it."""

    def planted(subscriber: Any, batch: list[Any]) -> None:
        subscriber.queued = True
        batch.append(subscriber)

    patch.setattr(hub, "_queue", planted)


def start_is_one_late(patch: pytest.MonkeyPatch) -> None:
    """Who resumes begins one message late."""
    start = SubscribeData.start

    def planted(self: SubscribeData, log: Log) -> tuple[int, bytes | None]:
        cursor, gap = start(self, log)
        return min(cursor + 1, log.head), gap

    patch.setattr(SubscribeData, "start", planted)


def start_is_one_early(patch: pytest.MonkeyPatch) -> None:
    """Who resumes gets the last message again."""
    start = SubscribeData.start

    def planted(self: SubscribeData, log: Log) -> tuple[int, bytes | None]:
        cursor, gap = start(self, log)
        return max(cursor - 1, log.earliest - 1), gap

    patch.setattr(SubscribeData, "start", planted)


def epoch_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A position of a log that is gone is taken for one in the new log."""
    start = SubscribeData.start

    def planted(self: SubscribeData, log: Log) -> tuple[int, bytes | None]:
        if self.since is not None and self.since.offset <= log.head:
            self.since.epoch = log.epoch
        return start(self, log)

    patch.setattr(SubscribeData, "start", planted)


def acknowledged_too_early(patch: pytest.MonkeyPatch) -> None:
    """The engine on disk answers before it has stored."""
    submit = SQLiteBus.submit

    def planted(
        self: SQLiteBus, channel: str, message: Any, user: str, now: float, done: Any
    ) -> None:
        log = self._shelf.get(channel)
        if log is None:
            submit(self, channel, message, user, now, done)
            return
        submit(self, channel, message, user, now, lambda *_: None)
        done(message, Receipt(log.epoch, log.head + 1))

    patch.setattr(SQLiteBus, "submit", planted)


def commit_is_lost(patch: pytest.MonkeyPatch) -> None:
    """A batch is not stored, now and then."""
    commit, now = Database.commit, every(4)

    def planted(self: Database, channels: Any, messages: Any) -> None:
        commit(self, channels, [] if now() else messages)

    patch.setattr(Database, "commit", planted)


def page_never_comes(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a page from the disk is forgotten."""
    patch.setattr(Pager, "_resume_all", lambda *_: None)


def nobody_unsubscribes(patch: pytest.MonkeyPatch) -> None:
    """A connection that ends goes on watching."""
    patch.setattr(Connection, "_detach", lambda self: self.subscriptions.clear())


def end_is_none(patch: pytest.MonkeyPatch) -> None:
    """More can be published after the end."""
    append_all = Log.append_all

    def planted(self: Log, messages: Any, user: str, now: float) -> Any:
        outcomes = append_all(self, messages, user, now)
        self.ended = None
        return outcomes

    patch.setattr(Log, "append_all", planted)


def nothing_is_given_up(patch: pytest.MonkeyPatch) -> None:
    """A log grows for ever."""
    patch.setattr(Log, "trim", lambda *_: None)


def bytes_are_miscounted(patch: pytest.MonkeyPatch) -> None:
    """The bus counts fewer bytes than it holds."""
    resize, now = MemoryBus._resize, every(3)

    def planted(self: MemoryBus, by: int) -> None:
        resize(self, by - 1 if now() else by)

    patch.setattr(MemoryBus, "_resize", planted)


def wakeup_is_lost(patch: pytest.MonkeyPatch) -> None:
    """The flusher is not woken, now and then."""
    ready, now = Hub.ready, every(7)

    def planted(self: Hub, subscriber: Any) -> None:
        if now() and not subscriber.queued:
            subscriber.queued = True
            return
        ready(self, subscriber)

    patch.setattr(Hub, "ready", planted)


def bytes_are_lost(patch: pytest.MonkeyPatch) -> None:
    """What a full socket did not take is sent without its first byte."""
    leave = Sender._leave_to_writer

    def planted(self: Sender, unsent: memoryview) -> None:
        leave(self, unsent[1:] if len(unsent) > 1 else unsent)

    patch.setattr(Sender, "_leave_to_writer", planted)


def revoked_is_served_on(patch: pytest.MonkeyPatch) -> None:
    """A revocation is noted, and ends nothing."""
    patch.setattr(Connection, "cut", lambda *_: None)


def token_never_expires(patch: pytest.MonkeyPatch) -> None:
    """A connection outlives its token."""
    expire_in = Heartbeat.expire_in
    patch.setattr(Heartbeat, "expire_in", lambda self, seconds: expire_in(self, seconds + 1000))


def nothing_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A client forgets what was not answered when its connection broke."""
    patch.setattr(Outbox, "restart", lambda self: self.wake())


def order_is_lost(patch: pytest.MonkeyPatch) -> None:
    """A client sends the newest request first after a lost connection."""
    import triows.outbox

    in_order = triows.outbox._in_order

    def planted(pending: Any) -> Any:
        some = in_order(pending)
        some.reverse()
        return some

    patch.setattr(triows.outbox, "_in_order", planted)


def reader_skips_when_full(patch: pytest.MonkeyPatch) -> None:
    """A client that has read too far ahead drops what comes, and counts it as read."""
    deliver = View.deliver

    def planted(self: View, message: Any) -> bool:
        if self.paused and self._cursor is not None and message.offset == self._cursor.offset + 1:
            self._cursor = Position(self._cursor.epoch, message.offset)
        return deliver(self, message)

    patch.setattr(View, "deliver", planted)


def drain_ends_nothing(patch: pytest.MonkeyPatch) -> None:
    """Who was told to come back is not let go."""
    patch.setattr(Sender, "part", lambda *_: None)


MEMORY: Final[tuple[Plant, ...]] = (
    slice_drops_a_message,
    gap_is_not_told,
    gap_is_too_short,
    id_is_forgotten,
    message_is_delivered_twice,
    busy_are_not_passed_over,
    start_is_one_late,
    start_is_one_early,
    epoch_is_ignored,
    nobody_unsubscribes,
    end_is_none,
    nothing_is_given_up,
    bytes_are_miscounted,
    wakeup_is_lost,
    bytes_are_lost,
    revoked_is_served_on,
    token_never_expires,
    nothing_is_sent_again,
    order_is_lost,
    reader_skips_when_full,
    drain_ends_nothing,
)
SQLITE: Final[tuple[Plant, ...]] = (acknowledged_too_early, commit_is_lost, page_never_comes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "store"),
    [(p, "memory") for p in MEMORY] + [(p, "sqlite") for p in SQLITE],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_planted_fault_is_found(plant: Plant, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the first seeds finds it."""
    plant(monkeypatch)
    found = any(simulate(draw(seed, store)).wrong for seed in range(SEEDS))

    assert found, f"not found in {SEEDS} seeds"
