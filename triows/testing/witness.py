"""Reads along on a connection, and checks what the server says against docs/protocol.md.

A client drops what comes twice and asks again for what is missing: what it is told has to be
looked at before.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

import msgspec

from triows.frames import mask
from triows.testing.ledger import Blame, Cursor, Ledger

_TEXT: Final = 1
_CLOSE: Final = 8
_LATE: Final = 0.001  # seconds: the same moment by two clocks
_ANSWERS: Final = frozenset({"ack", "error", "auth", "pong"})
_PUBLISHED: Final = frozenset({"log", "status", "event", "command", "end"})


class Said(msgspec.Struct):
    """One message, either way."""

    type: str
    id: str | None = None
    channel: str | None = None
    offset: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"")

    @property
    def value(self) -> Any:
        """`data`, decoded."""
        return msgspec.json.decode(self.data) if self.data else {}


_decode: Final = msgspec.json.Decoder(Said).decode


@final
class Frames:
    """Cuts WebSocket frames, masked or not, out of bytes that pass by; the head comes first."""

    def __init__(self) -> None:
        self.head: bytes | None = None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that are whole now: opcode and payload."""
        self._buffer += data
        if self.head is None:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return []
            self.head, self._buffer = bytes(head), rest
        frames: list[tuple[int, bytes]] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        key = b""
        if buffer[1] & 0x80:
            key, start = bytes(buffer[start : start + 4]), start + 4
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        if key:
            payload = mask(payload, key)
        opcode = buffer[0] & 0x0F
        del buffer[: start + size]
        return opcode, payload


@final
class Witness:
    """What was said over one connection.

    Args:
        name: whose it is.
        ledger: what is true.
        blame: told what is wrong.
        on_ack: told of a message that was acknowledged: its channel, epoch, offset and id.

    Attributes:
        note: told of each message of the server.
        muted: whether nothing may be delivered any more.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        blame: Blame,
        on_ack: Callable[[str, str, int, str], None],
    ) -> None:
        self.name = name
        self.note: Callable[[Said], None] = lambda said: None
        self.muted = False
        self._ledger = ledger
        self._blame = blame
        self._on_ack = on_ack
        self._up, self._down = Frames(), Frames()
        self._asked: deque[Said] = deque()
        self._cursors: dict[str, Cursor] = {}
        self._closed = False
        self._expires_at = math.inf  # seconds since 1970

    def up(self, data: bytes) -> None:
        """Take what the client sends."""
        for opcode, payload in self._up.feed(data):
            if opcode == _TEXT:
                said = _decode(payload)
                if said.id is not None:
                    self._asked.append(said)

    def down(self, data: bytes) -> None:
        """Take what the server sends."""
        frames = self._down.feed(data)
        if self._down.head is not None and b" 101 " not in self._down.head[:16]:
            return
        for opcode, payload in frames:
            if self._closed:
                self._wrong(f"a frame of kind {opcode} after a close frame")
            if opcode == _TEXT:
                said = _decode(payload)
                self.note(said)
                self._take(said)
            self._closed = self._closed or opcode == _CLOSE

    def _wrong(self, what: str) -> None:
        self._blame(f"on a connection of {self.name}: {what}")

    def _take(self, said: Said) -> None:
        if said.type == "auth":
            self._expires_at = said.value["expires_at"]
        if said.type in _ANSWERS and said.id is not None:
            self._answered(said)
        elif said.type == "gap":
            self._gap(said)
        elif said.type == "error" and said.channel is not None:
            self._cursors.pop(said.channel, None)
        elif said.type in _PUBLISHED:
            self._message(said)

    def _answered(self, said: Said) -> None:
        if not self._asked:
            self._wrong(f"an answer to nothing: {said.type} {said.value}")
            return
        asked = self._asked.popleft()
        if asked.id != said.id:
            self._wrong(f"{said.type} answers not {asked.type} on {asked.channel}, the oldest")
        elif said.type == "ack" and asked.type == "subscribe":
            self._subscribed(asked, said.value)
        elif said.type == "ack" and asked.type == "unsubscribe":
            self._cursors.pop(asked.channel or "", None)
        elif said.type == "ack" and asked.type in _PUBLISHED:
            at = said.value
            self._ledger.ack(asked.channel or "", at["epoch"], at["offset"], asked.id or "")
            self._on_ack(asked.channel or "", at["epoch"], at["offset"], asked.id or "")

    def _subscribed(self, asked: Said, log: dict[str, Any]) -> None:
        """Work out where the subscription begins."""
        channel, wanted = asked.channel or "", asked.value
        cursor = Cursor(self.name, channel, self._ledger, self._wrong, log["epoch"], log["offset"])
        if "since" in wanted:
            cursor.epoch, cursor.offset = wanted["since"]["epoch"], wanted["since"]["offset"]
        elif "tail" in wanted:
            cursor.offset = max(log["earliest"] - 1, log["offset"] - wanted["tail"])
        elif "from" in wanted:
            cursor.offset = 0
        self._cursors[channel] = cursor

    def _gap(self, said: Said) -> None:
        cursor = self._cursors.get(said.channel or "")
        if cursor is None:
            self._wrong(f"a gap on {said.channel}, which is not watched")
            return
        gap = said.value
        cursor.gap(gap["epoch"], gap["from"], gap["to"], gap["count"], gap["reason"])

    def _message(self, said: Said) -> None:
        cursor = self._cursors.get(said.channel or "")
        what = f"offset {said.offset} of {said.channel}"
        if self.muted:
            self._wrong(f"{what}, to somebody whose token was revoked")
        if time.time() > self._expires_at + _LATE:
            self._wrong(f"{what}, to somebody whose token has expired")
        if cursor is None:
            self._wrong(f"{what}, which is not watched")
            return
        cursor.message(said.offset or 0, said.id, said.type, bytes(said.data))
