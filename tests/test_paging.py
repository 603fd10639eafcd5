"""Viewers who are behind memory: what they get is what was published, without hole or double."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import Nursery, connect, memory_server, run_virtually
from tests.support_http import watch
from tests.support_store import MEMORY, inline, no_threads, until
from triows.bus import sqlite, store
from triows.bus.database import Database
from triows.bus.reading import Reader
from triows.config import LogLimits

__all__ = ["no_threads"]
A, B = "session:a", "session:b"


@asynccontextmanager
async def stored(path: Path, **log: Any) -> AsyncIterator[triows.Server]:
    """Open a server whose messages leave memory as soon as they can."""
    log.setdefault("tail_bytes", 1)
    async with memory_server(store=f"sqlite:///{path}", log=LogLimits(**log)) as server:
        yield server


async def _publish(server: triows.Server, count: int, *, size: int = 1, to: str = A) -> str:
    for _ in range(count):
        position = await server.publish(to, triows.log("x" * size))
    return position.epoch


async def _file(server: triows.Server) -> None:
    assert isinstance(server._bus, sqlite.SQLiteBus)
    await server._bus._file()


def _follow(messages: list[Any], since: int) -> int:
    """Check that messages follow one by one, gaps included; return the last offset."""
    for message in messages:
        if message["type"] == "gap":
            gap = message["data"]
            assert (gap["from"], gap["count"]) == (since + 1, gap["to"] - since)
            since = gap["to"]
        else:
            since += 1
            assert message["offset"] == since
    return since


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 6)),
    st.tuples(st.just("read"), st.integers(1, 8)),
    st.tuples(st.just("tick"), st.integers(1, 4)),
    st.tuples(st.just("file"), st.just(0)),
    st.tuples(st.just("trim"), st.just(0)),
)


@settings(max_examples=40)
@given(
    steps=st.lists(STEPS, max_size=25),
    size=st.sampled_from([1, 30_000]),
    kept=st.sampled_from([5, 1000]),
    tail=st.sampled_from([1, 70_000]),
    narrow=st.booleans(),
    since=st.integers(0, 20),
)
def test_no_hole_and_no_double(
    steps: list[tuple[str, int]], size: int, kept: int, tail: int, narrow: bool, since: int
) -> None:
    """However publishing, reading, filing and giving up mix, each offset comes once or in a gap."""

    async def main(nursery: Nursery) -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as place:
            path = Path(place) / "store.db"
            async with stored(path, max_messages=kept, tail_bytes=tail) as server:
                epoch, head = await _publish(server, 20, size=size), 20
                await _file(server)
                peer = await connect(server, nursery, narrow=narrow)
                position = {"epoch": epoch, "offset": since}
                await peer.say("subscribe", channel=A, data={"since": position})
                heard: list[Any] = []
                for step, amount in steps:
                    if step == "publish":
                        await _publish(server, amount, size=size)
                        head += amount
                    elif step == "file":
                        await _file(server)
                    elif step == "trim":
                        assert isinstance(server._bus, sqlite.SQLiteBus)
                        server._bus._retention.overdue[A] = None
                        server._bus._lot.unpark()
                    for _ in range(amount if step != "publish" else 0):
                        with trio.move_on_after(0.001):
                            if step == "read":
                                heard.append(await peer.hear())
                            await trio.lowlevel.checkpoint()
                await _publish(server, 2, size=size)
                heard += await peer.hear_all()
                assert heard[0]["type"] == "ack"
                assert _follow(heard[1:], since) == head + 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "in_thread", inline)
        run_virtually(main)


async def test_restart_under_a_viewer(
    tmp_path: Path, nursery: Nursery, autojump_clock: MockClock, no_threads: None
) -> None:
    """A viewer goes on over a restart from its position, in the same epoch, all from the file."""
    path = tmp_path / "store.db"
    async with stored(path) as server:
        epoch = await _publish(server, 300, size=1000)
    async with stored(path) as server:
        peer = await connect(server, nursery)
        since = {"epoch": epoch, "offset": 123}
        ack = await peer.ask("subscribe", channel=A, data={"since": since})
        assert (ack["data"]["epoch"], ack["data"]["offset"], ack["data"]["earliest"]) == (
            *(epoch, 300, 1),
        )
        await _publish(server, 10)
        assert _follow(await peer.hear_all(), 123) == 310


async def test_history_from_the_file(
    tmp_path: Path, nursery: Nursery, autojump_clock: MockClock, no_threads: None
) -> None:
    """`history` has no seam between file and memory."""
    async with stored(tmp_path / "store.db") as server:
        await _publish(server, 50)
        await _file(server)
        await _publish(server, 50)
        peer = await connect(server, nursery)
        page = (await peer.ask("history", channel=A, data={"from": 1, "limit": 1000}))["data"]
        assert [m["offset"] for m in page["messages"]] == list(range(1, 101))
        assert page["next"] is None
        page = (await peer.ask("history", channel=A, data={"limit": 70}))["data"]
        assert [m["offset"] for m in page["messages"]] == list(range(31, 101))


@pytest.mark.slow
async def test_many_at_one_place(
    tmp_path: Path,
    nursery: Nursery,
    autojump_clock: MockClock,
    no_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """500 viewers that go on from one place have each page read once, not 500 times."""
    pages = []
    page = Reader.page

    def counted(self: Reader, *where: Any) -> list[bytes]:
        pages.append(where)
        return page(self, *where)

    monkeypatch.setattr(Reader, "page", counted)
    limits = triows.Limits(max_connections_per_user=0)
    path = tmp_path / "store.db"
    async with stored(path) as server:
        epoch = await _publish(server, 300, size=1000)
    log = LogLimits(tail_bytes=1)
    async with memory_server(store=f"sqlite:///{path}", log=log, limits=limits) as server:
        peers = [await connect(server, nursery) for _ in range(500)]
        since = {"epoch": epoch, "offset": 10}
        for peer in peers:
            await peer.say("subscribe", channel=A, data={"since": since})
        await _publish(server, 3)
        for peer in peers:
            heard = await peer.hear_all()
            assert _follow(heard[1:], 10) == 303
        assert len(pages) <= 12


async def test_disk_that_fails_while_viewers_read(
    tmp_path: Path,
    nursery: Nursery,
    autojump_clock: MockClock,
    no_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A viewer waits for a disk that fails, is not cut, gets other channels, and goes on then."""
    path = tmp_path / "store.db"
    async with stored(path) as server:
        await _publish(server, 300, size=1000)
    page = Reader.page
    async with stored(path) as server:
        peer = await connect(server, nursery)

        def fail(*where: Any) -> list[bytes]:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(Reader, "page", fail)
        await peer.say("subscribe", channel=A, data={"from": "start"})
        await peer.say("subscribe", channel=B)
        refused = await peer.ask("history", channel=A, data={"limit": 1})
        assert [refused["type"], *(m["type"] for m in await peer.hear_all())] == [
            *("ack", "ack", "error"),
        ]
        await _publish(server, 1, to=B)
        assert [m["channel"] for m in await peer.hear_all()] == [B]
        await trio.sleep(5)
        monkeypatch.setattr(Reader, "page", page)
        await trio.sleep(2)
        assert _follow(await peer.hear_all(), 0) == 300


async def test_disk_that_fails_while_events_are_read(
    tmp_path: Path,
    nursery: Nursery,
    autojump_clock: MockClock,
    no_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An event stream waits for a disk that fails, says so, and goes on; or is disconnected."""
    path = tmp_path / "store.db"
    async with stored(path) as server:
        epoch = await _publish(server, 300, size=1000, to="session:1")
    page = Reader.page

    def fail(*where: Any) -> list[bytes]:
        raise sqlite3.OperationalError("disk I/O error")

    async with stored(path) as server:
        monkeypatch.setattr(Reader, "page", fail)
        events = await watch(server, nursery, f"?since={epoch}:0")
        other = await watch(server, nursery, f"?since={epoch}:0")
        await trio.sleep(5)
        one, two = server.connections()
        assert (one.lag, two.lag, one.state) == (300, 300, "open")
        assert server.disconnect(two.id)
        (last,) = await other.all()
        assert (last.type, last.data["code"]) == ("close", 4503)
        monkeypatch.setattr(Reader, "page", page)
        for offset in range(1, 301):
            event = await events.next()
            assert event is not None
            assert event.data["offset"] == offset
        assert 4 <= events.comments <= 6


async def test_listener_behind_memory(
    tmp_path: Path,
    nursery: Nursery,
    autojump_clock: MockClock,
    no_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The application's listener reads on from the file, too, and over a disk that fails."""
    async with stored(tmp_path / "store.db") as server, server.listen("session:*") as messages:
        await _publish(server, 300, size=1000)
        await _file(server)
        heard = [(await messages.__anext__()).offset for _ in range(100)]
        page = Reader.page

        def fail(*where: Any) -> list[bytes]:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(Reader, "page", fail)
        with trio.move_on_after(3):
            while True:
                heard.append((await messages.__anext__()).offset)
        monkeypatch.setattr(Reader, "page", page)
        heard += [(await messages.__anext__()).offset for _ in range(300 - len(heard))]
        assert heard == list(range(1, 301))


async def test_drain_acknowledges_what_was_published(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain waits for the disk: what was published is acknowledged before the connection ends."""
    gate = threading.Event()
    commit = Database.commit

    def held(self: Database, *rows: Any, **more: Any) -> None:
        assert gate.wait(10)
        commit(self, *rows, **more)

    path = tmp_path / "store.db"
    with trio.fail_after(60):
        async with stored(path) as server:
            await server.publish(A, triows.log(0))
            peer = await connect(server, nursery)
            monkeypatch.setattr(Database, "commit", held)
            for number in range(5):
                await peer.say("log", channel=A, id=str(number), data=number)
            (member,) = server._registry.members()
            await until(lambda: member.unanswered == 5)  # type: ignore[attr-defined]
            server.drain()
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            gate.set()
            told = [await peer.hear() for _ in range(6)]
            assert sorted(m["type"] for m in told) == ["ack"] * 5 + ["reconnect"]
            assert await peer.close_code() == 1012
        async with stored(path) as server:
            log = await server._bus.open(A)
            texts = await server._bus.history(log, 1, 10, 10_000)
            assert [json.loads(t)["data"] for t in texts] == [0, 0, 1, 2, 3, 4]
