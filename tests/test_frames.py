"""Frames: the reader against wsproto, its limits, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from triows.errors import CloseCode
from triows.frames import (
    BINARY,
    CONTROL,
    TEXT,
    Frame,
    FrameReader,
    encode_frame,
    frame_payload,
    is_close,
    mask,
    mask_in_python,
)

KEY = b"\x11\x22\x33\x44"
MAX = 1000
FRAGMENTS = 8

Pieces = list[tuple[int, bool, bytes, bytes]]  # opcode, fin, payload, key
Parsed = list[tuple[int, bytes]]


def _frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, key: bytes = KEY, size: int = 0
) -> bytes:
    """One masked frame, as a client sends it; `size` is a lie about the payload's."""
    size = size or len(payload)
    head = bytes(((0x80 if fin else 0) | opcode,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    else:
        head += bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    return head + key + mask(payload, key)


def _reader() -> FrameReader:
    return FrameReader(MAX, FRAGMENTS)


def _close_code(reader: FrameReader) -> int | None:
    return None if reader.close is None else int(reader.close.code)


_control = st.tuples(
    st.sampled_from((0x9, 0xA)),
    st.just(True),
    st.binary(max_size=125),
    st.binary(min_size=4, max_size=4),
)


@st.composite
def _messages(draw: st.DrawFn) -> Pieces:
    """Frames of whole messages, cut into fragments, control frames between any two."""
    pieces: Pieces = []
    for _ in range(draw(st.integers(1, 4))):
        opcode = draw(st.sampled_from((TEXT, BINARY)))
        size = draw(st.sampled_from((0, 1, 5, 125, 126, 300, 65535, 65536)))
        text = draw(st.text(min_size=1, max_size=8)).encode()
        payload = text * (size // len(text))
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        edges = [0, *cuts, len(payload)]
        for i, (start, stop) in enumerate(pairwise(edges)):
            pieces += draw(st.lists(_control, max_size=1))
            key = draw(st.binary(min_size=4, max_size=4))
            fin = i == len(edges) - 2
            pieces.append((0 if i else opcode, fin, payload[start:stop], key))
    return pieces


def _parse_with_wsproto(data: bytes, *, client: bool = False) -> Parsed:
    protocol = FrameProtocol(client=client, extensions=[])
    protocol.receive_bytes(data)
    out: Parsed = []
    payload, kind = b"", 0
    for frame in protocol.received_frames():
        assert isinstance(frame.payload, str | bytes | bytearray)
        part = frame.payload.encode() if isinstance(frame.payload, str) else bytes(frame.payload)
        if frame.opcode.iscontrol():
            out.append((int(frame.opcode), part))
            continue
        kind = kind or int(frame.opcode)
        payload += part
        if frame.message_finished:
            out.append((kind, payload))
            payload, kind = b"", 0
    return out


def _plain(frames: list[Frame]) -> Parsed:
    return [
        (payload[0] & 0x0F, mask(payload[6:], payload[2:6])) if kind == CONTROL else (kind, payload)
        for kind, payload in frames
    ]


@given(_messages(), st.lists(st.integers(0, 1 << 18), max_size=30))
def test_reader_agrees_with_wsproto(pieces: Pieces, cuts: list[int]) -> None:
    """However a stream is cut, the same messages come out in the same order as from wsproto."""
    data = b"".join(_frame(payload, op, fin=fin, key=key) for op, fin, payload, key in pieces)
    reader = FrameReader(1 << 20, 64)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    frames: list[Frame] = []
    for start, stop in pairwise(edges):
        frames += reader.feed(data[start:stop])
    assert reader.close is None
    assert _plain(frames) == _parse_with_wsproto(data)


@given(_messages())
def test_reader_completes_each_message_at_its_last_byte(pieces: Pieces) -> None:
    """Nothing that is whole waits for the bytes behind it."""
    reader = FrameReader(1 << 20, 64)
    for opcode, fin, payload, key in pieces:
        data = _frame(payload, opcode, fin=fin, key=key)
        assert reader.feed(data[:-1]) == []
        assert len(reader.feed(data[-1:])) == (1 if fin else 0)
    assert reader.close is None


def test_reader_takes_a_large_message_byte_by_byte() -> None:
    """A message of 256 KiB that comes in single bytes is read whole."""
    payload = bytes(range(256)) * 1024
    reader = FrameReader(len(payload), 1)
    frames = [frame for byte in _frame(payload, BINARY) for frame in reader.feed(bytes((byte,)))]
    assert frames == [(BINARY, payload)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_encode_frame_is_read_by_a_client(size: int, opcode: Opcode) -> None:
    """What we frame, wsproto as a client reads back, and so does `frame_payload`."""
    payload = b"x" * size
    frame = encode_frame(payload, int(opcode))
    assert _parse_with_wsproto(frame, client=True) == [(int(opcode), payload)]
    assert frame_payload(frame) == payload


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_mask_is_the_xor_of_each_byte(payload: bytes, key: bytes) -> None:
    """Masking is byte i XOR key byte i mod 4, and its own inverse; in C and in Python."""
    masked = mask(payload, key)
    assert masked == bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    assert mask(masked, key) == payload
    assert mask_in_python(payload, key) == masked


def test_mask_is_in_c_where_the_extra_is_installed() -> None:
    """The tests run with what the extra `server` brings: the fast one."""
    assert mask is not mask_in_python


def test_is_close_tells_a_close_frame_from_others() -> None:
    """Only a control frame with opcode 8 is the peer's close."""
    frames = _reader().feed(_frame(b"", 0x9) + _frame(b"\x03\xe8", 0x8) + _frame(b"\x88"))
    assert [kind == CONTROL and is_close(payload) for kind, payload in frames] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("sizes", [(MAX,), (MAX - 1, 1), (0, 500, 500), (900, 0, 100)])
def test_limit_passes_a_message_of_exactly_max(sizes: tuple[int, ...]) -> None:
    """A message that fills the limit passes, whole or in fragments, one after the other."""
    reader = _reader()
    data = b"".join(
        _frame(b"x" * size, 0 if i else TEXT, fin=i == len(sizes) - 1)
        for i, size in enumerate(sizes)
    )
    assert reader.feed(data * 3) == [(TEXT, b"x" * MAX)] * 3
    assert reader.close is None


@pytest.mark.parametrize("sizes", [(MAX + 1,), (MAX, 1), (500, 500, 1), (1, MAX), (900, 0, 101)])
def test_limit_closes_one_byte_above_max(sizes: tuple[int, ...]) -> None:
    """One byte more than the limit closes with 1009, whole or in fragments."""
    reader = _reader()
    for i, size in enumerate(sizes):
        fin = i == len(sizes) - 1
        assert reader.feed(_frame(b"x" * size, 0 if i else TEXT, fin=fin)) == []
    assert _close_code(reader) == CloseCode.TOO_BIG


@pytest.mark.parametrize("size", [MAX + 1, 65536, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("began", [0, 10])
def test_limit_closes_at_the_head_of_a_large_frame(size: int, began: int) -> None:
    """Not a byte of a frame that cannot fit is waited for, wherever its head is cut."""
    reader = _reader()
    if began:
        reader.feed(_frame(b"x" * began, fin=False))
    head = _frame(b"", 0 if began else TEXT, size=size)[:-4]
    for byte in head[:-1]:
        assert reader.feed(bytes((byte,))) == []
        assert reader.close is None
    assert reader.feed(head[-1:]) == []
    assert _close_code(reader) == CloseCode.TOO_BIG


def test_limit_applies_to_a_small_message() -> None:
    """Frames with a one-byte length are held to the limit, too."""
    reader = FrameReader(10, 1)
    assert reader.feed(_frame(b"x" * 10)) == [(TEXT, b"x" * 10)]
    assert reader.feed(_frame(b"x" * 11)) == []
    assert _close_code(reader) == CloseCode.TOO_BIG


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_fragments_are_counted(payload: bytes) -> None:
    """As many frames of one message as allowed pass, empty or not; one more closes with 1009."""
    begin = _frame(payload, fin=False)
    more = _frame(payload, 0, fin=False)
    passes = begin + more * (FRAGMENTS - 2) + _frame(payload, 0)
    reader = _reader()
    assert reader.feed(passes * 2) == [(TEXT, payload * FRAGMENTS)] * 2
    assert reader.feed(begin + more * (FRAGMENTS - 1)) == []
    assert reader.close is None
    assert reader.feed(_frame(payload, 0)) == []
    assert _close_code(reader) == CloseCode.TOO_BIG


@pytest.mark.parametrize(
    "data",
    [
        _frame(b"x", 0),
        _frame(b"x", 0, fin=False),
        _frame(b"x", TEXT, fin=False) + _frame(b"y", TEXT),
        _frame(b"x", TEXT, fin=False) + _frame(b"y", BINARY, fin=False),
        _frame(b"x", TEXT, fin=False) + _frame(b"", 0) + _frame(b"y", 0),
    ],
    ids=["continuation", "open continuation", "whole inside", "start inside", "after the end"],
)
def test_fragmentation_errors_close_with_1002(data: bytes) -> None:
    """A continuation of nothing, or a message inside another, is a protocol error."""
    reader = _reader()
    reader.feed(data)
    assert _close_code(reader) == CloseCode.PROTOCOL_ERROR


def test_close_comes_after_what_was_whole() -> None:
    """Messages before the broken one are returned, and nothing is read after it."""
    reader = _reader()
    data = _frame(b"a") + _frame(b"p", 0x9) + _frame(b"x", 0) + _frame(b"b")
    assert reader.feed(data) == [(TEXT, b"a"), (CONTROL, _frame(b"p", 0x9))]
    assert _close_code(reader) == CloseCode.PROTOCOL_ERROR
    assert reader.feed(_frame(b"c")) == []


@pytest.mark.parametrize(
    "broken",
    [
        *(bytes((0x81 | bit, 0x81)) for bit in (0x40, 0x20, 0x10)),
        *(bytes((0x80 | opcode, 0x81)) for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)),
        b"\x81\x01",
        b"\x89\x00",
        b"\x81\x7e",
        b"\x09\x80",
        b"\x08\x80",
        b"\x89\xfe",
        b"\x88\xff",
    ],
    ids=lambda broken: broken.hex(),
)
def test_broken_frame_ends_the_reading(broken: bytes) -> None:
    """Reserved bits, unknown opcodes, no mask, bad control frames: 1002, and nothing is read
    after them; what came before is.
    """
    rest = broken + KEY + b"what follows" + _frame(b"unread")
    for cut in (0, 1):
        reader = _reader()
        frames = reader.feed(_frame(b"a") + rest[:cut]) + reader.feed(rest[cut:])
        assert frames == [(TEXT, b"a")]
        assert reader.close is not None
        assert reader.close.code == CloseCode.PROTOCOL_ERROR
        assert reader.feed(_frame(b"unread")) == []


def _held(reader: FrameReader) -> int:
    return len(reader._rest) + sum(map(len, reader._fragments or ()))


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_never_raises(chunks: list[bytes]) -> None:
    """Any bytes are read without an exception, and bounded memory is held."""
    reader = FrameReader(256, 4)
    for chunk in chunks:
        reader.feed(chunk)
        assert _held(reader) <= 256 + 14 + 125 + (len(chunk) if reader.close else 0)


_head = st.tuples(st.sampled_from((0, 1, 2, 0x80, 0x81, 0x82, 0x89)), st.integers(0, 300))


@given(st.lists(_head, max_size=30), st.integers(1, 400))
def test_any_frames_are_held_within_the_limits(heads: list[tuple[int, int]], step: int) -> None:
    """Sound frames in any order never make the reader hold more than one message's worth."""
    data = b"".join(
        _frame(b"x" * min(size, 125 if first & 8 else 300), first & 15, fin=first >= 0x80)
        for first, size in heads
    )
    reader = FrameReader(256, 4)
    for at in range(0, len(data), step):
        for kind, payload in reader.feed(data[at : at + step]):
            assert kind == CONTROL or len(payload) <= 256
        assert _held(reader) <= 256 + 14 + 125 + (step if reader.close else 0)


@pytest.mark.parametrize(
    "head",
    [
        b"\x81\xfe\x00\x05",
        b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05",
        b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x05",
    ],
)
def test_length_must_be_in_its_shortest_form(head: bytes) -> None:
    """A length longer than need be, or with its top bit set, breaks RFC 6455 section 5.2."""
    reader = FrameReader(1000, 10)
    assert reader.feed(head + b"\x00" * 9) == []
    assert reader.close is not None
    assert reader.close.code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [b"\x80", b"\x00"])
def test_order_is_judged_before_size(first: bytes) -> None:
    """A continuation without a start is a protocol error, however long it says it is."""
    reader = FrameReader(1000, 10)
    reader.feed(first + b"\xfe\xff\xff")
    assert reader.close is not None
    assert reader.close.code == CloseCode.PROTOCOL_ERROR
