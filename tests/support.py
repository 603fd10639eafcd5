"""What many tests need: tokens, a server without a port, and a peer that speaks raw frames."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import triows
from triows.frames import mask

SECRET = "a secret for tests, of 32 bytes and more"
Nursery = trio.Nursery
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
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


def frame(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """Return a masked frame, as a client sends it."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = bytes(((0x80 if fin else 0) | opcode,))
    if len(data) < 126:
        head = first + bytes((0x80 | len(data),))
    elif len(data) < 65536:
        head = first + b"\xfe" + len(data).to_bytes(2, "big")
    else:
        head = first + b"\xff" + len(data).to_bytes(8, "big")
    key = os.urandom(4)
    return head + key + mask(data, key)


def request_head(
    bearer: str | None = None, *, path: str = "/ws", headers: dict[str, str] | None = None
) -> bytes:
    """Return the head of an opening handshake; a header set to '' is left out."""
    fields = {
        "Host": "localhost:8080",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if bearer is not None:
        fields["Authorization"] = f"Bearer {bearer}"
    fields.update(headers or {})
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def plain_head(path: str, method: str = "GET", bearer: str | None = None) -> bytes:
    """Return the head of a request that opens no WebSocket."""
    extra = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost:8080\r\n{extra}\r\n".encode()


class Peer:
    """A client that does exactly what a test says, well-behaved or not."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        await self.stream.send_all(data)

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

    async def receive(self) -> tuple[int, bytes]:
        """Return the next frame: opcode and payload; (CLOSE, b"") at the end of the stream."""
        while not (found := self._cut()):
            data = await self._more()
            if not data:
                return CLOSE, b""
            self._buffer += data
        return found

    async def response(self) -> tuple[int, dict[str, str], Any]:
        """Return an HTTP answer: status, headers, and the body as JSON (None without one)."""
        while b"\r\n\r\n" not in self._buffer:
            data = await self._more()
            assert data, f"the server hung up after {self._buffer!r}"
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._buffer) < size:
            self._buffer += await self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return int(first.split()[1]), headers, json.loads(body) if body else None

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

    async def _more(self) -> bytes:
        try:
            data = bytes(await self.stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            await trio.aclose_forcefully(self.stream)
        return data

    def _cut(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, at = data[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return None
        self._buffer = data[at + size :]
        return data[0] & 0x0F, data[at : at + size]


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
