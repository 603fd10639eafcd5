"""A server killed again and again under load: what it acknowledged is there, once, in order."""

from __future__ import annotations

import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import triows
from tests.support import ALL, SECRET
from tests.support_store import until

ROUNDS = 50
CHANNELS = ("session:one", "session:two", "session:shared", "session:shared")
AT_ONCE = 8  # messages under way from each publisher
MOST_SECONDS = 85


class World:
    """The server, and what its clients know.

    Attributes:
        acknowledged: offsets by channel and text.
        heard: for each viewer, channel and what it got: offsets and texts.
        gaps: what viewers were told they missed.
        stop: set when nothing more is to be published.
    """

    def __init__(self, path: Path, secret: Path) -> None:
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.heard: list[tuple[str, list[tuple[int | None, str]]]] = []
        self.gaps: list[object] = []
        self.connections = 0
        self.stop = trio.Event()
        self._port = 0
        self._up = trio.Event()
        self._command = [
            *(sys.executable, "-c", "from triows.cli import main; main()", "serve"),
            *("--store", f"sqlite:///{path}", "--auth.secret-file", str(secret)),
            *("--server.port", "0", "--limits.messages-per-second", "0"),
            *("--log.tail-bytes", "20000"),
        ]

    @asynccontextmanager
    async def server(self, ending: signal.Signals) -> AsyncIterator[None]:
        """Run the server in a process of its own, and end it by a signal."""
        process = await trio.lowlevel.open_process(self._command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = b""
        try:
            while (found := re.search(rb"listens on ws://127.0.0.1:(\d+)/", said)) is None:
                more = bytes(await process.stderr.receive_some())
                assert more, said.decode()
                said += more
            self._port = int(found[1])
            self._up.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_discard, process.stderr)
                yield
                self._up = trio.Event()
                process.send_signal(ending)
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    def has_acknowledged(self, count: int) -> bool:
        """Whether so many messages were acknowledged."""
        return len(self.acknowledged) >= count

    async def connect(self) -> trio.abc.Stream:
        """Open a connection for a client, as soon as there is a server."""
        await self._up.wait()
        self.connections += 1
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def publish(self, name: str, channel: str) -> None:
        """Publish numbered messages until it is time to stop."""
        token = triows.make_token(SECRET, name, **ALL)
        number = 0
        async with triows.open_client(
            "ws://127.0.0.1:1/ws", token=token, open_stream=self.connect
        ) as client:
            while not self.stop.is_set():
                texts = [f"{name} {number + more}" for more in range(AT_ONCE)]
                number += AT_ONCE
                positions = await client.publish_many(channel, map(triows.log, texts))
                for text, position in zip(texts, positions, strict=True):
                    assert (channel, text) not in self.acknowledged
                    self.acknowledged[channel, text] = position.offset

    async def watch(self, channel: str) -> None:
        """Watch a channel from its start, for ever."""
        token = triows.make_token(SECRET, "viewer", **ALL)
        heard: list[tuple[int | None, str]] = []
        self.heard.append((channel, heard))
        async with (
            triows.open_client(
                "ws://127.0.0.1:1/ws", token=token, open_stream=self.connect
            ) as client,
            client.subscribe(channel, from_start=True) as messages,
        ):
            async for message in messages:
                if message.type == "gap":
                    self.gaps.append(message.data)
                else:
                    heard.append((message.offset, message.data))


async def _discard(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


def _stored(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Return offset and text of every message in the file, by channel."""
    connection = sqlite3.connect(path)
    found: dict[str, list[tuple[int, str]]] = {}
    rows = connection.execute(
        "SELECT name, offset, text FROM messages JOIN channels ON channel = id"
        " WHERE name LIKE 'session:%' ORDER BY name, offset"
    )
    for name, offset, text in rows:
        found.setdefault(name, []).append((offset, json.loads(text)["data"]))
    connection.close()
    return found


def _check_order(messages: list[tuple[int, str]]) -> None:
    """Offsets count from 1, and what each publisher said is there once and in order."""
    assert [offset for offset, _ in messages] == list(range(1, len(messages) + 1))
    last: dict[str, int] = {}
    for _, text in messages:
        name, number = text.split()
        assert int(number) == last.get(name, -1) + 1
        last[name] = int(number)


@pytest.mark.slow
async def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 50 times `kill -9` under load every acknowledged message is there, once, in order,
    and every viewer has got each of them once.
    """
    monkeypatch.setattr("triows.client.backoff", lambda attempt, wait: 0.02)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)  # noqa: ASYNC240
    path = tmp_path / "store.db"
    world, rounds = World(path, secret), 0
    began = trio.current_time()
    async with trio.open_nursery() as viewers:
        for channel in sorted(set(CHANNELS)):
            viewers.start_soon(world.watch, channel)
        async with trio.open_nursery() as publishers:
            for number, channel in enumerate(CHANNELS):
                publishers.start_soon(world.publish, f"p{number}", channel)
            while rounds < ROUNDS:
                async with world.server(signal.SIGKILL):
                    wanted = len(world.acknowledged) + 4 * AT_ONCE
                    await until(partial(world.has_acknowledged, wanted), seconds=15)
                    await trio.sleep(random.uniform(0, 0.1))
                rounds += 1
            world.stop.set()
            publishers.start_soon(_serve_last, world, viewers)
    spent = trio.current_time() - began
    stored = _stored(path)
    print(  # noqa: T201 how much was tried is worth knowing
        f"\n{rounds} kills in {spent:.0f} s, {len(world.acknowledged)} messages acknowledged, "
        f"{sum(map(len, stored.values()))} stored, {world.connections} connections"
    )
    for messages in stored.values():
        _check_order(messages)
    for (channel, text), offset in world.acknowledged.items():
        assert stored[channel][offset - 1] == (offset, text)
    assert sum(map(len, stored.values())) == len(world.acknowledged)
    for channel, heard in world.heard:
        assert heard == stored[channel]
    assert world.gaps == []
    assert spent < MOST_SECONDS


async def _serve_last(world: World, viewers: trio.Nursery) -> None:
    """Run the server until all is acknowledged and heard; then drain it."""
    wanted = 0
    with trio.fail_after(20):
        async with world.server(signal.SIGTERM):
            while True:
                total = len(world.acknowledged)
                heard = sum(len(messages) for _, messages in world.heard)
                if total == heard == wanted:
                    break
                wanted = total
                await trio.sleep(0.2)
        viewers.cancel_scope.cancel()
