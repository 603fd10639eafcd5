"""WebSocket frames by hand (RFC 6455 section 5.2), as few kinds as the benchmarks need."""

from __future__ import annotations

MASK = b"\x5a\xc3\x17\x8e"
"""One mask for all: the server's work does not depend on its value."""

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA


def mask(payload: bytes) -> bytes:
    """Return `payload` masked; pieces whose length is a multiple of 4 may be masked apart."""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return masked.to_bytes(len(payload), "big")


def client_header(length: int, opcode: int = TEXT) -> bytes:
    """Return the header of a masked frame, the mask included."""
    return _header(length, opcode, 0x80) + MASK


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole masked frame."""
    return client_header(len(payload), opcode) + mask(payload)


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole frame without a mask."""
    return _header(len(payload), opcode, 0) + payload


def _header(length: int, opcode: int, masked: int) -> bytes:
    if length < 126:
        return bytes((0x80 | opcode, masked | length))
    return bytes((0x80 | opcode, masked | 126)) + length.to_bytes(2, "big")


def split_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Cut one frame of a server off; return opcode, payload and the rest, None if it is torn."""
    if len(data) < 2:
        return None
    length, start = data[1], 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        return None
    return data[0] & 0x0F, data[start : start + length], data[start + length :]
