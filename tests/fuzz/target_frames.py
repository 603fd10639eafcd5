"""Frames: cut in any way, a stream gives the same messages, or the same error."""

from __future__ import annotations

from tests.fuzz.pieces import splits
from triows.errors import Close
from triows.frames import CONTROL, Frame, FrameReader, encode_frame, frame_payload


def _read(
    pieces: list[bytes], max_message: int, fragments: int
) -> tuple[list[Frame], Close | None]:
    reader = FrameReader(max_message, fragments)
    found: list[Frame] = []
    for piece in pieces:
        found += reader.feed(piece)
        held = len(reader._rest) + sum(map(len, reader._fragments or ()))
        assert reader.close or held <= max_message + 14 + 125, f"{held} bytes are held"
    return found, reader.close


def run(data: bytes) -> str:
    """Read a stream whose first two bytes choose the limits."""
    if len(data) < 2:
        return "short"
    most, fragments = (16, 125, 126, 300, 66_000)[data[0] % 5], 1 + data[1] % 5
    stream = data[2:]
    results = [_read(pieces, most, fragments) for pieces in splits(stream)]
    assert all(result == results[0] for result in results), results
    found, close = results[0]
    for kind, payload in found:
        assert len(payload) <= (most if kind != CONTROL else 131)
        if kind != CONTROL:
            assert frame_payload(encode_frame(payload, kind)) == payload
    kinds = "".join(str(kind) for kind, _ in found[:2])
    large = any(len(payload) > 125 for _, payload in found)
    return f"{kinds} {large} {close.reason[:8] if close else None}"
