"""A token that was taken back stays worthless: at once, after a restart, and after `kill -9`."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import ALL, SECRET, Nursery, connect, dial, memory_server, request_head, token
from tests.support_http import ADMIN, ask
from tests.support_store import running, until
from triows.auth import Identity, Revocation, Revocations
from triows.bus import opening
from triows.bus.database import Database
from triows.bus.store import Store
from triows.errors import AuthError, ConfigError, ErrorCode, RequestError

OLD = Path(__file__).parent / "fixtures" / "store_version_1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store.db"


def believed(revocations: Revocations, **identity: Any) -> bool:
    """Whether somebody is believed."""
    try:
        revocations.check(Identity(**{"user": "me", "expires_at": 1e12, **identity}))
    except AuthError:
        return False
    return True


async def status(server: triows.Server, bearer: str) -> int:
    """Return how a connection with this token is answered."""
    async with trio.open_nursery() as nursery:
        peer = dial(server, nursery)
        await peer.send(request_head(bearer))
        found, _, _ = await peer.response()
        nursery.cancel_scope.cancel()
    return found


# What is believed


def test_what_is_revoked() -> None:
    """A token for good; a user's tokens as far as they were issued until then, in any order."""
    revocations = Revocations()
    revocations.add(Revocation(token_id="7"))
    for at in (100, 200, 150):
        revocations.add(Revocation(user="bad", at=at))
    assert not believed(revocations, token_id="7")
    assert believed(revocations, token_id="8")
    assert not believed(revocations, user="bad", issued_at=200)
    assert not believed(revocations, user="bad")
    assert believed(revocations, user="bad", issued_at=201)
    for user, token_id in ((None, None), ("a", "7")):
        with pytest.raises(ConfigError, match="either a token_id or a user"):
            Revocation(user=user, token_id=token_id)


# What the file keeps


@pytest.mark.parametrize("crash", [False, True])
async def test_kept_in_the_file(path: Path, crash: bool) -> None:
    """All are told of when the file is opened again; of one told twice, the later."""
    strange = "\x00'\"\\\ud800…𝄞"
    given = [
        Revocation(token_id="7", at=1.5),
        Revocation(user="7", at=2.5),
        Revocation(user=strange, at=3.5),
        Revocation(token_id=strange, at=4.5),
        Revocation(user="", at=5.5),
    ]
    async with running(path, crash=crash) as bench:
        for revocation in given:
            await bench.bus.revoke(revocation)
        await bench.bus.revoke(Revocation(user="7", at=1))
        await bench.bus.revoke(Revocation(token_id="7", at=9.25))
        assert bench.revoked == []
    async with running(path) as bench:
        expected = [Revocation(token_id="7", at=9.25), *given[1:]]
        assert sorted(map(repr, bench.revoked)) == sorted(map(repr, expected))


async def test_cancelled_it_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun, it is finished: by a client that hangs up, for example."""
    begun, go_on = trio.Event(), threading.Event()
    revoke = Database.revoke

    def slowly(database: Database, revocation: Revocation) -> None:
        trio.from_thread.run_sync(begun.set)
        assert go_on.wait(10)
        revoke(database, revocation)

    monkeypatch.setattr(Database, "revoke", slowly)
    async with running(path) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.bus.revoke, Revocation(user="me"))
            await begun.wait()
            nursery.cancel_scope.cancel()
            go_on.set()
    async with running(path) as bench:
        assert [revocation.user for revocation in bench.revoked] == ["me"]


# A file of the version before


def _make_old(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(OLD.read_text())
    connection.close()


def _version(path: Path) -> tuple[int, int]:
    """Return the version of a file's tables, and how many there are."""
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
    found = version, tables.fetchone()[0]
    connection.close()
    return found


async def test_older_version(path: Path) -> None:
    """A file of version 1 is brought up to date in its place, with all that is in it."""
    _make_old(path)
    assert _version(path) == (1, 4)
    for _ in range(2):
        async with running(path) as bench:
            assert await bench.kept("a:1") == {1: "one", 2: "two"}
            log = await bench.bus.find("a:2")
            assert log is not None
            assert (log.ended, log.epoch) == (b"{}", "ba9876543210")
            await bench.bus.revoke(Revocation(user="me"))
        assert _version(path) == (opening.VERSION, 5)
    async with running(path) as bench:
        assert len(bench.revoked) == 1


async def test_new_and_old_have_the_same_tables(path: Path, tmp_path: Path) -> None:
    """A file brought up to date is as one made anew."""
    _make_old(path)
    schemas = []
    for file in (path, tmp_path / "new.db"):
        async with running(file):
            pass
        connection = sqlite3.connect(file)
        schemas.append(connection.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall())
        connection.close()
    for old, new in zip(*schemas, strict=True):
        assert (old[:3], (old[4] or "").split()) == (new[:3], (new[4] or "").split())


async def test_change_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brought up to date a file is wholly, or not at all."""
    _make_old(path)
    broken = (*opening._CHANGES[2], "CREATE TABLE channels (x)")
    monkeypatch.setitem(opening._CHANGES, 2, broken)
    with pytest.raises(ConfigError, match="table channels already exists"):
        await Store(path).open()
    assert _version(path) == (1, 4)
    monkeypatch.undo()
    async with running(path) as bench:
        assert await bench.kept("a:1") == {1: "one", 2: "two"}


# The server


@pytest.mark.parametrize("by", ["token_id", "user"])
async def test_restart(path: Path, by: str) -> None:
    """What was revoked over HTTP is refused by the next server with the same store."""
    bad, good = token("bad", **ALL), token("good", **ALL)
    identity = await triows.JWTAuth(SECRET).verify(bad)
    value = identity.token_id if by == "token_id" else "bad"
    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    async with memory_server(**settings) as server, trio.open_nursery() as nursery:
        peer = await connect(server, nursery, bad)
        answer = await ask(server, nursery, "POST", "/api/revocations", {by: value}, ADMIN)
        assert (answer.status, answer.body) == (200, {"closed": 1})
        assert await peer.close_code() == 4503
        nursery.cancel_scope.cancel()
    async with memory_server(**settings) as server:
        assert (await status(server, bad), await status(server, good)) == (401, 101)


async def test_cut_before_it_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk keeps nobody connected."""
    go_on = threading.Event()
    revoke = Database.revoke

    def slowly(database: Database, revocation: Revocation) -> None:
        assert go_on.wait(10)
        revoke(database, revocation)

    monkeypatch.setattr(Database, "revoke", slowly)
    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    closed: list[int] = []
    bearer = token()
    async with memory_server(**settings) as server, trio.open_nursery() as nursery:
        peer = await connect(server, nursery, bearer)

        async def take_back() -> None:
            closed.append(await server.revoke(user="me"))

        nursery.start_soon(take_back)
        assert await peer.close_code() == 4503
        assert await status(server, bearer) == 401
        assert closed == []
        go_on.set()
        await until(lambda: closed == [1])


async def test_cannot_be_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and how many were cut all the same; asked for again, it is stored."""

    def fail(database: Database, revocation: Revocation) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    mine, yours = token("me"), token("you")
    async with memory_server(**settings) as server, trio.open_nursery() as nursery:
        with monkeypatch.context() as broken:
            broken.setattr(Database, "revoke", fail)
            peer = await connect(server, nursery, mine)
            body = {"user": "me"}
            answer = await ask(server, nursery, "POST", "/api/revocations", body, ADMIN)
            assert (answer.status, answer.code) == (503, "unavailable")
            assert "retry-after" in answer.headers
            message = answer.body["data"]["message"]
            assert "revoked until this server ends, 1 connections cut, but not stored" in message
            assert "disk is full" in message
            assert await peer.close_code() == 4503
            assert await status(server, mine) == 401
            with pytest.raises(RequestError) as caught:
                await server.revoke(user="you")
            assert (caught.value.code, caught.value.retry) == (ErrorCode.UNAVAILABLE, True)
        assert await server.revoke(user="me") == 0
        nursery.cancel_scope.cancel()
    async with memory_server(**settings) as server:
        assert (await status(server, mine), await status(server, yours)) == (401, 101)


async def test_told_by_another(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A revocation the engine tells of cuts as one of this server's own."""
    async with memory_server() as server:
        bearer = token()
        peer = await connect(server, nursery, bearer)
        other = await connect(server, nursery, token("you"))
        server._told(Revocation(user="me"))
        server._told(Revocation(user="me"))
        assert await peer.close_code() == 4503
        assert await status(server, bearer) == 401
        assert (await other.ask("ping", id="1"))["type"] == "pong"


# The whole, killed


@asynccontextmanager
async def serving(path: Path, secret: Path, ending: signal.Signals) -> AsyncIterator[str]:
    """Run `triows serve` on a store, give its address, and end it by a signal."""
    command = [
        *(sys.executable, "-c", "from triows.cli import main; main()", "serve"),
        *("--store", f"sqlite:///{path}", "--auth.secret-file", str(secret)),
        *("--server.port", "0"),
    ]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    try:
        with trio.fail_after(30):
            while (found := re.search(rb"listens on ws://(127.0.0.1:\d+)/", said)) is None:
                more = bytes(await process.stderr.receive_some())
                assert more, said.decode()
                said += more
        yield f"http://{found[1].decode()}"
        process.send_signal(ending)
        await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


def _ask(url: str, bearer: str, body: bytes | None = None) -> int:
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: int = answer.status
            return found
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
async def test_killed_right_after(tmp_path: Path, path: Path) -> None:
    """`kill -9` at the moment of the answer: the token is refused by the next server."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)  # noqa: ASYNC240
    bad, good = token("bad", **ALL), token("good", **ALL)
    for user, bearer in (("bad", bad), ("worse", token("worse", **ALL))):
        async with serving(path, secret, signal.SIGKILL) as url:
            listing = f"{url}/api/channels"
            assert await trio.to_thread.run_sync(_ask, listing, bearer) == 200
            body = b'{"user": "%b"}' % user.encode()
            revoking = f"{url}/api/revocations"
            assert await trio.to_thread.run_sync(_ask, revoking, ADMIN, body) == 200
        async with serving(path, secret, signal.SIGTERM) as url:
            listing = f"{url}/api/channels"
            assert await trio.to_thread.run_sync(_ask, listing, bearer) == 401
            assert await trio.to_thread.run_sync(_ask, listing, good) == 200
