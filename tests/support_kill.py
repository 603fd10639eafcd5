"""What tests that kill servers under load need: clients that remember what they were told."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

import triows
from tests.support import ALL, SECRET

SERVE = (sys.executable, "-c", "from triows.cli import main; main()", "serve")


@asynccontextmanager
async def serving(*options: str) -> AsyncIterator[tuple[trio.Process, int]]:
    """Run `triows serve` in a process of its own; in the end it is killed, if it is still there."""
    process = await trio.lowlevel.open_process([*SERVE, *options], stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    try:
        while (found := re.search(rb"listens on ws://127.0.0.1:(\d+)/", said)) is None:
            more = bytes(await process.stderr.receive_some())
            assert more, said.decode()
            said += more
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_discard, process.stderr)
            yield process, int(found[1])
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _discard(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


class Witness:
    """Clients of servers that come and go, and what they were told.

    Attributes:
        ports: of the servers there are.
        acknowledged: offsets by channel and text.
        heard: for each viewer, channel and what it got: offsets and texts.
        gaps: what viewers were told they missed.
        stop: set when nothing more is to be published.
        connections: how many were opened.
    """

    def __init__(self, at_once: int) -> None:
        self.ports: list[int] = []
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.heard: list[tuple[str, list[tuple[int | None, str]]]] = []
        self.gaps: list[object] = []
        self.stop = trio.Event()
        self.connections = 0
        self.publishing = 0
        self._at_once = at_once
        self._up = trio.Event()

    def add(self, port: int) -> None:
        """Have clients use this server from now on."""
        self.ports.append(port)
        self._up.set()

    def remove(self, port: int) -> None:
        """Have clients use this server no more."""
        self.ports.remove(port)
        if not self.ports:
            self._up = trio.Event()

    @property
    def heard_count(self) -> int:
        """How many messages all viewers got."""
        return sum(len(messages) for _, messages in self.heard)

    def has_acknowledged(self, count: int) -> bool:
        """Whether so many messages were acknowledged."""
        return len(self.acknowledged) >= count

    async def connect(self) -> trio.abc.Stream:
        """Open a connection for a client, to one server after the other."""
        while not self.ports:
            await self._up.wait()
        self.connections += 1
        return await trio.open_tcp_stream(
            "127.0.0.1", self.ports[self.connections % len(self.ports)]
        )

    async def publish(self, name: str, channel: str) -> None:
        """Publish numbered messages until it is time to stop."""
        token = triows.make_token(SECRET, name, **ALL)
        number = 0
        self.publishing += 1
        async with triows.open_client(
            "ws://127.0.0.1:1/ws", token=token, open_stream=self.connect
        ) as client:
            while not self.stop.is_set():
                texts = [f"{name} {number + more}" for more in range(self._at_once)]
                number += self._at_once
                positions = await client.publish_many(channel, map(triows.log, texts))
                for text, position in zip(texts, positions, strict=True):
                    assert (channel, text) not in self.acknowledged
                    self.acknowledged[channel, text] = position.offset
        self.publishing -= 1

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


def check_places(messages: list[tuple[int, str]], at_once: int) -> None:
    """Offsets count from 1, and what each publisher said is there once, those that were under way
    together in any order: one that was refused takes its place when it is sent again.
    """
    assert [offset for offset, _ in messages] == list(range(1, len(messages) + 1))
    numbers: dict[str, list[int]] = {}
    for _, text in messages:
        name, number = text.split()
        numbers.setdefault(name, []).append(int(number))
    for found in numbers.values():
        assert sorted(found) == list(range(len(found)))
        assert [number // at_once for number in found] == sorted(n // at_once for n in found)
