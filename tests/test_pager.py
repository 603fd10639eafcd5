"""Pages for those who are behind memory: each fetched once, boundedly many kept and under way."""

from __future__ import annotations

import logging

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import Nursery
from triows import pager as room
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.logs import Log, Slice
from triows.messages import Message
from triows.pager import AT_ONCE, RETRY_DELAY, Pager


@attrs.define(eq=False)
class _Reader:
    log: Log
    cursor: int = 0
    active: bool = True


class _Disk:
    """What pages are fetched from; holds them back until it is open.

    Attributes:
        asked: the cursors that were asked for.
        most: pages under way at the same time.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.most = 0
        self.open = trio.Event()
        self.failures = 0
        self.size = 10
        self._under_way = 0

    async def fetch(self, log: Log, cursor: int, max_bytes: int) -> Slice:
        self.asked.append(cursor)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await self.open.wait()
        finally:
            self._under_way -= 1
        if self.failures:
            self.failures -= 1
            raise RequestError(ErrorCode.UNAVAILABLE, "the disk is gone")
        return Slice(b"x" * self.size, cursor + 1)


class _Bench:
    def __init__(self, nursery: Nursery) -> None:
        self.disk = _Disk()
        self.resumed: list[_Reader] = []
        self.pager: Pager[_Reader] = Pager(self.resumed.append)
        self.log = Log("a:1", LogLimits(), 0)
        for _ in range(1000):
            self.log.append(Message("log", b"1"), "ann", 0)
        nursery.start_soon(self.pager.run, self.disk.fetch)

    def readers(self, count: int, cursor: int = 0) -> list[_Reader]:
        return [_Reader(self.log, cursor) for _ in range(count)]


async def test_one_place_is_one_page(nursery: Nursery) -> None:
    """Those who stand at one place wait for one page, and come back for it at no cost."""
    bench = _Bench(nursery)
    readers = bench.readers(500)
    assert all(bench.pager.page(reader) is None for reader in readers[:300])
    await wait_all_tasks_blocked()
    assert all(bench.pager.page(reader) is None for reader in readers)  # some ask again
    bench.disk.open.set()
    await wait_all_tasks_blocked()
    assert (bench.disk.asked, bench.pager.fetched) == ([0], 1)
    assert bench.resumed == readers
    assert {bench.pager.page(reader) for reader in readers} == {Slice(b"x" * 10, 1)}
    assert bench.disk.asked == [0]


async def test_few_at_a_time(nursery: Nursery) -> None:
    """However many places are asked for, few are fetched at the same time, in order."""
    bench = _Bench(nursery)
    for cursor in range(100):
        bench.pager.page(_Reader(bench.log, cursor))
    await wait_all_tasks_blocked()
    assert bench.disk.asked == list(range(AT_ONCE))
    bench.disk.open.set()
    await wait_all_tasks_blocked()
    assert bench.disk.asked == list(range(100))
    assert bench.disk.most == AT_ONCE


async def test_who_has_gone_is_not_fetched_for(nursery: Nursery) -> None:
    """Nothing is fetched for readers that ended or moved on while they waited."""
    bench = _Bench(nursery)
    first = bench.readers(AT_ONCE)
    for cursor, reader in enumerate(first):
        reader.cursor = cursor
        bench.pager.page(reader)
    gone, moved, there = (_Reader(bench.log, cursor) for cursor in (50, 51, 52))
    for reader in (gone, moved, there):
        bench.pager.page(reader)
    await wait_all_tasks_blocked()
    gone.active, moved.cursor, first[0].active = False, 60, False
    bench.disk.open.set()
    await wait_all_tasks_blocked()
    assert bench.disk.asked == [*range(AT_ONCE), 52]
    assert set(bench.resumed) == {*first[1:], there}


async def test_memory_is_bounded(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are kept within a limit; those just fetched are there for who asked for them."""
    monkeypatch.setattr(room, "CACHED_BYTES", 1000)
    bench = _Bench(nursery)
    bench.disk.size = 90
    bench.disk.open.set()
    for cursor in range(100):
        reader = _Reader(bench.log, cursor)
        assert bench.pager.page(reader) is None
        await wait_all_tasks_blocked()
        assert bench.pager.page(reader) is not None
        assert bench.pager._size <= 1000
    bench.disk.size = 5000
    readers = [_Reader(bench.log, cursor) for cursor in range(200, 220)]
    for reader in readers:
        bench.pager.page(reader)
        await wait_all_tasks_blocked()
    assert bench.pager._size <= AT_ONCE * 5000
    assert not bench.pager._waiting
    assert not bench.pager._under_way


async def test_failure_is_tried_again(
    nursery: Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be fetched is tried again after a while, and logged once; nobody is cut."""
    bench = _Bench(nursery)
    bench.disk.failures = 5
    bench.disk.open.set()
    readers = bench.readers(3)
    for reader in readers:
        bench.pager.page(reader)
    began = trio.current_time()
    await trio.sleep(RETRY_DELAY * 5.5)
    assert bench.resumed == readers
    assert len(bench.disk.asked) == 6
    assert trio.current_time() - began >= 5 * RETRY_DELAY
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert ["the disk is gone" in r.getMessage() for r in told] == [True]


async def test_failure_of_one_does_not_stop_others(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """While pages wait to be tried again, others are fetched."""
    bench = _Bench(nursery)
    bench.disk.failures = 2 * AT_ONCE
    bench.disk.open.set()
    for cursor in range(3 * AT_ONCE):
        bench.pager.page(_Reader(bench.log, cursor))
    await wait_all_tasks_blocked()
    assert len(bench.resumed) == AT_ONCE


async def test_what_is_gone_is_told_at_once(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A page that was given up while it was fetched is not waited for: the viewer gets a gap."""
    bench = _Bench(nursery)
    bench.disk.failures = 1
    reader = _Reader(bench.log, 10)
    bench.pager.page(reader)
    await wait_all_tasks_blocked()
    bench.log.earliest = 100
    bench.disk.open.set()
    await wait_all_tasks_blocked()
    assert bench.resumed == [reader]
