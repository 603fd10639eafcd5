"""What the SQLite engine gives up: by count, bytes and age, in small steps, and never too much."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support_store import no_threads, running, until
from triows.bus import database, sqlite
from triows.bus.database import Bounds, Database
from triows.bus.retention import SLACK, SWEEP_INTERVAL
from triows.bus.store import WallClock
from triows.bus.tail import Tail
from triows.config import LogLimits
from triows.errors import RequestError
from triows.logs import MESSAGE_OVERHEAD
from triows.messages import Receipt

__all__ = ["no_threads"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store.db"


@pytest.fixture
def clock() -> WallClock:
    """The time on disk goes with the virtual one."""
    return WallClock(lambda: 1e9 + trio.current_time())


def _rows(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return found


async def test_by_count(path: Path, autojump_clock: MockClock, no_threads: None) -> None:
    """The newest stay, exactly so many after a look, and a sixteenth more before it."""
    async with running(path, max_messages=160, tail_bytes=1) as bench:
        for number in range(5000):
            bench.submit("a:1", number)
        await bench.bus.settle()
        await trio.sleep(SWEEP_INTERVAL / 2)
        log = await bench.bus.open("a:1")
        assert log.head == 5000
        assert len(await bench.kept("a:1")) <= sqlite.FILED_MESSAGES + 160 + 160 // SLACK
        await bench.give_up_all()
        assert (log.earliest, log.head) == (4841, 5000)
        assert list((await bench.kept("a:1")).values()) == list(range(4840, 5000))
    assert _rows(path, "messages") == 160


async def test_by_bytes(path: Path, autojump_clock: MockClock, no_threads: None) -> None:
    """The newest that fit stay; the very newest whatever its size."""
    async with running(path, max_bytes=20_000, tail_bytes=1) as bench:
        for number in range(100):
            await bench.publish("a:1", f"{number:03}" + "x" * 1000)
        await bench.give_up_all()
        kept = await bench.kept("a:1")
        connection = sqlite3.connect(path)
        total = connection.execute(
            "SELECT sum(length(text)) + ? * count(*), (SELECT bytes FROM channels) FROM messages",
            (MESSAGE_OVERHEAD,),
        ).fetchone()
        connection.close()
        assert total[0] == total[1] <= 20_000 < total[0] + 1300
        assert max(kept) == 100
        await bench.publish("a:1", "x" * 50_000)
        await bench.give_up_all()
        assert list(await bench.kept("a:1")) == [101]


async def test_by_age(
    path: Path, autojump_clock: MockClock, no_threads: None, clock: WallClock
) -> None:
    """What is too old goes by itself, also of channels that left memory or were there before."""
    async with running(path, clock, max_age=100, tail_bytes=1) as bench:
        await bench.publish("a:1", "old")
        await bench.publish("a:2", "old")
    async with running(path, clock, max_age=100, tail_bytes=1) as bench:
        await trio.sleep(60)
        await bench.publish("a:1", "new")
        await bench.bus._file()
        await trio.sleep(40 + 2 * SWEEP_INTERVAL)
        assert await bench.kept("a:1") == {2: "new"}
        log = await bench.bus.open("a:2")
        assert (log.head, log.earliest) == (1, 2)


async def test_channel_that_is_over(
    path: Path, autojump_clock: MockClock, no_threads: None, clock: WallClock
) -> None:
    """A channel nothing is kept of for its age, and nobody watches, is forgotten: a new epoch."""
    limits: dict[str, Any] = {"max_age": 400.0, "idempotency_window": 500.0}
    async with running(path, clock, **limits) as bench:
        first = await bench.publish("a:1", id="i")
        watched = await bench.bus.open("a:2")
        watched.watchers = 1
        await bench.publish("a:2")
        await bench.bus._file()
        await trio.sleep(450)
        assert (await bench.publish("a:1", id="i")) == Receipt(first.epoch, 1, duplicate=True)  # type: ignore[union-attr]
        await trio.sleep(100)
        again = await bench.publish("a:1", id="i")
        assert isinstance(again, Receipt)
        assert isinstance(first, Receipt)
        assert again.offset == 1
        assert again.epoch != first.epoch
        assert await bench.publish("a:2") == Receipt(watched.epoch, 2)
    async with running(path, clock, **limits) as bench:
        assert (await bench.bus.open("a:2")).epoch == watched.epoch
        assert list(await bench.kept("a:2")) == [2]


async def test_ids_outlive_their_messages(
    path: Path, autojump_clock: MockClock, no_threads: None, clock: WallClock
) -> None:
    """An id is remembered for its window, although its message is given up; then it is gone."""
    limits: dict[str, Any] = {"max_messages": 2, "idempotency_window": 300.0}
    async with running(path, clock, **limits) as bench:
        for number in range(10):
            await bench.publish("a:1", id=str(number))
        await bench.give_up_all()
        assert list(await bench.kept("a:1")) == [9, 10]
    async with running(path, clock, **limits) as bench:
        again = await bench.publish("a:1", id="3")
        assert isinstance(again, Receipt)
        assert (again.duplicate, again.offset) == (True, 4)
        assert _rows(path, "ids") == 8
        await trio.sleep(300 + 2 * SWEEP_INTERVAL)
        assert _rows(path, "ids") == 0
        again = await bench.publish("a:1", id="3")
        assert isinstance(again, Receipt)
        assert (again.duplicate, again.offset) == (False, 11)


async def test_longer_window_than_before(
    path: Path, autojump_clock: MockClock, no_threads: None, clock: WallClock
) -> None:
    """An id that was used anew after its window is in a longer one twice: the last one counts."""
    async with running(path, clock, idempotency_window=10.0) as bench:
        for _ in range(2):
            await bench.publish("a:1", id="i")
            await trio.sleep(20)
    async with running(path, clock, idempotency_window=100.0) as bench:
        again = await bench.publish("a:1", id="i")
        assert isinstance(again, Receipt)
        assert (again.duplicate, again.offset) == (True, 2)
        await trio.sleep(100)
        for id_, offset in (("j", 3), ("i", 4)):
            fresh = await bench.publish("a:1", id=id_)
            assert isinstance(fresh, Receipt)
            assert (fresh.duplicate, fresh.offset) == (False, offset)


async def test_in_small_steps(
    path: Path, autojump_clock: MockClock, no_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving up much is done a little at a time, and publishing goes on between the steps."""
    async with running(path, max_messages=0) as bench:
        for number in range(5000):
            bench.submit("a:1", number)
        await bench.bus.settle()
    monkeypatch.setattr(database, "TRIMMED_MESSAGES", 100)
    done: list[str] = []
    for name in ("trim", "commit"):
        work = getattr(Database, name)

        def noted(*values: object, work: object = work, name: str = name, **more: object) -> object:
            done.append(name)
            return work(*values, **more)  # type: ignore[operator]  # it is one of the two

        monkeypatch.setattr(Database, name, noted)
    async with running(path, max_messages=10) as bench:
        await until(lambda: "trim" in done, seconds=30)
        for _ in range(10):
            assert isinstance(await bench.publish("a:2"), Receipt)
        await until(lambda: not bench.bus._retention.overdue, seconds=30)
        assert done.count("trim") >= 50
        longest = max(len(part) for part in " ".join(done).split("commit")[1:-1])
        assert longest <= len(" trim  trim ")
        assert len(await bench.kept("a:1")) == 10


@pytest.mark.parametrize("forgotten", [False, True])
async def test_reader_between_giving_up_and_being_told(
    path: Path, autojump_clock: MockClock, no_threads: None, forgotten: bool
) -> None:
    """Who asks for what the file has just given up gets what is left, not an error."""
    everything = Bounds(messages=0, bytes=0, since=1 << 60, ids_since=0, ids_from=0)
    async with running(path, tail_bytes=1, total_bytes=1) as bench:
        for number in range(5):
            await bench.publish("a:1", number)
        await bench.bus._file()
        log = await bench.bus.open("a:1")
        assert isinstance(log, Tail)
        if forgotten:
            await bench.bus._store.write(lambda database: database.drop(log.number))
        else:
            await bench.bus._store.write(lambda database: database.trim(log.number, everything))
        assert (log.earliest, log.held) == (1, 6)
        assert await bench.bus.history(log, 1, 5, 5000) == []
        assert log.earliest == 6


async def test_failure_is_survived(
    path: Path, autojump_clock: MockClock, no_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while something is given up: nothing is lost, and it is done later."""
    trim = Database.trim

    def fail(*values: object, **more: object) -> object:
        raise sqlite3.OperationalError("disk I/O error")

    async with running(path, max_messages=5) as bench:
        for number in range(20):
            await bench.publish("a:1", number)
        await bench.bus._file()
        monkeypatch.setattr(Database, "trim", fail)
        await trio.sleep(3 * SWEEP_INTERVAL)
        assert len(await bench.kept("a:1")) == 20
        assert not isinstance(await bench.publish("a:1"), RequestError)
        monkeypatch.setattr(Database, "trim", trim)
        await trio.sleep(2 * SWEEP_INTERVAL)
        assert len(await bench.kept("a:1")) <= 6


async def test_file_does_not_grow_for_ever(
    path: Path, autojump_clock: MockClock, no_threads: None
) -> None:
    """The room of what was given up is used again."""
    async with running(path, max_messages=100, tail_bytes=1) as bench:
        sizes = []
        for _ in range(6):
            for number in range(2000):
                bench.submit("a:1", f"{number} {'x' * 300}")
            await bench.bus.settle()
            await bench.give_up_all()
            sizes.append((await trio.Path(path).stat()).st_size)
        assert sizes[-1] <= sizes[1] * 1.2


def test_defaults() -> None:
    """Memory holds much less of a channel than is kept."""
    limits = LogLimits()
    assert limits.tail_bytes < limits.max_bytes
