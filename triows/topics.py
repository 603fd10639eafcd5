"""Who watches one log, and where each stands.

Those who keep up stand at the same place and have nothing else to get: a cohort, with one cursor
for all of them. To bring it forward touches nothing of a connection but its socket, for each of
its objects would have to come from memory first, which is what a delivery takes beside the kernel.
What a connection wants to know of itself is worked out when it asks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Protocol, final

from triows.codec import encode_push
from triows.errors import Close, CloseCode
from triows.logs import Log, Slice
from triows.messages import MessageType
from triows.transport import Sink

COHORT: Final = 128
"""Members at most: those who get a piece before the flusher looks at the clock."""

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
        on_lag: what to do when the next message is no longer kept.
        active: false once it has been ended.
        cohort: those it stands with, if it does.
    """

    __slots__ = ("_cursor", "_sent", "active", "cohort", "log", "on_lag", "subscriber")

    def __init__(self, subscriber: Subscriber, log: Log, cursor: int, on_lag: OnLag) -> None:
        self.subscriber = subscriber
        self.log = log
        self.on_lag = on_lag
        self.active = True
        self.cohort: Cohort | None = None
        self._cursor = cursor  # while in a cohort, what the subscriber knows of; so `_sent`
        self._sent = 0

    @property
    def cursor(self) -> int:
        """Offset of the last message given to the subscriber."""
        return self._cursor if self.cohort is None else self.cohort.cursor

    @cursor.setter
    def cursor(self, offset: int) -> None:
        assert self.cohort is None
        self._cursor = offset

    @property
    def lag(self) -> int:
        """How many messages are waiting for the subscriber."""
        return self.log.head - self.cursor

    def settle(self) -> None:
        """Tell the subscriber what it was sent with its cohort."""
        cohort = self.cohort
        if cohort is not None and cohort.cursor != self._cursor:
            messages, size = cohort.cursor - self._cursor, cohort.sent - self._sent
            self.subscriber.took(messages, size, cohort.moved_at)
            self._cursor, self._sent = cohort.cursor, cohort.sent

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
        self._cohorts: list[Cohort] = []  # none of them empty

    @property
    def cohorts(self) -> list[Cohort]:
        """A copy: they may change."""
        return self._cohorts.copy()

    def add(self, subscription: Subscription) -> None:
        """Have somebody watch, alone for now."""
        self.subscriptions[subscription] = None
        self._loose[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Have somebody watch no longer."""
        self._part(subscription)
        del self.subscriptions[subscription], self._loose[subscription]

    def muster(self) -> list[Subscription]:
        """Form cohorts of all who can be sent to at once, and have something to get that is in
        memory; return the rest.
        """
        log, rest = self.log, []
        for subscription in list(self._loose):
            in_memory = log.held <= subscription.cursor + 1 <= log.head
            if in_memory and subscription.subscriber.sink is not None:
                self._join(subscription)
            else:
                rest.append(subscription)
        return rest

    def _join(self, subscription: Subscription) -> None:
        cohort = self._cohorts[-1] if self._cohorts else None
        if cohort is None or cohort.cursor != subscription.cursor or len(cohort.members) >= COHORT:
            cohort = Cohort(subscription.cursor)
            self._cohorts.append(cohort)
        subscription.join(cohort)
        del self._loose[subscription]

    def advance(self, cohort: Cohort, piece: Slice, now: float) -> list[Subscription]:
        """Send a piece to a cohort; return those who had to leave it."""
        left = cohort.advance(piece, now)
        self._loose.update(dict.fromkeys(left))
        self._forget_empty(cohort)
        return left

    def scatter(self) -> None:
        """Have everybody stand alone."""
        for cohort in self.cohorts:
            for subscription in list(cohort.members.values()):
                self._part(subscription)

    def _part(self, subscription: Subscription) -> None:
        cohort = subscription.cohort
        if cohort is not None:
            subscription.leave()
            self._loose[subscription] = None
            self._forget_empty(cohort)

    def _forget_empty(self, cohort: Cohort) -> None:
        if not cohort.members:
            self._cohorts.remove(cohort)
