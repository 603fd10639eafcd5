"""Who watches what in this process: cursors, and the one task that serves them.

Publishing only marks a log. The flusher, once per scheduler tick, brings every connection that
watches a marked log up to date: an idle system sends at once, a busy one batches by itself. A
viewer that cannot keep up is a cursor that lags: one integer, no queue.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

import trio

from triows.counters import Histogram
from triows.logs import Log, Slice
from triows.pager import PAGE_BYTES, Pager
from triows.topics import BEFORE, Cohort, OnLag, Subscriber, Subscription, Topic

PULL_BYTES: Final = PAGE_BYTES
"""Bytes one connection is given at a time: paces a replay, and bounds what a stalled one holds."""

_BUDGET: Final = 0.005  # seconds the flusher works before it lets readers and heartbeats run
_CHECK_EVERY: Final = 32  # connections visited between two looks at the clock
_MUSTERED: Final = 1024  # subscriptions looked at between two
_CACHED_BYTES: Final = 8 * 1024 * 1024  # of joined slices, shared by those at the same place


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
        self._topics: dict[str, Topic] = {}
        self._dirty: list[Topic] = []
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
            topic = self._topics[log.channel] = Topic(log)
        subscription = Subscription(subscriber, log, cursor, on_lag)
        topic.add(subscription)
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
        topic.remove(subscription)
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
        if topic is not None:
            for cohort in topic.cohorts:
                topic.scatter(cohort)
            for subscription in topic.subscriptions:
                subscription.cursor = BEFORE
                self._resume(subscription)
        self._forget_slices()
        for watcher in self.watchers:
            watcher.renew(log)

    def ready(self, subscriber: Subscriber) -> None:
        """Have the flusher come by `subscriber`."""
        if not subscriber.queued:
            _queue(subscriber, self._ready)
            self._idle.unpark_all()

    def _resume(self, subscription: Subscription) -> None:
        """Have the flusher come by for a subscription that has something to get."""
        if subscription.cohort is None:  # else it had this in another way
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
            topics, self._dirty = self._dirty, []
            turn = _Turn()
            if len(topics) > 1:
                self._gather(topics)
            for topic in topics:
                await self._deliver(topic, turn)
            batch, self._ready = self._ready, []
            await self._flush(batch, turn)
            if marked_at is not None:
                self.latency.observe(trio.current_time() - marked_at)
            if self._slices:
                self._forget_slices()

    def _gather(self, topics: list[Topic]) -> None:
        """Have those who watch several of the topics be visited: once, for all of them together."""
        watching: list[Subscriber] = []
        for topic in topics:
            watching += topic.subscribers()
        for subscriber, count in Counter(watching).items():
            if count > 1 and not subscriber.queued:
                _queue(subscriber, self._ready)

    async def _deliver(self, topic: Topic, turn: _Turn) -> None:
        """Bring one topic's subscribers up to date.

        The most common case in the fewest steps: those who stand at the same place and have
        nothing else to send get the same piece at once. The others are left to `flush`.
        """
        topic.dirty = False
        topic.tidy()
        loose = topic.loose
        for at in range(0, len(loose), _MUSTERED):
            if turn.is_over():
                await turn.pause()
            for subscription in topic.muster(loose[at : at + _MUSTERED]):
                if subscription.subscriber.queued:  # it comes by anyway
                    subscription.subscriber.stale[subscription] = None
                else:
                    self._delay(subscription)
        for cohort in topic.cohorts:
            self._advance(topic, cohort, turn.now)
            if turn.is_over():
                await turn.pause()

    def _advance(self, topic: Topic, cohort: Cohort, now: float) -> None:
        log = topic.log
        if not cohort.members or cohort.cursor >= log.head:  # of what happened in a pause
            return
        if cohort.cursor + 1 < log.held:  # it has to be fetched, or told of as a gap
            for subscription in topic.scatter(cohort):
                self._delay(subscription)
            return
        for subscription in topic.advance(cohort, self.slice(log, cohort.cursor), now):
            self._delay(subscription)
        if cohort.cursor < log.head and not topic.dirty:
            topic.dirty = True
            self._dirty.append(topic)

    def _delay(self, subscription: Subscription) -> None:
        """Leave a subscription that needs more than the next piece to `flush`."""
        if subscription.lag:
            subscription.subscriber.stale[subscription] = None
            self.ready(subscription.subscriber)

    async def _flush(self, batch: list[Subscriber], turn: _Turn) -> None:
        for number, subscriber in enumerate(batch, 1):
            subscriber.flush(turn.now)
            if not number % _CHECK_EVERY and turn.is_over():
                await turn.pause()


def _queue(subscriber: Subscriber, batch: list[Subscriber]) -> None:
    """Have a subscriber be seen to with a batch, and not before."""
    subscriber.queued = True
    subscriber.sink = None
    batch.append(subscriber)


class _Turn:
    """How long the flusher may go on before it lets readers and heartbeats run."""

    __slots__ = ("_stop", "now")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.now = trio.current_time()
        self._stop = self.now + _BUDGET

    def is_over(self) -> bool:
        """Whether it is time to let them."""
        return trio.current_time() > self._stop

    async def pause(self) -> None:
        """Let the others run."""
        await trio.lowlevel.checkpoint()
        self._begin()
