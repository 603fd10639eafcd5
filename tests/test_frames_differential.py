"""Our frames against those of wsproto and of websockets: what one takes all take, but for the
differences named here.
"""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from websockets.protocol import SERVER
from websockets.protocol import Protocol as WebsocketsProtocol
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from triows.frames import BINARY, CONTROL, TEXT, FrameReader, is_close, mask
from triows.wire import PeerError, _check_close

CONTINUATION, CLOSE, PING = 0x0, 0x8, 0x9
LARGE = 1 << 20


class Verdict(NamedTuple):
    """What a reader makes of a stream.

    Attributes:
        messages: opcode and payload of those that are whole.
        end: `open`: it would read on; `closed`: the peer said goodbye; `refused`: the stream
            breaks a rule, now or as soon as its last message is whole.
    """

    messages: list[tuple[int, bytes]]
    end: str


class Piece(NamedTuple):
    """One frame, sound or not: `form` is 126 or 127 for a length in that longer form."""

    opcode: int = TEXT
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    form: int = 0

    def encode(self) -> bytes:
        """Return its bytes."""
        size = len(self.payload)
        form = self.form or (0 if size < 126 else 126 if size < 65536 else 127)
        first = bytes(((0x80 if self.fin else 0) | self.rsv << 4 | self.opcode,))
        head = first + bytes(((form or size) | (0x80 if self.masked else 0),))
        head += size.to_bytes({126: 2, 127: 8}[form], "big") if form else b""
        key = b"\x0a\x80\xff\x31"
        return head + (key + mask(self.payload, key) if self.masked else self.payload)


def _is_bad(text: bytes) -> bool:
    """Whether no more bytes could make this the beginning of UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return True
    return False


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ours(data: bytes) -> Verdict:
    """Read as `Wire` does."""
    reader, messages = FrameReader(LARGE, 1000), list[tuple[int, bytes]]()
    for at in range(len(data)):
        for kind, payload in reader.feed(data[at : at + 1]):
            if kind == CONTROL and is_close(payload):
                try:
                    _check_close(payload)
                except PeerError:
                    return Verdict(messages, "refused")
                return Verdict(messages, "closed")
            if kind == TEXT and not _is_text(payload):
                return Verdict(messages, "refused")
            if kind != CONTROL:
                messages.append((kind, payload))
    begun = b"".join(reader._fragments or ())
    bad = reader._kind == TEXT and reader._fragments is not None and _is_bad(begun)
    return Verdict(messages, "refused" if reader.close or bad else "open")


def _wsproto(data: bytes) -> Verdict:
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(data)
    messages, parts, kind = list[tuple[int, bytes]](), b"", 0
    try:
        for frame in protocol.received_frames():
            if frame.opcode is Opcode.CLOSE:
                return Verdict(messages, "closed")
            if frame.opcode.iscontrol():
                continue
            kind = int(frame.opcode) or kind
            payload = frame.payload
            assert isinstance(payload, str | bytes | bytearray)
            parts += payload.encode() if isinstance(payload, str) else bytes(payload)
            if frame.message_finished:
                messages.append((kind, parts))
                parts = b""
    except ParseFailed:
        return Verdict(messages, "refused")
    return Verdict(messages, "open")


def _websockets(data: bytes) -> Verdict:
    """Read, and put together what it leaves in fragments, whose UTF-8 it leaves to others, too."""
    protocol = WebsocketsProtocol(SERVER, max_size=LARGE)
    protocol.receive_data(data)
    messages, parts, kind = list[tuple[int, bytes]](), b"", 0
    for frame in protocol.events_received():
        if int(frame.opcode) == CLOSE:  # type: ignore[union-attr]
            return Verdict(messages, "closed")
        if int(frame.opcode) >= CLOSE:  # type: ignore[union-attr]
            continue
        kind = int(frame.opcode) or kind  # type: ignore[union-attr]
        parts += bytes(frame.data)  # type: ignore[union-attr]
        if kind == TEXT and (_is_bad(parts) or (frame.fin and not _is_text(parts))):  # type: ignore[union-attr]
            return Verdict(messages, "refused")
        if frame.fin:  # type: ignore[union-attr]
            messages.append((kind, parts))
            parts = b""
    return Verdict(messages, "refused" if protocol.parser_exc else "open")


def _piece(**fields: Any) -> Piece:
    """Hypothesis would make up the fields of a class that are not named."""
    return Piece(**fields)


READERS = {"ours": _ours, "wsproto": _wsproto, "websockets": _websockets}
_TEXTS = st.sampled_from((b"", b"a", "é→🎉".encode(), b"x" * 130)) | st.text(max_size=9).map(
    str.encode
)
_CODES = st.sampled_from(
    (1000, 1001, 1007, 1011, 3000, 4999, 999, 1004, 1005, 1006, 1015, 2999, 5000)
)
_CONTROL = st.builds(_piece, opcode=st.sampled_from((PING, 0xA)), payload=st.binary(max_size=125))
_CLOSES = st.builds(
    lambda code, reason: Piece(CLOSE, code.to_bytes(2, "big") + reason), _CODES, _TEXTS
) | st.sampled_from((Piece(CLOSE), Piece(CLOSE, b"\x03"), Piece(CLOSE, b"\x03\xe8\xff")))
_BROKEN = st.one_of(
    st.builds(_piece, opcode=st.integers(0, 15), payload=st.binary(max_size=9), fin=st.booleans()),
    st.builds(_piece, rsv=st.integers(1, 7), payload=_TEXTS),
    st.builds(_piece, masked=st.just(False), payload=_TEXTS),
    st.builds(_piece, opcode=st.just(PING), payload=st.just(b"x" * 126)),
    st.builds(
        _piece, payload=st.sampled_from((b"\xff", b"\xed\xa0\x80", b"\xc3", b"a\xf4\x90\x80\x80"))
    ),
    _CLOSES,
)


@st.composite
def _streams(draw: st.DrawFn) -> list[Piece]:
    """Whole messages cut anywhere, control frames between, and now and then something broken."""
    pieces: list[Piece] = []
    for _ in range(draw(st.integers(1, 5))):
        opcode = draw(st.sampled_from((TEXT, BINARY)))
        payload = draw(_TEXTS)
        at = draw(st.integers(0, len(payload)))
        if draw(st.booleans()):
            pieces.append(Piece(opcode, payload))
            continue
        pieces.append(Piece(opcode, payload[:at], fin=False))
        pieces += draw(st.lists(_CONTROL, max_size=2))
        pieces.append(Piece(CONTINUATION, payload[at:]))
    for piece in draw(st.lists(_BROKEN, max_size=1)):
        pieces.insert(draw(st.integers(0, len(pieces))), piece)
    return pieces


def _closes_inside(pieces: list[Piece]) -> bool:
    """Whether a close frame comes before the first message in fragments is whole."""
    begun = False
    for piece in pieces:
        if piece.opcode == CLOSE:
            return begun
        if piece.opcode < CLOSE:
            begun = not piece.fin
    return False


@settings(max_examples=400)
@given(_streams())
def test_all_three_agree(pieces: list[Piece]) -> None:
    """Messages and verdict are the same, of sound streams and of broken ones."""
    data = b"".join(piece.encode() for piece in pieces)
    verdict = _ours(data)
    event(verdict.end)
    assert _wsproto(data) == verdict
    if not _closes_inside(pieces):
        assert _websockets(data) == verdict


@settings(max_examples=200)
@given(_streams(), st.data())
def test_all_three_agree_on_half_a_stream(pieces: list[Piece], data: st.DataObject) -> None:
    """Cut off anywhere, none has a message that another has not."""
    stream = b"".join(piece.encode() for piece in pieces)
    half = stream[: data.draw(st.integers(0, len(stream)))]
    assert _ours(half).messages == _wsproto(half).messages
    if not _closes_inside(pieces):
        assert _ours(half).messages == _websockets(half).messages


def test_close_codes() -> None:
    """All agree on every code but 1014, which wsproto does not know."""
    odd = set()
    for code in (*range(5100), 32768, 65535):
        data = Piece(CLOSE, code.to_bytes(2, "big")).encode()
        ends = {name: read(data).end for name, read in READERS.items()}
        if len(set(ends.values())) > 1:
            odd.add((code, *ends.values()))
    assert odd == {(1014, "refused", "refused", "closed")}


@pytest.mark.parametrize(
    ("why", "pieces", "ours", "wsproto", "websockets"),
    [
        (
            "websockets takes a length that is longer than need be (section 5.2 forbids it)",
            [Piece(TEXT, b"a", form=126)], "refused", "refused", "open",
        ),
        (
            "the same, in eight bytes",
            [Piece(TEXT, b"a", form=127)], "refused", "refused", "open",
        ),
        (
            "websockets takes no close inside a message in fragments (section 5.4 allows it)",
            [Piece(TEXT, b"a", fin=False), Piece(CLOSE)], "closed", "closed", "refused",
        ),
    ],
)  # fmt: skip
def test_differences(
    why: str, pieces: list[Piece], ours: str, wsproto: str, websockets: str
) -> None:
    """Where the three differ we do as the standard says; when they agree this test says so."""
    data = b"".join(piece.encode() for piece in pieces)
    ends = [read(data).end for read in READERS.values()]
    assert ends == [ours, wsproto, websockets], why


def test_wsproto_refuses_text_earlier() -> None:
    """Text in fragments: wsproto refuses the bad one at once, ours the message at its end."""
    begun = Piece(TEXT, b"\xff", fin=False).encode()
    reader = FrameReader(LARGE, 9)
    assert reader.feed(begun) == []
    assert reader.close is None
    assert _wsproto(begun).end == "refused"
    assert _ours(begun + Piece(CONTINUATION, b"a").encode()).end == "refused"
