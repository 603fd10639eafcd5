"""Data frames of RFC 6455, sans-I/O: bytes in, messages out, every accumulation bounded.

Control frames are passed through as they came: the wire sees to those. Errors of
framing are ours: trio-websocket drops the connection for them without a close frame, so that
the peer could not know that it is to blame.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from triows.errors import Close, CloseCode

TEXT: Final = 0x1
BINARY: Final = 0x2
CONTROL: Final = 0x8
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_MASKED: Final = 0x80
_SMALL: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LARGE: Final = struct.Struct("!BBQ").pack
_UNSOUND: Final = -1
_PLAIN: Final = 0x81  # a text message in one frame


Frame: TypeAlias = tuple[int, bytes]
"""What came in: TEXT or BINARY and a whole message, or CONTROL and a control frame as it came."""


def is_close(control: bytes) -> bool:
    """Whether a control frame is a close frame."""
    return control[0] == _FIN | CLOSE


def read_control(control: bytes) -> tuple[int, bytes]:
    """Return opcode and payload of a control frame as it came."""
    return control[0] & 0x0F, mask(control[6:], control[2:6])


def encode_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return `payload` as one unmasked frame, as a server sends it (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return _SMALL(_FIN | opcode, size) + payload
    if size < 65536:
        return _MEDIUM(_FIN | opcode, 126, size) + payload
    return _LARGE(_FIN | opcode, 127, size) + payload


def encode_close(code: int) -> bytes:
    """Return a close frame without a reason."""
    return encode_frame(code.to_bytes(2, "big"), opcode=CLOSE)


def frame_payload(frame: bytes) -> bytes:
    """Return the payload of one frame made by `encode_frame`."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def mask_in_python(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask `payload` with the four bytes of `key` (RFC 6455 section 5.3).

    One XOR of two long integers: some 100 times faster than a loop over bytes.
    """
    size = len(payload)
    pad = (key * ((size + 3) >> 2))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")
    return masked.to_bytes(size, "little")


mask: Callable[[bytes, bytes], bytes] = mask_in_python
try:
    # In C, and 8 times faster still: a tenth of what publishing a message costs.
    from websockets.speedups import apply_mask
except ImportError:
    pass  # only the extra `server` asks for it
else:
    mask = apply_mask


class FrameReader:
    """Cuts the bytes of one peer into messages.

    Args:
        max_message: bytes of one message, fragments together.
        max_fragments: frames of one message; empty ones count too.

    Attributes:
        close: None while all is well; else which close the peer has earned. It is set after
            the frames returned by the same `feed`, and nothing is read from then on.
    """

    __slots__ = (
        "_fragments",
        "_kind",
        "_max_fragments",
        "_max_message",
        "_need",
        "_rest",
        "_size",
        "close",
    )

    def __init__(self, max_message: int, max_fragments: int) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._rest: bytes | bytearray = b""
        self._need = 2  # nothing can be cut off before this many bytes are here
        self._fragments: list[bytes] | None = None
        self._size = 0  # bytes of the fragments so far
        self._kind = 0
        self.close: Close | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return what they complete, in order."""
        if self.close is not None:
            return []
        if self._rest:
            # A growing bytearray: a frame that comes byte by byte costs linear time.
            if type(self._rest) is bytes:
                self._rest = bytearray(self._rest)
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
        out: list[Frame] = []
        at = self._cut_plain(data, out)
        stop = at
        while self.close is None and (stop := self._frame_end(data, at)) <= len(data):
            if stop == _UNSOUND:
                self.close = Close(CloseCode.PROTOCOL_ERROR, "a frame against RFC 6455")
            elif data[at] & CONTROL:
                out.append((CONTROL, data[at:stop]))
            else:
                self._take(data[at], _payload(data, at, stop), out)
            at = stop
        self._rest = b"" if self.close is not None else data[at:]
        self._need = stop - at
        return out

    def _cut_plain(self, data: bytes, out: list[Frame]) -> int:
        """Cut off the whole, small text messages that `data` begins with; return where they end.

        What nearly all messages are, in one loop: 3 times faster than the general way below.
        """
        at, end = 0, len(data)
        if self._fragments is not None:
            return at
        while end - at >= 6 and data[at] == _PLAIN and data[at + 1] & _MASKED:
            size, body = data[at + 1] & 0x7F, at + 6
            if size == 126 and end - at >= 8:
                size, body = data[at + 2] << 8 | data[at + 3], at + 8
                if size < 126:
                    break
            elif size > 125:
                break
            stop = body + size
            if stop > end or size > self._max_message:
                break
            out.append((TEXT, mask(data[body:stop], data[body - 4 : body])))
            at = stop
        return at

    def _frame_end(self, data: bytes, at: int) -> int:
        """Return where the frame that begins at `at` ends, as far as its head is here.

        `_UNSOUND` for a frame against the rules. One that would pass the limit sets `close`:
        not a byte of it is waited for.
        """
        if len(data) - at < 2:
            return at + 2
        first, size = data[at], data[at + 1] & 0x7F
        if not _is_sound(first, data[at + 1]):
            return _UNSOUND
        if size < 126:
            return at + 6 + size
        body = at + (4 if size == 126 else 10)
        if len(data) < body:
            return body
        least = 126 if size == 126 else 65536
        size = int.from_bytes(data[at + 2 : body], "big")
        if not least <= size < 1 << 63:  # the shortest form only (section 5.2)
            return _UNSOUND
        if self._size + size > self._max_message:
            if self._is_in_order(first):
                self._too_big(self._size + size)
            return len(data) + 1
        return body + 4 + size

    def _is_in_order(self, first: int) -> bool:
        """Whether a data frame may come here; sets `close` if not (section 5.4)."""
        if first & 0x0F and self._fragments is not None:
            reason = "a new message began inside a fragmented one"
        elif not first & 0x0F and self._fragments is None:
            reason = "a continuation without a start"
        else:
            return True
        self.close = Close(CloseCode.PROTOCOL_ERROR, reason)
        return False

    def _take(self, first: int, payload: bytes, out: list[Frame]) -> None:
        """Complete a message with one data frame, or begin or go on with one."""
        if not self._is_in_order(first):
            return
        if self._fragments is None:
            self._fragments, self._kind = [], first & 0x0F
        fragments = self._fragments
        fragments.append(payload)
        self._size += len(payload)
        if self._size > self._max_message or len(fragments) > self._max_fragments:
            self._too_big(self._size)
        elif first & _FIN:
            out.append((self._kind, b"".join(fragments)))
            self._fragments, self._size = None, 0

    def _too_big(self, size: int) -> None:
        self.close = Close(
            CloseCode.TOO_BIG,
            f"message of {size} bytes, after {len(self._fragments or ())} fragments; the limits "
            f"are {self._max_message} and {self._max_fragments}",
        )
        self._fragments = None  # give the memory back while the connection closes


def _is_sound(first: int, second: int) -> bool:
    """Whether a client may send a frame that begins with these bytes (RFC 6455 section 5.2)."""
    opcode = first & 0x0F
    if first & 0x70 or not second & _MASKED:
        return False
    if opcode & CONTROL:
        return opcode <= 0xA and bool(first & _FIN) and second & 0x7F < 126
    return opcode <= BINARY


def _payload(data: bytes, at: int, stop: int) -> bytes:
    """Return the payload of the whole frame at data[at:stop], unmasked."""
    size = data[at + 1] & 0x7F
    body = at + (6 if size < 126 else 8 if size == 126 else 14)
    return mask(data[body:stop], data[body - 4 : body])
