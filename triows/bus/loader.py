"""Brings logs from the file of the SQLite engine into memory, each once at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import final

import attrs
import trio

from triows.bus.reading import Reader, Stored
from triows.bus.store import Store, WallClock
from triows.bus.tail import Shelf, Tail
from triows.config import LogLimits
from triows.errors import RequestError


@final
class Loader:
    """Makes logs of what is stored, and of names that are new.

    Args:
        store: the file.
        shelf: where the logs are.
        limits: what is kept.
        clock: tells the time on disk.
    """

    def __init__(
        self, store: Store, shelf: Shelf[Tail], limits: LogLimits, clock: WallClock
    ) -> None:
        self.next_number = 1  # of a channel that is new
        self._store = store
        self._shelf = shelf
        self._window = limits.idempotency_window
        self._limits = attrs.evolve(limits, max_messages=0, max_bytes=limits.tail_bytes, max_age=0)
        self._clock = clock
        self._loading: dict[str, trio.Event] = {}

    async def bring(self, channels: Collection[str]) -> dict[str, RequestError]:
        """Have the logs and their ids in memory when this returns, all of them if they are
        pinned or only one; return why not, of those that cannot be read.
        """
        failed: dict[str, RequestError] = {}
        while missing := [c for c in channels if c not in failed and not self._is_here(c)]:
            mine = [channel for channel in missing if channel not in self._loading]
            if mine:
                failed.update(await self._load(mine))
            else:
                await self._loading[missing[0]].wait()
        return failed

    def _is_here(self, channel: str) -> bool:
        log = self._shelf.get(channel)
        return log is not None and log.knows_ids

    async def _load(self, channels: list[str]) -> dict[str, RequestError]:
        """Load logs that nobody else is loading: two readings of one could tell two stories."""
        event = trio.Event()
        self._loading.update(dict.fromkeys(channels, event))
        since = self._clock.stored(trio.current_time() - self._window)

        def look(reader: Reader) -> dict[str, Stored | sqlite3.Error | None]:
            return {channel: _look_up(reader, channel, since) for channel in channels}

        try:
            found = await self._store.read(look)
        except RequestError as error:
            return dict.fromkeys(channels, error)
        finally:
            for channel in channels:
                del self._loading[channel]
            event.set()
        failed = {}
        for channel, stored in found.items():
            if isinstance(stored, sqlite3.Error):
                failed[channel] = self._store.failure("read", stored)
            else:
                self._take(channel, stored)
        return failed

    def _take(self, channel: str, stored: Stored | None) -> None:
        log = self._shelf.get(channel)
        is_new = log is None
        if log is None:
            log = self._make(channel, stored)
        if not log.knows_ids or is_new:
            for offset, at, key in stored.ids if stored else ():
                log.learn(offset, key, self._clock.moment(at))
            log.knows_ids = True
        if is_new:
            self._shelf.add(log)
        else:
            self._shelf.count(log)

    def _make(self, channel: str, stored: Stored | None) -> Tail:
        now = trio.current_time()
        if stored is None:
            log = Tail(channel, self._limits, now, self.next_number)
            log.opened_at = self._clock.stored(now)
            self.next_number += 1
            return log
        row = stored.row
        log = Tail(channel, self._limits, self._clock.moment(row.touched_at), row.id)
        log.epoch = row.epoch
        log.head = log.filed = row.head
        log.held = row.head + 1
        log.earliest = row.earliest
        log.ended = row.ended
        log.opened_at = row.opened_at
        log.opened = self._clock.moment(row.opened_at)
        log.stored_bytes = row.bytes
        log.is_known = True
        return log


def _look_up(reader: Reader, channel: str, since: int) -> Stored | sqlite3.Error | None:
    """Return what is stored of one channel; what is wrong with it is not the others' fault."""
    try:
        return reader.load(channel, since)
    except sqlite3.Error as error:
        return error
