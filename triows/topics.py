"""Who watches one log, and where each stands.

Those who keep up stand at the same place and have nothing else to get: a cohort, with one cursor
for all of them. To bring it forward touches nothing of a connection but its socket, for each of
its objects would have to come from memory first, which is what a delivery takes beside the kernel.
What a connection wants to know of itself is worked out when it asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Protocol, final

from triows.codec import encode_push
from triows.errors import Close, CloseCode
from triows.logs import Log, Slice
from triows.messages import MessageType
from triows.transport import Sink

COHORT: Final = 64
"""Members at most: those who get a piece before the flusher looks at the clock."""

_AT_ONCE: Final = 64  # cohorts that are broken up at a time

BEFORE: Final = -1
"""Cursor of those who stand in an epoch that is over."""


class OnLag(StrEnum):
    """What happens to a subscription whose next message is no longer kept."""

    GAP = "gap"
    LATEST = "latest"
    CLOSE = "close"


class Subscriber(Protocol):
    """What the hub knows of a connection."""

    __slots__ = ("queued", "sink", "stale")  # first in memory: a delivery reads only the sink

    queued: bool
    """Whether the flusher will come by (the hub sets it, `flush` clears it)."""
    sink: Sink | None
    """Where a piece may be sent at once; None while there is something else to see to."""
    stale: dict[Subscription, None]
    """Subscriptions that have something to send, next one first; none of a cohort."""

    def flush(self, now: float) -> None:
        """Send what can be sent without waiting."""

    def took(self, messages: int, size: int, at: float, unsent: memoryview | None = None) -> None:
        """Take note of what was sent through the sink.

        Args:
            messages: so many.
            size: bytes that the sink took.
            at: monotonic time of the last.
            unsent: what it did not take of the last piece.
        """

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""


@final
class Subscription:
    """A cursor in a log, and whose it is.

    Attributes:
        cursor: offset of the last message given to the subscriber; in a cohort, as of `settle`.
        on_lag: what to do when the next message is no longer kept.
        active: false once it has been ended.
        cohort: those it stands with, if it does.
    """

    __slots__ = ("_sent", "active", "cohort", "cursor", "log", "on_lag", "subscriber")

    def __init__(self, subscriber: Subscriber, log: Log, cursor: int, on_lag: OnLag) -> None:
        self.subscriber = subscriber
        self.log = log
        self.cursor = cursor
        self.on_lag = on_lag
        self.active = True
        self.cohort: Cohort | None = None
        self._sent = 0  # bytes of its cohort's that the subscriber knows of, as it does of `cursor`

    @property
    def lag(self) -> int:
        """How many messages are waiting for the subscriber; in a cohort, as of `settle`."""
        return self.log.head - self.cursor

    def settle(self) -> None:
        """Come to where its cohort is, and tell the subscriber what it was sent with it."""
        cohort = self.cohort
        if cohort is not None and cohort.cursor != self.cursor:
            messages, size = cohort.cursor - self.cursor, cohort.sent - self._sent
            self.subscriber.took(messages, size, cohort.moved_at)
            self.cursor, self._sent = cohort.cursor, cohort.sent

    def join(self, cohort: Cohort) -> None:
        """Stand with others from now on."""
        assert self.cursor == cohort.cursor
        self.cohort = cohort
        self._sent = cohort.sent
        cohort.members[self.subscriber] = self

    def leave(self) -> None:
        """Stand alone from now on, where the others do."""
        self.settle()
        if self.cohort is not None:
            del self.cohort.members[self.subscriber]
            self.cohort = None

    def catch_up(self) -> bytes | None:
        """Step over what is no longer kept, as `on_lag` says; return the `gap` that tells so."""
        log = self.log
        first = self.cursor + 1
        if first >= log.earliest:
            return None
        if self.cursor == BEFORE:
            self.cursor = log.earliest - 1
            return encode_gap(log, 1, self.cursor, "epoch")
        if self.on_lag is OnLag.CLOSE:
            self.cursor = log.head
            self.subscriber.request_close(
                Close(
                    CloseCode.LAGGING,
                    f"{log.channel}: offset {first} is no longer kept, {log.earliest} is",
                )
            )
            return None
        latest = self.on_lag is OnLag.LATEST
        self.cursor = max(log.earliest, log.head if latest else 0) - 1
        return encode_gap(log, first, self.cursor, "lag")


def encode_gap(log: Log, first: int, last: int, reason: str) -> bytes:
    """Return the frame that tells a subscriber which offsets it will not get, and why."""
    return encode_push(
        MessageType.GAP,
        {
            "epoch": log.epoch,
            "from": first,
            "to": last,
            "count": last - first + 1,
            "reason": reason,
        },
        channel=log.channel,
    )


@final
class Cohort:
    """Subscriptions that stand at the same place, of connections that had nothing else to do.

    Attributes:
        cursor: where.
        members: by subscriber.
        sent: bytes that were sent to each of those who were there all the time.
        moved_at: monotonic time of the last piece.
    """

    __slots__ = ("cursor", "members", "moved_at", "sent")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.members: dict[Subscriber, Subscription] = {}
        self.sent = 0
        self.moved_at = 0.0

    def advance(self, piece: Slice, now: float) -> list[Subscription]:
        """Send a piece to all; return those who leave.

        These are who had something else to see to, and did not get it; and who did not take all
        of it.
        """
        data, size = piece.data, len(piece.data)
        busy: list[Subscriber] = []
        short: list[tuple[Subscriber, int]] = []
        for subscriber in list(self.members):  # copying brings them all into the cache at once
            sink = subscriber.sink
            if sink is None:
                busy.append(subscriber)
                continue
            try:
                sent = sink.send(data)
            except OSError:  # just now, or for good: that is for its writer to find out
                sent = 0
            if sent != size:
                short.append((subscriber, sent))
        left = [self._leave(subscriber) for subscriber in busy]
        for subscriber, sent in short:
            subscription = self._leave(subscriber)
            subscription.cursor = piece.last
            subscriber.took(piece.last - self.cursor, sent, now, memoryview(data)[sent:])
            left.append(subscription)
        self.cursor = piece.last
        self.sent += size
        self.moved_at = now
        return left

    def _leave(self, subscriber: Subscriber) -> Subscription:
        subscription = self.members[subscriber]
        subscription.leave()
        return subscription


@final
class Topic:
    """A log that somebody in this process watches.

    Attributes:
        subscriptions: all of them, longest first.
        dirty: whether the flusher will come by.
    """

    __slots__ = ("_cohorts", "_loose", "dirty", "log", "subscriptions")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.subscriptions: dict[Subscription, None] = {}
        self.dirty = False
        self._loose: dict[Subscription, None] = {}  # those in no cohort
        self._cohorts: dict[Cohort, None] = {}  # none of them empty

    @property
    def cohorts(self) -> list[Cohort]:
        """A copy: they may change."""
        return list(self._cohorts)

    @property
    def loose(self) -> list[Subscription]:
        """Those in no cohort; a copy."""
        return list(self._loose)

    def subscribers(self) -> list[Subscriber]:
        """Return who watches."""
        found = [subscription.subscriber for subscription in self._loose]
        for cohort in self._cohorts:
            found += cohort.members
        return found

    def add(self, subscription: Subscription) -> None:
        """Have somebody watch, alone for now."""
        self.subscriptions[subscription] = None
        self._loose[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Have somebody watch no longer."""
        if subscription.cohort is not None:
            self._loosen(subscription.cohort, [subscription])
        del self.subscriptions[subscription], self._loose[subscription]

    def muster(self, some: Iterable[Subscription]) -> list[Subscription]:
        """Have those of the loose who can be sent to at once, and have something to get that is in
        memory, stand in a cohort; return the others. Those who watch no longer are left out.
        """
        log, others = self.log, []
        open_ones = {c.cursor: c for c in self._cohorts if len(c.members) < COHORT}
        for subscription in some:
            if not subscription.active:
                continue
            cursor = subscription.cursor
            if subscription.subscriber.sink is None or not log.held <= cursor + 1 <= log.head:
                others.append(subscription)
                continue
            cohort = open_ones.get(cursor)
            if cohort is None or len(cohort.members) >= COHORT:
                cohort = open_ones[cursor] = Cohort(cursor)
                self._cohorts[cohort] = None
            subscription.join(cohort)
            del self._loose[subscription]
        return others

    def advance(self, cohort: Cohort, piece: Slice, now: float) -> list[Subscription]:
        """Send a piece to a cohort; return those who had to leave it."""
        left = cohort.advance(piece, now)
        if left:
            self._take_back(cohort, left)
        return left

    def tidy(self) -> None:
        """Break up some of the cohorts if they are many more than it takes: they form anew."""
        if len(self._cohorts) > 2 * (len(self.subscriptions) // COHORT + 1):
            for cohort in self.cohorts[:_AT_ONCE]:
                self.scatter(cohort)

    def scatter(self, cohort: Cohort) -> list[Subscription]:
        """Have the members of a cohort stand alone; return them."""
        members = list(cohort.members.values())
        self._loosen(cohort, members)
        return members

    def _loosen(self, cohort: Cohort, members: list[Subscription]) -> None:
        for subscription in members:
            subscription.leave()
        self._take_back(cohort, members)

    def _take_back(self, cohort: Cohort, members: list[Subscription]) -> None:
        self._loose.update(dict.fromkeys(members))
        if not cohort.members:
            del self._cohorts[cohort]
