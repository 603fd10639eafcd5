"""Which channels there are: those the engine keeps, in memory or not, after a restart as well."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import Nursery, connect, memory_server, token
from tests.support_http import ADMIN, ask
from tests.support_store import running
from triows.bus import ChannelState
from triows.bus.memory import MemoryBus
from triows.bus.reading import Reader
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.messages import Message, Receipt

MANY = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store.db"


def names(states: list[ChannelState]) -> list[str]:
    """Return the names of channels."""
    return [state.channel for state in states]


async def listed(server: triows.Server, query: str, bearer: str = ADMIN) -> list[Any]:
    """Return all pages of a list, and check that each is as long as it says."""
    found: list[Any] = []
    after: str | None = ""
    async with trio.open_nursery() as nursery:
        while after is not None:
            path = f"/api/channels?{query}&after={after}"
            page = (await ask(server, nursery, "GET", path, bearer=bearer)).body
            found += page["channels"]
            after = page["next"]
            assert after is None or after == found[-1]["channel"]
        nursery.cancel_scope.cancel()
    return [channel for channel in found if channel["channel"] != "system:connections"]


def only_names(found: list[Any]) -> list[str]:
    """Return the names in a list."""
    return [channel["channel"] for channel in found]


# The engines


async def test_pages_of_memory(autojump_clock: MockClock) -> None:
    """By name, from a prefix, after a name, so many."""
    bus = MemoryBus(LogLimits(), lambda *_: None)
    for number in (3, 1, 2, 10):
        bus.submit(f"a:{number}", Message("log", b"1"), "", 0, lambda *_: None)
    bus.submit("b:1", Message("log", b"1"), "", 0, lambda *_: None)
    assert names(await bus.channels("", "", 9)) == ["a:1", "a:10", "a:2", "a:3", "b:1"]
    assert names(await bus.channels("a:", "a:1", 2)) == ["a:10", "a:2"]
    assert names(await bus.channels("a:1", "", 9)) == ["a:1", "a:10"]
    assert await bus.channels("a:1", "a:2", 9) == []
    assert await bus.channels("\U0001f600", "", 9) == []


@pytest.mark.parametrize("filed", [True, False])
async def test_pages_of_a_file(path: Path, filed: bool) -> None:
    """The same of a file, also where memory knows more than it says: what is not filed yet."""
    async with running(path, crash=True) as bench:
        for number in (3, 1):
            await bench.publish(f"a:{number}")
    async with running(path) as bench:
        for number in (2, 10, 3):
            await bench.publish(f"a:{number}")
        await bench.publish("b:1", {"exit_code": 3}, type="end")
        if filed:
            await bench.bus._file()
        bus = bench.bus
        found = await bus.channels("", "", 9)
        assert names(found) == ["a:1", "a:10", "a:2", "a:3", "b:1"]
        assert [state.head for state in found] == [1, 1, 1, 2, 1]
        assert [state.bytes > 100 for state in found] == [True] * 5
        assert [state.ended for state in found] == [None] * 4 + [b'{"exit_code": 3}']
        assert names(await bus.channels("a:", "a:1", 2)) == ["a:10", "a:2"]
        assert names(await bus.channels("a:1", "", 9)) == ["a:1", "a:10"]
        assert names(await bus.channels("a:2", "", 1)) == ["a:2"]
        assert await bus.channels("a:1", "a:2", 9) == []
        assert await bus.channels("\U0001f600", "", 9) == []
        assert bus._shelf.get("a:1") is None  # nothing is loaded for a list


async def test_only_asked_for(path: Path) -> None:
    """A channel that nothing was published to is named while it is watched."""
    async with running(path) as bench:
        log = await bench.bus.open("a:1")
        assert await bench.bus.channels("", "", 9) == []
        log.watchers = 1
        (state,) = await bench.bus.channels("", "", 9)
        assert (state.head, state.earliest, state.bytes) == (0, 1, 0)


async def test_filed_while_the_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves memory between two looks, at the file and at memory, is told as it was."""
    async with running(path) as bench:
        await bench.publish("a:1")
        read = bench.bus._store.read

        async def slowly(work: Any) -> Any:
            result = await read(work)
            await bench.bus._file()
            log = bench.bus._shelf.get("a:1")
            assert log is not None
            bench.bus._shelf.discard(log)
            return result

        monkeypatch.setattr(bench.bus._store, "read", slowly)
        (state,) = await bench.bus.channels("", "", 9)
        assert state.head == 1


async def test_file_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the list is refused, and can be asked for again."""
    async with running(path) as bench:
        await bench.publish("a:1")
        for reader in bench.bus._store._readers:
            reader.close()
        with pytest.raises(RequestError) as caught:
            await bench.bus.channels("", "", 9)
        assert (caught.value.code, caught.value.retry) == (ErrorCode.UNAVAILABLE, True)


async def test_list_of_a_file_that_cannot_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP it is 503, and 200 as soon as it can be read again."""

    def fail(*options: Any) -> list[ChannelState]:
        raise sqlite3.OperationalError("disk I/O error")

    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    async with memory_server(**settings) as server, trio.open_nursery() as nursery:
        with monkeypatch.context() as broken:
            broken.setattr(Reader, "channels", fail)
            answer = await ask(server, nursery, "GET", "/api/channels")
            assert (answer.status, answer.code) == (503, "unavailable")
            assert "retry-after" in answer.headers
        assert (await ask(server, nursery, "GET", "/api/channels")).status == 200
        nursery.cancel_scope.cancel()  # the connections are kept open


# Over HTTP, after a restart


async def test_list_survives_a_restart(path: Path) -> None:
    """All are listed, by pattern and page by page, with how they stand; nobody has asked yet."""
    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    async with memory_server(**settings) as server:
        for number in range(5):
            await server.publish(f"session:{number}", triows.log("x" * 1000))
        await server.publish("session:1", triows.end(exit_code=3, reason="as expected"))
        await server.publish("job:1", triows.log(1))
        before = await listed(server, "limit=1000")
    await trio.sleep(0.01)
    async with memory_server(**settings) as server:
        after = await listed(server, "limit=1000")
        assert only_names(after) == ["job:1", *(f"session:{number}" for number in range(5))]
        for old, new in zip(before, after, strict=True):
            assert new["touched_at"] == pytest.approx(old["touched_at"], abs=0.1)
            assert new["opened_at"] == pytest.approx(old["opened_at"], abs=0.1)
            times = ("touched_at", "opened_at")
            assert {k: v for k, v in new.items() if k not in times} == {
                k: v for k, v in old.items() if k not in times
            }
        ended = next(channel for channel in after if channel["channel"] == "session:1")
        assert (ended["ended"], ended["offset"]) == ({"exit_code": 3, "reason": "as expected"}, 2)
        assert ended["bytes"] > 1000
        assert only_names(await listed(server, "limit=2")) == only_names(after)
        assert only_names(await listed(server, "limit=2&pattern=session:*")) == [
            f"session:{number}" for number in range(5)
        ]
        assert only_names(await listed(server, "pattern=session:3")) == ["session:3"]
        assert only_names(await listed(server, "pattern=session:x")) == []


async def test_viewers_are_counted(path: Path) -> None:
    """Those of this process, of channels that were there before, too."""
    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    async with memory_server(**settings) as server:
        await server.publish("session:1", triows.log(1))
    async with memory_server(**settings) as server, trio.open_nursery() as nursery:
        viewer = await connect(server, nursery)
        await viewer.ask("subscribe", id="1", channel="session:1")
        await viewer.ask("subscribe", id="2", channel="session:2")
        found = await listed(server, "limit=9")
        assert [(c["channel"], c["viewers"], c["offset"]) for c in found] == [
            ("session:1", 1, 1),
            ("session:2", 1, 0),
        ]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("subscribe", "pattern", "expected"),
    [
        (["a:1"], "", ["a:1", "system"]),
        (["a:1*"], "", ["a:1", "a:10", "a:11", "system"]),
        (["a:1", "a:1*", "a:11", "b:*"], "", ["a:1", "a:10", "a:11", "b:1", "system"]),
        (["a:11", "b:1", "a:1"], "", ["a:1", "a:11", "b:1", "system"]),
        (["a:1*"], "a:*", ["a:1", "a:10", "a:11"]),
        (["a:*"], "a:1*", ["a:1", "a:10", "a:11"]),
        (["a:1*"], "a:10", ["a:10"]),
        (["a:10"], "a:1", []),
        (["a:1"], "b:*", []),
        (["*"], "*", ["a:1", "a:10", "a:11", "a:2", "b:1"]),
        (["*", "system:*"], "", ["a:1", "a:10", "a:11", "a:2", "b:1", "system", "system:x"]),
        (["*"], "", ["a:1", "a:10", "a:11", "a:2", "b:1", "system"]),
        ([], "", ["system"]),
        ([], "system*", ["system"]),
    ],
)
async def test_only_what_may_be_watched(
    nursery: Nursery,
    autojump_clock: MockClock,
    subscribe: list[str],
    pattern: str,
    expected: list[str],
) -> None:
    """A list holds what token and pattern have in common, in order and once."""
    async with memory_server() as server:
        for name in ("b:1", "a:2", "a:11", "a:10", "a:1", "system", "system:x"):
            await server.publish(name, triows.log(1))
        query = "limit=1" + (f"&pattern={pattern}" if pattern else "")
        bearer = token("some", subscribe=subscribe)
        assert only_names(await listed(server, query, bearer)) == expected


async def test_large_ends(nursery: Nursery, autojump_clock: MockClock) -> None:
    """An answer ends early where channels ended with much to say; nothing is left out."""
    async with memory_server() as server:
        for number in range(10):
            end = triows.message("end", {"reason": "x" * 300_000})
            await server.publish(f"a:{number}", end)
        page = await ask(server, nursery, "GET", "/api/channels", bearer=ADMIN)
        assert (len(page.body["channels"]), page.body["next"]) == (4, "a:3")
        assert len(await listed(server, "limit=1000")) == 10


def _fill(path: Path) -> None:
    """Add many channels to a store that nobody has open."""
    connection = sqlite3.connect(path)
    now = int(time.time() * 1e6)
    connection.executemany(
        "INSERT INTO channels VALUES (?, ?, 'abc', 0, 1, ?, ?, ?, 0)",
        (
            (n + 10, f"many:{n:05}", json.dumps({"exit_code": n % 3}) if n % 2 else None, now, now)
            for n in range(MANY)
        ),
    )
    connection.commit()
    connection.close()


async def test_many(path: Path) -> None:
    """Ten thousand are listed at once."""
    async with running(path) as bench:
        await bench.publish("a:1")
    await trio.to_thread.run_sync(_fill, path)
    settings: dict[str, Any] = {"store": f"sqlite:///{path}"}
    async with memory_server(**settings) as server:
        began = trio.current_time()
        found = await listed(server, "limit=1000&pattern=many:*")
        spent = trio.current_time() - began
    assert only_names(found) == [f"many:{n:05}" for n in range(MANY)]
    assert [c["ended"] for c in found[:3]] == [None, {"exit_code": 1}, None]
    print(f"\n{MANY} channels in {spent:.2f} s")  # noqa: T201
    assert spent < 10  # it takes 0.2


async def test_nobody_waits_for_a_list(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file is read for a list, others publish."""
    asked, published = trio.Event(), threading.Event()
    read = Reader.channels

    def slowly(*options: Any) -> list[ChannelState]:
        trio.from_thread.run_sync(asked.set)
        assert published.wait(10)
        return read(*options)

    monkeypatch.setattr(Reader, "channels", slowly)
    async with running(path) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(bench.bus.channels, "", "", 9)
        await asked.wait()
        assert isinstance(await bench.publish("a:1"), Receipt)
        published.set()
