"""What the SQLite engine gives up, and when: a little at a time, between two batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, final

import trio

from triows.bus.database import Bounds, Database
from triows.bus.loader import Loader
from triows.bus.reading import Reader
from triows.bus.store import Store, WallClock
from triows.bus.tail import Shelf, Tail
from triows.config import LogLimits
from triows.errors import RequestError

SWEEP_INTERVAL: Final = 10.0
"""Seconds between two looks through all channels for what is out of bounds."""

SLACK: Final = 16
"""A channel that is published to is trimmed when it is over a bound by one part in so many."""

_SWEEP_PAUSE: Final = 0.05  # seconds between two parts of one look


@final
class Retention:
    """Gives up what the limits do not cover.

    Args:
        limits: what is kept.
        store: the file.
        shelf: the logs in memory.
        loader: brings others there.
        clock: tells the time on disk.

    Attributes:
        overdue: channels that have something to give up.
    """

    def __init__(
        self, limits: LogLimits, store: Store, shelf: Shelf[Tail], loader: Loader, clock: WallClock
    ) -> None:
        self.overdue: dict[str, None] = {}
        self._limits = limits
        self._store = store
        self._shelf = shelf
        self._loader = loader
        self._clock = clock

    def check(self, log: Tail) -> None:
        """Look whether a log that has grown is well over its bounds."""
        count, size = self._limits.max_messages, self._limits.max_bytes
        if (0 < count + count // SLACK <= log.filed - log.earliest) or (
            0 < size + size // SLACK < log.stored_bytes
        ):
            self.overdue[log.channel] = None

    async def run(self, wake: Callable[[], object]) -> None:
        """Look for what is out of bounds now and then, until cancelled; `wake` the engine."""
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            try:
                await self._sweep(wake)
            except RequestError:
                pass  # the log has been told; the next look may fare better

    async def _sweep(self, wake: Callable[[], object]) -> None:
        last: int | None = 0
        while last is not None:
            bounds, dead = self._bounds(), self._dead()
            found = await self._store.read(
                partial(Reader.overdue, after=last, bounds=bounds, dead=dead)
            )
            self.overdue.update(dict.fromkeys(found.names))
            if found.names:
                wake()
            last = found.last
            await trio.sleep(_SWEEP_PAUSE)

    async def step(self) -> None:
        """Give up some of the channel that has been overdue for longest; never raises."""
        channel = next(iter(self.overdue))
        del self.overdue[channel]
        was_here = self._shelf.get(channel) is not None
        self._shelf.pinned = {channel}
        try:
            failed = await self._loader.bring([channel])
            log = self._shelf.get(channel)
            if not failed and log is not None and log.is_known:
                await self._trim(log)
        except RequestError:
            pass  # as above; what is overdue is found again
        finally:
            self._shelf.unpin()
        if not was_here:
            self._put_back(channel)

    def _put_back(self, channel: str) -> None:
        """Forget a log, unless it is watched by now: one that was loaded only to be trimmed must
        not push others out, and one that is gone begins anew.
        """
        log = self._shelf.get(channel)
        if log is not None and not log.watchers and log.filed == log.head:
            self._shelf.discard(log)

    async def _trim(self, log: Tail) -> None:
        number = log.number
        if self._is_dead(log):
            await self._store.write(lambda database: database.drop(number))
            log.is_known = False
            log.stored_bytes = 0
            self._put_back(log.channel)
            return
        trimmed = await self._store.write(
            partial(Database.trim, channel=number, bounds=self._bounds(log))
        )
        log.stored_bytes -= trimmed.freed
        log.move_earliest(trimmed.earliest)
        self._shelf.count(log)
        if not trimmed.is_done or self._is_dead(log):
            self.overdue[log.channel] = None

    def _is_dead(self, log: Tail) -> bool:
        return (
            log.earliest > log.head == log.filed
            and not log.watchers
            and self._clock.stored(log.touched) < self._dead()
        )

    def _bounds(self, log: Tail | None = None) -> Bounds:
        limits, now = self._limits, trio.current_time()
        return Bounds(
            messages=limits.max_messages,
            bytes=limits.max_bytes,
            since=self._clock.stored(now - limits.max_age) if limits.max_age else 0,
            ids_since=self._clock.stored(now - limits.idempotency_window),
            ids_from=log.oldest_id if log else 0,
        )

    def _dead(self) -> int:
        """Return when an empty channel must have been touched last to be forgotten; 0: never."""
        limits = self._limits
        if not limits.max_age:
            return 0
        age = max(limits.max_age, limits.idempotency_window)
        return self._clock.stored(trio.current_time() - age)
