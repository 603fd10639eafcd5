"""A client's end of a WebSocket in single frames: it sends whatever it is told, right or wrong.

What comes is held against RFC 6455, and messages in fragments are put together.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any, Final

import trio

from triows.conformance.matcher import Mismatch
from triows.frames import mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES: Final = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
_MAX_HEAD: Final = 65536  # bytes of an HTTP answer's head
_RECEIVE: Final = 65536  # bytes asked for at once


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
    bearer: str | None = None,
    *,
    path: str = "/ws",
    headers: Mapping[str, str] | None = None,
    host: str = "localhost:8080",
) -> bytes:
    """Return the head of an opening handshake; a header set to '' is left out."""
    fields = {
        "Host": host,
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


class Socket:
    """One connection to a server."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""
        self._kind = CONTINUATION  # of the message whose fragments are coming
        self._parts: list[bytes] = []

    async def send(self, data: bytes) -> None:
        """Send raw bytes.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection is over.
        """
        await self.stream.send_all(data)

    async def hang_up(self) -> None:
        """End the connection without a goodbye."""
        await trio.aclose_forcefully(self.stream)

    async def receive(self) -> tuple[int, bytes]:
        """Return the next message or control frame: opcode and payload.

        (CLOSE, b"") at the end of the stream. Cancelled, nothing is lost.

        Raises:
            Mismatch: a frame against RFC 6455.
        """
        while True:
            while not (found := self._cut()):
                data = await self._more()
                if not data:
                    return CLOSE, b""
                self._buffer += data
            if message := self._join(*found):
                return message

    async def response(self) -> tuple[int, dict[str, str], Any]:
        """Return an HTTP answer: status, headers, and the body as JSON (None without one).

        Raises:
            Mismatch: it is none.
        """
        while b"\r\n\r\n" not in self._buffer:
            data = await self._more()
            if not data or len(self._buffer) > _MAX_HEAD:
                raise Mismatch(f"no HTTP answer, but {self._buffer[:100]!r} and the end")
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        try:
            status, size = int(first.split()[1]), int(headers.get("content-length", 0))
        except (IndexError, ValueError):
            raise Mismatch(f"no HTTP answer: {first!r}") from None
        while len(self._buffer) < size and (data := await self._more()):
            self._buffer += data
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        try:
            return status, headers, json.loads(body) if body else None
        except ValueError:
            return status, headers, body.decode("latin-1")

    async def _more(self) -> bytes:
        try:
            data = bytes(await self.stream.receive_some(_RECEIVE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            await self.hang_up()
        return data

    def _cut(self) -> tuple[bool, int, bytes] | None:
        """Cut the next frame off what came: whether it is the last, its opcode, its payload."""
        data = self._buffer
        if len(data) < 2:
            return None
        opcode, size, at = data[0] & 0x0F, data[1], 2
        if size & 0x80 or data[0] & 0x70 or opcode not in _OPCODES:
            raise Mismatch(f"a frame against RFC 6455: it begins with {data[:2].hex()}")
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return None
        self._buffer = data[at + size :]
        return bool(data[0] & 0x80), opcode, data[at : at + size]

    def _join(self, fin: bool, opcode: int, payload: bytes) -> tuple[int, bytes] | None:
        """Return what a frame completes, if it does."""
        if opcode & 0x8:
            if not fin or len(payload) > 125:
                raise Mismatch("a control frame that is in fragments, or longer than 125 bytes")
            return opcode, payload
        if (opcode == CONTINUATION) != bool(self._kind):
            raise Mismatch("fragments out of order")
        self._kind = self._kind or opcode
        self._parts.append(payload)
        if not fin:
            return None
        message = self._kind, b"".join(self._parts)
        self._kind, self._parts = CONTINUATION, []
        return message
