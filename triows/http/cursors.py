"""Cursors as text, `<epoch>:<offset>`: the same in addresses, in ETags and in event streams."""

from __future__ import annotations

import re
from typing import Any, Final

from triows.codec import decode
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.logs import Log
from triows.messages import Position
from triows.requests import Since, SubscribeData

_CURSOR: Final = re.compile(r"([0-9a-f]{1,64}):([0-9]{1,18})", re.ASCII)


def write_cursor(log: Log, offset: int) -> str:
    """Return the cursor of somebody who has seen everything up to `offset`."""
    return f"{log.epoch}:{offset}"


def read_cursor(text: str) -> Since:
    """Return the position a cursor names.

    Raises:
        RequestError: `bad_cursor`, with what was expected.
    """
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise RequestError(
            ErrorCode.BAD_CURSOR,
            f"{text[:80]!r} is not a cursor: expected '<epoch>:<offset>', as in the `cursor` of a "
            "page or the `id` of an event",
        )
    return Since(found[1], int(found[2]))


def read_position(text: str) -> Position:
    """Return what `read_cursor` does, as a position."""
    since = read_cursor(text)
    return Position(since.epoch, since.offset)


def start(
    log: Log, since: str | None, tail: int | None = None
) -> tuple[int, dict[str, Any] | None]:
    """Return the offset after which to begin in `log`, and the gap to tell first, if any.

    Raises:
        RequestError: `bad_cursor`, or `bad_position` for one past the head of the log.
    """
    wanted = SubscribeData(since=None if since is None else read_cursor(since), tail=tail)
    wanted.check()
    cursor, frame = wanted.start(log)
    return cursor, None if frame is None else read_gap(frame)


def read_gap(frame: bytes) -> dict[str, Any]:
    """Return what the frame of a gap says."""
    gap: dict[str, Any] = decode(frame_payload(frame)).data
    return gap
