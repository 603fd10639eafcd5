"""The engine on SQLite: what an acknowledgement means, in which order, and what memory holds."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support_store import Bench, no_threads, running, until
from triows.bus import sqlite as engine
from triows.bus.database import Database
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.logs import OVERHEAD
from triows.messages import Message, Receipt

__all__ = ["no_threads"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store.db"


class Gate:
    """Holds commits until they are let through.

    Attributes:
        commits: how many messages each commit had.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits: list[int] = []
        self.failure: sqlite3.Error | None = None
        self._open = threading.Semaphore(0)
        self._commit = Database.commit
        monkeypatch.setattr(Database, "commit", self._held)

    def _held(self, database: Database, channels: list[object], messages: list[object]) -> None:
        self.commits.append(len(messages))
        assert self._open.acquire(timeout=10)
        if self.failure is not None:
            raise self.failure
        self._commit(database, channels, messages)  # type: ignore[arg-type]  # as it came

    def let_through(self, count: int = 1) -> None:
        """Let so many commits go on."""
        self._open.release(count)

    async def wait(self, count: int) -> None:
        """Wait until so many commits have begun."""
        await until(lambda: len(self.commits) >= count)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Commits are held."""
    return Gate(monkeypatch)


async def test_everything_survives_a_restart(path: Path) -> None:
    """Messages, epochs, offsets, ends and ids are there again, after a close and after a crash."""
    for crash in (False, True):
        path = path.with_suffix(f".{crash}")
        async with running(path, crash=crash) as bench:
            first = await bench.publish("a:1", "one", id="i")
            await bench.publish("a:1", {"two": "…"})
            await bench.publish("a:2", "other")
            end = await bench.publish("a:2", {"exit_code": 3}, type="end", id="e")
        assert isinstance(first, Receipt)
        assert isinstance(end, Receipt)
        async with running(path) as bench:
            assert await bench.kept("a:1") == {1: "one", 2: {"two": "…"}}
            again = await bench.publish("a:1", "one", id="i")
            assert again == Receipt(first.epoch, 1, duplicate=True)
            assert not (await bench.publish("a:1", "one", id="i", user="bob")).duplicate  # type: ignore[union-attr]
            three = await bench.publish("a:1", "three", id="k")
            assert three == Receipt(first.epoch, 4)
            log = await bench.bus.find("a:2")
            assert log is not None
            assert (log.ended, log.head, log.epoch) == (b'{"exit_code": 3}', 2, end.epoch)
            assert await bench.publish("a:2", id="e") == Receipt(end.epoch, 2, duplicate=True)
            refused = await bench.publish("a:2")
            assert isinstance(refused, RequestError)
            assert refused.code is ErrorCode.ENDED


async def test_what_gathers_is_stored_together(path: Path, gate: Gate) -> None:
    """While one commit is under way the next batch gathers; answers come in order, after it."""
    async with running(path) as bench:
        bench.submit("a:1", 0)
        await gate.wait(1)
        for number in range(1, 51):
            bench.submit(f"a:{number % 7}", number)
        await wait_all_tasks_blocked()
        assert (bench.answers, bench.told) == ([], [])
        gate.let_through()
        await gate.wait(2)
        assert [data for data, _ in bench.answers] == ["0"]
        gate.let_through()
        await bench.bus.settle()
        assert gate.commits == [1, 50]
        assert [data for data, _ in bench.answers] == [str(n) for n in range(51)]
        assert len(bench.told) == 51


async def test_duplicate_within_a_batch(path: Path, gate: Gate) -> None:
    """The same id twice in one batch is stored once, and both are answered after the commit."""
    async with running(path) as bench:
        outcomes = [bench.submit("a:1", 1, id="i") for _ in range(3)]
        outcomes.append(bench.submit("a:1", 2, id="j"))
        await gate.wait(1)
        assert outcomes == [[], [], [], []]
        gate.let_through()
        await bench.bus.settle()
        first, second, third, other = (o for (o,) in outcomes if isinstance(o, Receipt))
        assert (first.offset, second.offset, third.offset, other.offset) == (1, 1, 1, 2)
        assert [r.duplicate for r in (first, second, third, other)] == [False, True, True, False]
        assert await bench.kept("a:1") == {1: 1, 2: 2}


async def test_end_within_a_batch(path: Path) -> None:
    """What comes after `end` in the same batch is refused."""
    async with running(path) as bench:
        bench.submit("a:1", 1)
        bench.submit("a:1", {}, type="end")
        late = bench.submit("a:1", 2)
        await bench.bus.settle()
        assert isinstance(late[0], RequestError)
        assert late[0].code is ErrorCode.ENDED
        assert list(await bench.kept("a:1")) == [1, 2]


async def test_failed_commit_uses_no_offset(path: Path, gate: Gate) -> None:
    """All of a batch that cannot be stored is refused; then it goes on as if it had not been."""
    async with running(path) as bench:
        gate.failure = sqlite3.OperationalError("database or disk is full")
        outcomes = [bench.submit("a:1", 1, id="i"), bench.submit("a:1", 1, id="i")]
        outcomes += [bench.submit("a:1", {}, type="end"), bench.submit("a:1", 2)]
        gate.let_through()
        await bench.bus.settle()
        for (outcome,) in outcomes:
            assert isinstance(outcome, RequestError)
            assert (outcome.code, outcome.retry) == (ErrorCode.UNAVAILABLE, True)
            assert "disk is full" in outcome.message
        assert bench.told == []
        gate.failure = None
        gate.let_through()
        receipt = await bench.publish("a:1", 1, id="i")
        assert isinstance(receipt, Receipt)
        assert (receipt.offset, receipt.duplicate) == (1, False)


async def test_queue_is_bounded(path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk does not keep up with is refused at once, naming limit and value."""
    monkeypatch.setattr(engine, "QUEUE_BYTES", 10 * engine.QUEUED_OVERHEAD)
    async with running(path) as bench:
        outcomes = [bench.submit("a:1", number) for number in range(20)]
        refused = [o[0] for o in outcomes if o]
        assert len(refused) == 11
        assert isinstance(refused[0], RequestError)
        assert refused[0].code is ErrorCode.UNAVAILABLE
        assert refused[0].retry_after
        assert "bytes wait, the limit is 5120" in refused[0].message
        gate.let_through(5)
        await bench.bus.settle()
        assert len(await bench.kept("a:1")) == 9
        assert isinstance(await bench.publish("a:1", 99), Receipt)


async def test_cancelled_commit_is_finished(path: Path, gate: Gate) -> None:
    """Cancelled in the middle of a commit, that batch is stored and answered; the next is not."""
    bench = Bench(path, None, LogLimits())
    async with bench.bus:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.bus.run)
            stored = bench.submit("a:1", 1)
            await gate.wait(1)
            waits = bench.submit("a:1", 2)
            nursery.cancel_scope.cancel()
            gate.let_through()
        assert isinstance(stored[0], Receipt)
        assert waits == []
    async with running(path) as bench:
        assert await bench.kept("a:1") == {1: 1}


async def test_publish_waits_for_the_disk(path: Path, gate: Gate) -> None:
    """`publish` returns after the commit."""
    async with running(path) as bench, trio.open_nursery() as nursery:
        positions = []

        async def publish() -> None:
            positions.append(await bench.bus.publish("a:1", Message("log", b"1"), "ann"))

        nursery.start_soon(publish)
        await gate.wait(1)
        assert not positions
        gate.let_through()
        await until(lambda: positions)
        assert positions[0].offset == 1


async def test_channels_only_asked_for_are_not_written(path: Path) -> None:
    """Asking for a channel leaves nothing in the file."""
    async with running(path) as bench:
        log = await bench.bus.open("a:1")
        assert (log.head, log.earliest) == (0, 1)
        assert await bench.bus.open("a:1") is log
        assert await bench.bus.find("a:1") is None
        assert await bench.kept("a:1") == {}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM channels").fetchone() == (0,)
    connection.close()


async def test_opened_at_once_it_is_one_log(path: Path) -> None:
    """However many ask for a channel at the same time, there is one log."""
    async with running(path) as bench:
        await bench.publish("a:1")
    async with running(path) as bench:
        found = []

        async def ask() -> None:
            found.append(await bench.bus.open("a:1"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            outcome = bench.submit("a:1", 2)
        await bench.bus.settle()
        assert len(set(map(id, found))) == 1
        assert isinstance(outcome[0], Receipt)
        assert (outcome[0].offset, found[0].head) == (2, 2)


async def test_memory_is_bounded_and_nothing_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the total, quiet logs leave memory and come back; all that was published is there."""
    monkeypatch.setattr(engine, "FILED_MESSAGES", 10)
    total = 20 * OVERHEAD
    async with running(path, total_bytes=total, tail_bytes=2000) as bench:
        watched = await bench.bus.open("a:0")
        watched.watchers = 1
        for number in range(300):
            await bench.publish(f"a:{number % 60}", "x" * 100, id=str(number))
            assert bench.bus.size <= total + 10 * 1000
        assert len(list(bench.bus.logs())) < 30
        assert watched in list(bench.bus.logs())
        for channel in range(60):
            assert len(await bench.kept(f"a:{channel}")) == 5
        for number in range(300):  # ids that left memory are known again, too
            again = await bench.publish(f"a:{number % 60}", "again", id=str(number))
            assert isinstance(again, Receipt)
            assert (again.duplicate, again.offset) == (True, number // 60 + 1)


async def test_tail_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one channel memory holds the newest, by bytes; the rest is read from the file."""
    monkeypatch.setattr(engine, "FILED_MESSAGES", 10)
    async with running(path, tail_bytes=5000) as bench:
        for number in range(200):
            await bench.publish("a:1", f"{number} {'x' * 100}")
            assert bench.bus.size < 5000 + 11 * 400
        log = await bench.bus.open("a:1")
        assert log.earliest == 1
        assert log.held > 160
        assert list(await bench.kept("a:1")) == list(range(1, 201))
        page = await bench.bus.fetch(log, 0, 1000)
        assert 1 <= page.last <= 5
        assert (await bench.bus.fetch(log, 199, 1000)).last == 200


async def test_large_messages(path: Path) -> None:
    """One message larger than a page is a page; bytes come back as they were."""
    async with running(path, tail_bytes=1) as bench:
        data = ["x" * size for size in (10, 125, 126, 65_535, 65_536, 1_000_000, 3)]
        for text in data:
            await bench.publish("a:1", text)
        await bench.bus._file()
        log = await bench.bus.open("a:1")
        assert log.held == 8
        assert list((await bench.kept("a:1")).values()) == data
        assert (await bench.bus.fetch(log, 5, 100)).last == 6


async def test_strange_texts(path: Path) -> None:
    """Zero bytes, quotes and characters of all kinds in data, users and ids survive."""
    strange = "\x00'\"\\,\n…𝄞"
    async with running(path, tail_bytes=1) as bench:
        first = await bench.publish("a:1", strange, id=strange, user=strange)
    async with running(path) as bench:
        assert await bench.kept("a:1") == {1: strange}
        again = await bench.publish("a:1", strange, id=strange, user=strange)
        assert isinstance(first, Receipt)
        assert again == Receipt(first.epoch, 1, duplicate=True)


@pytest.mark.parametrize(
    "options",
    [{"user": "\ud800"}, {"id": "\udfff"}, {"type": "\ud800"}],
    ids=["user", "id", "type"],
)
async def test_half_a_character(path: Path, options: dict[str, str]) -> None:
    """What has no UTF-8 is refused, and the others of its batch are not."""
    async with running(path) as bench:
        before, after = bench.submit("a:1", 1), bench.submit("a:1", 2, **{"id": "i", **options})
        last = bench.submit("a:1", 3, id="j")
        await bench.bus.settle()
        assert isinstance(after[0], RequestError)
        assert after[0].code is ErrorCode.BAD_REQUEST
        assert [o.offset for o in (*before, *last) if isinstance(o, Receipt)] == [1, 2]
        assert list((await bench.kept("a:1")).values()) == [1, 3]


@pytest.mark.parametrize("count", [1, 79, 80, 81, 128, 200, 256, 257, 700])
async def test_batches_of_all_sizes(path: Path, gate: Gate, count: int) -> None:
    """However many are stored at once, in one statement or several: all are there, in order."""
    async with running(path) as bench:
        bench.submit("a:0", 0)
        await gate.wait(1)
        for number in range(count):
            bench.submit(f"a:{number % 2}", number)
        gate.let_through(3)
        await bench.bus.settle()
        bench.submit("a:0", 0)  # to channels that the file has: no row of theirs is written
        for number in range(count - 1):
            bench.submit(f"a:{number % 2}", number)
        await bench.bus.settle()
        assert gate.commits == [1, count, count]
    async with running(path) as bench:
        for parity in (0, 1):
            first = [n for n in range(count) if n % 2 == parity]
            second = [n for n in range(count - 1) if n % 2 == parity]
            extra = [[0], [0]] if parity == 0 else [[], []]
            kept = list((await bench.kept(f"a:{parity}")).values())
            assert kept == [*extra[0], *first, *extra[1], *second]


async def test_age_of_what_left_memory(
    path: Path, no_threads: None, autojump_clock: MockClock
) -> None:
    """How long a viewer has been behind is at least the age of what memory still knows."""
    async with running(path, tail_bytes=1) as bench:
        await bench.publish("a:1")
        await trio.sleep(10)
        await bench.publish("a:1")
        await trio.sleep(5)
        log = await bench.bus.open("a:1")
        assert [log.age(cursor, trio.current_time()) for cursor in (0, 1, 2)] == [15, 5, 0]
        await bench.bus._file()
        assert log.held == 3
        assert [log.age(cursor, trio.current_time()) for cursor in (0, 1, 2)] == [5, 5, 0]
