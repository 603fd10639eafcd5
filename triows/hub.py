"""Who watches what in this process: cursors, and the one task that serves them.

Publishing only marks a log. The flusher, once per scheduler tick, brings every connection that
watches a marked log up to date: an idle system sends at once, a busy one batches by itself. A
viewer that cannot keep up is a cursor that lags: one integer, no queue.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Final, Protocol

import trio

from triows.codec import encode_push
from triows.counters import Histogram
from triows.errors import Close, CloseCode
from triows.logs import Log, Slice
from triows.messages import MessageType
from triows.pager import PAGE_BYTES, Pager

PULL_BYTES: Final = PAGE_BYTES
"""Bytes one connection is given at a time: paces a replay, and bounds what a stalled one holds."""

_BUDGET: Final = 0.005  # seconds the flusher works before it lets readers and heartbeats run
_CHECK_EVERY: Final = 32  # connections between two looks at the clock
_BEFORE: Final = -1  # cursor of those who stand in an epoch that is over
_CACHED_BYTES: Final = 8 * 1024 * 1024  # of joined slices, shared by those at the same place


class OnLag(StrEnum):
    """What happens to a subscription whose next message is no longer kept."""

    GAP = "gap"
    LATEST = "latest"
    CLOSE = "close"


class Subscriber(Protocol):
    """What the hub knows of a connection."""

    queued: bool
    """Whether the flusher will come by (the hub sets it, `flush` clears it)."""
    stale: dict[Subscription, None]
    """Subscriptions that have something to send, next one first."""

    def flush(self, now: float) -> None:
        """Send what can be sent without waiting."""

    def deliver(self, subscription: Subscription, piece: Slice, now: float) -> bool:
        """Send the next piece of one subscription, if there is nothing else to do; false if there
        is more to do than that.
        """

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""


class Subscription:
    """A cursor in a log, and whose it is.

    Attributes:
        cursor: offset of the last message given to the subscriber.
        on_lag: what to do when the next one is no longer kept.
        active: false once it has been ended.
    """

    __slots__ = ("active", "cursor", "log", "on_lag", "subscriber")

    def __init__(self, subscriber: Subscriber, log: Log, cursor: int, on_lag: OnLag) -> None:
        self.subscriber = subscriber
        self.log = log
        self.cursor = cursor
        self.on_lag = on_lag
        self.active = True

    @property
    def lag(self) -> int:
        """How many messages are waiting for the subscriber."""
        return self.log.head - self.cursor

    def catch_up(self) -> bytes | None:
        """Step over what is no longer kept, as `on_lag` says; return the `gap` that tells so."""
        log = self.log
        first = self.cursor + 1
        if first >= log.earliest:
            return None
        if self.cursor == _BEFORE:
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


class _Topic:
    """A log that somebody in this process watches."""

    __slots__ = ("dirty", "log", "subscriptions")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.subscriptions: dict[Subscription, None] = {}
        self.dirty = False


class Watcher(Protocol):
    """Somebody inside the process who wants to know of every log that grows."""

    def mark(self, log: Log, grown: int) -> None:
        """Take note that `log` has so many messages more; must not wait or raise."""

    def renew(self, log: Log) -> None:
        """Take note that `log` began anew, with another epoch; must not wait or raise."""


class Hub:
    """Brings what was published to those who watch it.

    Attributes:
        watchers: those inside the process.
        gaps: how many gaps were told of.
        latency: seconds from publishing to the sockets of all who watch: of each flush, that of
            the message that waited longest.
    """

    def __init__(self) -> None:
        self.watchers: dict[Watcher, None] = {}
        self.pager: Pager[Subscription] = Pager(self._resume)
        self.gaps = 0
        self.latency = Histogram()
        self._marked_at = 0.0  # when the first of `_dirty` was
        self._topics: dict[str, _Topic] = {}
        self._dirty: list[_Topic] = []
        self._ready: list[Subscriber] = []
        self._idle = trio.lowlevel.ParkingLot()
        self._slices: dict[tuple[Log, int], Slice] = {}
        self._slices_size = 0

    def subscribe(
        self, subscriber: Subscriber, log: Log, cursor: int, on_lag: OnLag = OnLag.GAP
    ) -> Subscription:
        """Watch `log` from after `cursor` on; what is there already is sent, too."""
        topic = self._topics.get(log.channel)
        if topic is None:
            topic = self._topics[log.channel] = _Topic(log)
        subscription = Subscription(subscriber, log, cursor, on_lag)
        topic.subscriptions[subscription] = None
        log.watchers += 1
        if cursor < log.head:
            subscriber.stale[subscription] = None
            self.ready(subscriber)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Watch no longer: nothing more is sent for it, not even what is waiting."""
        subscription.active = False
        channel = subscription.log.channel
        topic = self._topics[channel]
        del topic.subscriptions[subscription]
        if not topic.subscriptions:
            del self._topics[channel]
        subscription.log.watchers -= 1
        subscription.subscriber.stale.pop(subscription, None)

    def count(self, channel: str) -> int:
        """Return how many watch `channel` in this process."""
        return len(self.subscribers(channel))

    def subscribers(self, channel: str) -> list[Subscriber]:
        """Return who watches `channel` in this process, longest first."""
        topic = self._topics.get(channel)
        return [s.subscriber for s in topic.subscriptions] if topic else []

    def mark(self, log: Log, grown: int) -> None:
        """Note that `log` has grown, by so many messages."""
        topic = self._topics.get(log.channel)
        if topic is not None and not topic.dirty:
            topic.dirty = True
            if not self._dirty:
                self._marked_at = log.touched
            self._dirty.append(topic)
            self._idle.unpark_all()
        for watcher in self.watchers:
            watcher.mark(log, grown)

    def renew(self, log: Log) -> None:
        """Note that `log` began anew in its place: all are told by `gap`, and get what it has."""
        topic = self._topics.get(log.channel)
        for subscription in topic.subscriptions if topic is not None else ():
            subscription.cursor = _BEFORE
            self._resume(subscription)
        self._forget_slices()
        for watcher in self.watchers:
            watcher.renew(log)

    def ready(self, subscriber: Subscriber) -> None:
        """Have the flusher come by `subscriber`."""
        if not subscriber.queued:
            subscriber.queued = True
            self._ready.append(subscriber)
            self._idle.unpark_all()

    def _resume(self, subscription: Subscription) -> None:
        """Have the flusher come by for a subscription that has something to get."""
        subscription.subscriber.stale[subscription] = None
        self.ready(subscription.subscriber)

    def piece(self, subscription: Subscription) -> Slice | None:
        """Return what comes next, or None if it has to be fetched: then the flusher comes by
        again, and the subscription is not stale until then.
        """
        if subscription.cursor + 1 < subscription.log.held:
            return self.pager.page(subscription)
        return self.slice(subscription.log, subscription.cursor)

    def slice(self, log: Log, cursor: int) -> Slice:
        """Return what follows `cursor`: joined once for all that stand at the same place."""
        key = (log, cursor)
        found = self._slices.get(key)
        # One made earlier in this tick may end before the head, or begin before `held`: it
        # is still right, only not the longest.
        if found is None:
            found = self._slices[key] = log.slice(cursor, PULL_BYTES)
            self._slices_size += len(found.data)
            if self._slices_size > _CACHED_BYTES:
                self._forget_slices()
        return found

    def _forget_slices(self) -> None:
        self._slices.clear()
        self._slices_size = 0

    async def run(self) -> None:
        """Serve the subscribers, until cancelled."""
        while True:
            if self._dirty or self._ready:
                await trio.lowlevel.checkpoint()
            else:
                await self._idle.park()
            marked_at = self._marked_at if self._dirty else None
            if len(self._dirty) == 1:
                await self._deliver(self._dirty.pop())
            await self._flush(self._gather())
            if marked_at is not None:
                self.latency.observe(trio.current_time() - marked_at)
            if self._slices:
                self._forget_slices()

    async def _deliver(self, topic: _Topic) -> None:
        """Bring one topic's subscribers up to date, when it is the only one.

        The most common case in the fewest steps: those who stand at the same place are given
        the same piece, and who has nothing else to send gets it at once.
        """
        topic.dirty = False
        log, piece, at = topic.log, None, -1
        turn = _Turn()
        for number, subscription in enumerate(list(topic.subscriptions), 1):
            cursor = subscription.cursor
            if piece is None or cursor != at:
                if not log.held - 1 <= cursor < log.head or not subscription.active:
                    self._delay(subscription)
                    continue
                piece, at = self.slice(log, cursor), cursor
            if subscription.active and not subscription.subscriber.deliver(
                subscription, piece, turn.now
            ):
                self._delay(subscription)
            if not number % _CHECK_EVERY and turn.is_over():
                await turn.pause()
                piece = None  # the log may have begun anew

    def _delay(self, subscription: Subscription) -> None:
        """Leave a subscription that needs more than the next piece to `flush`."""
        if subscription.active and subscription.lag:
            subscription.subscriber.stale[subscription] = None
            self.ready(subscription.subscriber)

    def _gather(self) -> list[Subscriber]:
        """Take all who have something to get, each once."""
        batch, self._ready = self._ready, []
        topics, self._dirty = self._dirty, []
        for topic in topics:
            topic.dirty = False
            for subscription in topic.subscriptions:
                subscriber = subscription.subscriber
                subscriber.stale[subscription] = None
                if not subscriber.queued:
                    subscriber.queued = True
                    batch.append(subscriber)
        return batch

    async def _flush(self, batch: list[Subscriber]) -> None:
        turn = _Turn()
        for number, subscriber in enumerate(batch, 1):
            subscriber.flush(turn.now)
            if not number % _CHECK_EVERY and turn.is_over():
                await turn.pause()


class _Turn:
    """How long the flusher may go on before it lets readers and heartbeats run."""

    __slots__ = ("_stop", "now")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.now = trio.current_time()
        self._stop = time.perf_counter() + _BUDGET

    def is_over(self) -> bool:
        """Whether it is time to let them."""
        return time.perf_counter() > self._stop

    async def pause(self) -> None:
        """Let the others run."""
        await trio.lowlevel.checkpoint()
        self._begin()
