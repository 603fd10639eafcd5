"""What many tests need: tokens, a server without a port, and a peer that speaks raw frames."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import triows
from triows.conformance.raw import BINARY as BINARY
from triows.conformance.raw import CLOSE as CLOSE
from triows.conformance.raw import PING as PING
from triows.conformance.raw import PONG as PONG
from triows.conformance.raw import TEXT as TEXT
from triows.conformance.raw import Socket
from triows.conformance.raw import frame as frame
from triows.conformance.raw import request_head as request_head

SECRET = "a secret for tests, of 32 bytes and more"
Nursery = trio.Nursery
ALL: dict[str, Any] = {name: ["*"] for name in ("subscribe", "publish", "command", "presence")}


def token(sub: str = "me", **options: Any) -> str:
    """Return a token that may do everything with sessions, or what `options` say."""
    return triows.make_token(SECRET, sub, **(options or ALL))


@asynccontextmanager
async def memory_server(**options: Any) -> AsyncIterator[triows.Server]:
    """Open a server that has no port: peers come over memory streams."""
    sections = {n: options.pop(n) for n in ("limits", "log", "server", "store") if n in options}
    settings = triows.Settings(**sections)
    options.setdefault("auth", triows.JWTAuth(SECRET))
    async with triows.open_server(settings=settings, listen=False, **options) as server:
        yield server


def plain_head(path: str, method: str = "GET", bearer: str | None = None) -> bytes:
    """Return the head of a request that opens no WebSocket."""
    extra = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost:8080\r\n{extra}\r\n".encode()


class Peer(Socket):
    """A client that does exactly what a test says, well-behaved or not."""

    async def say(self, type: str, **fields: Any) -> None:
        """Send one message."""
        await self.send(frame(json.dumps({"type": type, **fields})))

    async def ask(self, type: str, **fields: Any) -> Any:
        """Send one message and return the next that comes."""
        await self.say(type, **fields)
        return await self.hear()

    async def hear(self) -> Any:
        """Return the next message."""
        opcode, payload = await self.receive()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def hear_all(self) -> list[Any]:
        """Return what was not heard yet of all that comes by itself; needs virtual time."""
        found = []
        with trio.move_on_after(0.001):  # virtual time: over when everything else waits
            while True:
                found.append(await self.hear())
        return found

    async def close_code(self, *, stay: bool = False) -> int:
        """Read on until the server closes; return its code (1006 without a close frame).

        Hangs up, without a close frame of its own, unless it is to `stay`.
        """
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                if not stay:
                    await trio.aclose_forcefully(self.stream)
                return int.from_bytes(payload[:2], "big") if payload else 1006


def dial(
    server: triows.Server, nursery: Nursery, peer: str = "test", *, narrow: bool = False
) -> Peer:
    """Return a peer whose stream the server serves in `nursery`.

    A narrow stream holds nothing: whoever sends waits until the other side has read it all.
    """
    pair = trio.testing.lockstep_stream_pair if narrow else trio.testing.memory_stream_pair
    ours, theirs = pair()
    nursery.start_soon(server.serve_stream, theirs, peer)
    return Peer(ours)


async def connect(
    server: triows.Server, nursery: Nursery, bearer: str | None = None, *, narrow: bool = False
) -> Peer:
    """Return a peer that is connected, with its greeting read."""
    peer = dial(server, nursery, narrow=narrow)
    await peer.send(request_head(bearer or token()))
    status, _, body = await peer.response()
    assert status == 101, body
    assert (await peer.hear())["type"] == "auth"
    return peer


def run_virtually(test: Callable[[Nursery], Awaitable[None]]) -> None:
    """Run `test` in virtual time: for each of hypothesis' examples anew, as no fixture can."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await test(nursery)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
