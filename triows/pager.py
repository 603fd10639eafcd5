"""Fetches what viewers are behind memory for: a page at a time, once for all at one place.

The flusher never waits. A subscription whose next message is not in memory is put here and
forgotten by its subscriber until the page has come. There is no merging with what is live: a
page is what follows a cursor, as a slice of memory is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from triows.errors import RequestError
from triows.logs import Log, Slice

logger = logging.getLogger("triows.pager")

PAGE_BYTES: Final = 64 * 1024
"""Bytes of a page, unless one message is larger."""

AT_ONCE: Final = 4
"""Pages fetched at the same time."""

RETRY_DELAY: Final = 1.0
"""Seconds after which a page that could not be fetched is asked for again."""

CACHED_BYTES: Final = 8 * 1024 * 1024
"""Of pages, kept for those who come to the same place a little later."""

_Key: TypeAlias = tuple[str, int]  # epoch of the log, cursor
Fetch: TypeAlias = Callable[[Log, int, int], Awaitable[Slice]]


class Reader(Protocol):
    """Who waits for a page: a subscription."""

    log: Log
    cursor: int
    active: bool


_R = TypeVar("_R", bound=Reader)


class Pager(Generic[_R]):
    """Fetches pages for readers that are behind what memory holds.

    Args:
        resume: called for each reader whose page has come; never waits, never raises.

    Attributes:
        fetched: pages fetched so far.
    """

    def __init__(self, resume: Callable[[_R], None]) -> None:
        self.fetched = 0
        self._resume = resume
        self._waiting: OrderedDict[_Key, dict[_R, None]] = OrderedDict()  # longest first
        self._under_way: dict[_Key, dict[_R, None]] = {}
        self._failed: dict[_Key, dict[_R, None]] = {}
        self._pages: OrderedDict[_Key, Slice] = OrderedDict()  # unused for longest first
        self._size = 0  # bytes of them
        self._failing = False
        self._lot = trio.lowlevel.ParkingLot()  # workers without work
        self._failure = trio.lowlevel.ParkingLot()

    def page(self, reader: _R) -> Slice | None:
        """Return what follows the reader's cursor, or None: `resume` is called when it is here."""
        key = (reader.log.epoch, reader.cursor)
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
            return page
        for place in (self._under_way, self._failed, self._waiting):
            readers = place.get(key)
            if readers is not None:
                readers[reader] = None
                return None
        self._waiting[key] = {reader: None}
        self._lot.unpark()
        return None

    async def run(self, fetch: Fetch) -> None:
        """Fetch what is asked for, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_again)
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work, fetch)

    async def _work(self, fetch: Fetch) -> None:
        while True:
            while not self._waiting:
                await self._lot.park()
            key, readers = self._waiting.popitem(last=False)
            self._under_way[key] = readers
            log = next((r.log for r in readers if r.active and r.cursor == key[1]), None)
            if log is None:  # nobody is there any more
                del self._under_way[key]
                continue
            try:
                page = await fetch(log, key[1], PAGE_BYTES)
            except RequestError as error:
                self._put_off(key, log, error)
                continue
            self._put(key, page)

    def _put(self, key: _Key, page: Slice) -> None:
        """Hand a page to all that wait for it."""
        self.fetched += 1
        self._failing = False
        self._pages[key] = page
        self._size += len(page.data)
        while self._size > CACHED_BYTES and len(self._pages) > AT_ONCE:
            _, oldest = self._pages.popitem(last=False)
            self._size -= len(oldest.data)
        self._resume_all(self._under_way.pop(key))

    def _put_off(self, key: _Key, log: Log, error: RequestError) -> None:
        """Have a page fetched again later; who would only miss what is gone is told so now."""
        readers = self._under_way.pop(key)
        if key[1] + 1 < log.earliest:
            self._resume_all(readers)
            return
        if not self._failing:
            self._failing = True
            logger.warning("viewers wait for what cannot be read: %s", error.message)
        self._failed[key] = readers
        self._failure.unpark()

    async def _try_again(self) -> None:
        while True:
            if not self._failed:
                await self._failure.park()
            await trio.sleep(RETRY_DELAY)
            failed, self._failed = self._failed, {}
            self._waiting.update(failed)
            self._lot.unpark_all()

    def _resume_all(self, readers: dict[_R, None]) -> None:
        for reader in readers:
            if reader.active:
                self._resume(reader)
