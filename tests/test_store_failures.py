"""A store that cannot be opened, read or written: said clearly, and nothing stored is harmed."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import triows
from tests.support_store import Bench, running
from triows.bus import opening
from triows.bus import sqlite as engine
from triows.bus.database import Database
from triows.bus.store import Store
from triows.errors import ConfigError, ErrorCode, RequestError
from triows.messages import Receipt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store.db"


async def _fill(path: Path, count: int = 300, size: int = 500) -> None:
    async with running(path) as bench:
        for number in range(count):
            bench.submit(f"a:{number % 3}", f"{number} {'x' * size}")
        await bench.bus.settle()


async def _refused(path: Path) -> str:
    """Return why the store cannot be opened."""
    store = Store(path)
    with pytest.raises(ConfigError) as caught:
        await store.open()
    message = str(caught.value)
    assert str(path) in message
    return message


def _damage(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * size)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _size(path: Path) -> int:
    return path.stat().st_size


def _protect(path: Path, mode: int) -> None:
    path.chmod(mode)
    if path.is_file():
        path.with_name("store.db-lock").unlink()


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


# At the start


async def test_directory(tmp_path: Path) -> None:
    """A directory is no file."""
    assert "is a directory" in await _refused(tmp_path)


async def test_no_directory(tmp_path: Path) -> None:
    """The directory of the file has to be there."""
    message = await _refused(tmp_path / "nowhere" / "store.db")
    assert "No such file or directory" in message
    assert "must be there" in message


async def test_disk_that_fails_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can be opened but not be read is the operator's matter, not a client's."""

    def latest(self: Database) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Database, "latest", latest)
    with pytest.raises(ConfigError, match=r"store\.db: .* disk I/O error; see to its disk"):
        async with running(path):
            pass
    monkeypatch.undo()
    async with running(path):  # it was closed
        pass


async def test_no_database(path: Path) -> None:
    """Any other file is let be."""
    _write(path, b"some text that is no database" * 1000)
    assert "file is not a database" in await _refused(path)
    assert _read(path).startswith(b"some text")


async def test_other_application(path: Path) -> None:
    """A database of somebody else's is let be."""
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
    connection.close()
    before = _read(path)
    assert "another application" in await _refused(path)
    assert _read(path) == before


async def test_newer_version(path: Path) -> None:
    """A file that a newer triows wrote is let be."""
    await _fill(path, 3)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {opening.VERSION + 1}")
    connection.close()
    message = await _refused(path)
    assert "newer triows (version 3 of the tables, this one knows 2)" in message
    assert "upgrade" in message


async def test_corrupt_header(path: Path) -> None:
    """A header that was overwritten is found at the start."""
    await _fill(path)
    _damage(path, 0, 100)
    message = await _refused(path)
    assert "not a database" in message
    assert "backup" in message


async def test_corrupt_middle(path: Path) -> None:
    """A page that was overwritten is found at the start."""
    await _fill(path)
    found = _read(path).rindex(b'"150 xxx')
    _damage(path, found - found % 4096, 4096)
    message = await _refused(path)
    assert "corrupt" in message or "malformed" in message
    assert "backup" in message


async def test_truncated(path: Path) -> None:
    """A file that lost its end is found at the start."""
    await _fill(path)
    os.truncate(path, _size(path) // 2)
    message = await _refused(path)
    assert "corrupt" in message or "malformed" in message


async def test_second_process(path: Path) -> None:
    """One server has the file; another is told who."""
    script = (
        "import sys, pathlib; from triows.bus.opening import open_database\n"
        "open_database(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(  # noqa: ASYNC220 it starts and waits
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdin is not None
    with other, other.stdout, other.stdin:
        assert other.stdout.readline() == b"open\n"
        message = await _refused(path)
        assert f"in use by process {other.pid}" in message
        other.kill()
        other.wait()
    async with running(path) as bench:  # the lock died with it
        assert isinstance(await bench.publish("a:1"), Receipt)
        assert f"in use by process {os.getpid()}" in await _refused(path)


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be a user without rights."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[Path]:
    """A directory that everybody can get to."""
    place = Path("/tmp") / f"triows-{os.getpid()}-{tmp_path.name}"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    yield place / "store.db"
    shutil.rmtree(place)


async def test_read_only_file(open_path: Path, request: pytest.FixtureRequest) -> None:
    """A file that cannot be written is refused at the start, and not touched."""
    await _fill(open_path, 3)
    _protect(open_path, 0o444)
    before = _read(open_path)
    request.getfixturevalue("nobody")
    message = await _refused(open_path)
    assert "readonly" in message
    assert "writable" in message
    assert _read(open_path) == before


async def test_no_permission(open_path: Path, request: pytest.FixtureRequest) -> None:
    """A directory that cannot be written is refused at the start."""
    _protect(open_path.parent, 0o555)
    request.getfixturevalue("nobody")
    assert "Permission denied" in await _refused(open_path)


async def test_server_does_not_listen_without_its_store(tmp_path: Path) -> None:
    """`open_server` says so before a port is open; so does a name that is no store."""
    for store in (f"sqlite:///{tmp_path}", "sqlite:///", "sqlite://x", "redis://x", ""):
        settings = triows.Settings(store=store)
        auth = triows.JWTAuth("a secret of at least 32 bytes, for tests")
        with pytest.raises(ConfigError, match="store"):
            async with triows.open_server(settings=settings, auth=auth, port=0):
                pytest.fail("it opened")


# While it runs


async def _is_refused(bench: Bench, *words: str) -> None:
    outcome = await bench.publish("a:1", "x" * 50_000, id="refused")
    assert isinstance(outcome, RequestError)
    assert (outcome.code, outcome.retry, outcome.retry_after) == (ErrorCode.UNAVAILABLE, True, 1)
    assert any(word in outcome.message for word in words), outcome.message


async def _goes_on(bench: Bench, kept: int) -> None:
    """Publishing works again, nothing is lost, and the refused message can be sent again."""
    again = await bench.publish("a:1", "x" * 50_000, id="refused")
    assert isinstance(again, Receipt)
    assert (again.duplicate, again.offset) == (False, kept + 1)
    assert len(await bench.kept("a:1")) == kept + 1


async def test_full_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that may not grow: refused, logged once; reading goes on; then all is well again."""
    caplog.set_level(logging.INFO)
    async with running(path, tail_bytes=1) as bench:
        await bench.publish("a:1", "first")
        await bench.bus._file()
        database = bench.bus._store._database
        assert database is not None
        database.pragma(f"max_page_count = {database.pragma('page_count')}")
        for _ in range(3):
            await _is_refused(bench, "full")
        assert await bench.kept("a:1") == {1: "first"}
        told = [r for r in caplog.records if r.name == "triows.store"]
        assert [r.levelname for r in told] == ["ERROR"]
        database.pragma("max_page_count = 1000000")
        await _goes_on(bench, 1)
        assert "can be written again" in caplog.text
    async with running(path) as bench:
        assert len(await bench.kept("a:1")) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root, and mounting")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_full_disk(small_disk: Path) -> None:
    """A disk that is full: refused; reading goes on; room made, publishing does, too."""
    async with running(small_disk / "store.db", tail_bytes=1) as bench:
        kept = 0
        while isinstance(await bench.publish("a:1", "x" * 20_000), Receipt):
            kept += 1
            assert kept < 100
        await _is_refused(bench, "full")
        assert len(await bench.kept("a:1")) == kept
        _remount(small_disk, "size=8m")
        await _goes_on(bench, kept)


async def test_file_size_limit(path: Path) -> None:
    """The same by a limit on the size of files, as `ulimit -f` sets."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with running(path, tail_bytes=1) as bench:
        await bench.publish("a:1", "first")
        await bench.bus._file()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            await _is_refused(bench, "disk I/O error", "full")
            await _is_refused(bench, "disk I/O error", "full")
            assert await bench.kept("a:1") == {1: "first"}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        await _goes_on(bench, 1)


async def test_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's lock, a backup's for example: refused after a while, not for ever."""
    monkeypatch.setattr("triows.bus.database._BUSY_TIMEOUT", 0.05)
    async with running(path) as bench:
        await bench.publish("a:1", "first")
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            await _is_refused(bench, "locked")
            other.execute("ROLLBACK")
        other.close()
        await _goes_on(bench, 1)


async def test_damage_while_it_runs(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A page that goes bad under a running server: told to those who ask for it, others read on."""
    async with running(path, max_messages=0) as bench:
        for number in range(4000):
            bench.submit("a:1" if number % 2 else "a:2", f"{number} {'x' * 500}")
        bench.submit("a:3", "fine")
        await bench.bus.settle()
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='messages'").fetchone()
    connection.close()
    async with running(path, max_messages=0) as bench:
        log, other = await bench.bus.open("a:1"), await bench.bus.open("a:2")
        _damage(path, 40 * 4096, _size(path) // 2 - 40 * 4096)
        assert root[0] < 40
        unread = 0
        for channel in (log, other):
            for cursor in range(0, 2000, 100):
                try:
                    await bench.bus.fetch(channel, cursor, 10_000)
                except RequestError:
                    unread += 1
        assert 0 < unread < 40
        assert isinstance(await bench.publish("a:3", "goes on"), Receipt)
        assert sum("cannot be read" in r.getMessage() for r in caplog.records) <= 3


async def test_journal_that_cannot_be_filed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be filed stays readable, in memory; so much and no more."""
    monkeypatch.setattr(engine, "FILED_MESSAGES", 5)
    monkeypatch.setattr(engine, "UNFILED_MESSAGES", 20)
    filing = Database.file_journal

    def fail(self: Database) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    async with running(path, tail_bytes=1, total_bytes=1) as bench:
        monkeypatch.setattr(Database, "file_journal", fail)
        for number in range(20):
            assert isinstance(await bench.publish("a:1", number), Receipt)
        await bench.bus.open("a:2")
        refused = await bench.publish("a:1", 20)
        assert isinstance(refused, RequestError)
        assert "journal" in refused.message
        assert list((await bench.kept("a:1")).values()) == list(range(20))
        monkeypatch.setattr(Database, "file_journal", filing)
        await trio.lowlevel.checkpoint()
        await bench.publish("a:1", 20)
        assert isinstance(await bench.publish("a:1", 21), Receipt)
