"""The codec: `data` passes byte for byte, bad text is refused, and the clock never goes back."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triows.codec import (
    MAX_NESTING,
    Clock,
    clock,
    decode,
    decode_data,
    encode_error,
    encode_outcomes,
    encode_published,
    encode_push,
    encode_request,
    published_head,
)
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.messages import MAX_ID, Message, MessageType, Receipt
from triows.requests import AUTH, SUBSCRIBE

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
HEAD = published_head("session:1")

_space = st.text(" \t\r\n", max_size=3)
_escape = st.sampled_from(
    (r"\/", r"\u0041", r"\u00E9", r"\ud83d\ude00", r"\n", r"\"", r"\\", r"\u0000", "\x7f", "é😀")
)
_string = st.lists(_escape | st.sampled_from("abc {}[],:")).map(lambda parts: f'"{"".join(parts)}"')
_number = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
_atom = st.sampled_from(("null", "true", "false")) | _number | _string


def _padded(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(_space, text, _space).map("".join)


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = _padded(inner)
    member = st.tuples(_padded(_string), item).map(":".join)
    arrays = (_space | st.lists(item, max_size=4).map(",".join)).map(lambda text: f"[{text}]")
    objects = (_space | st.lists(member, max_size=4).map(",".join)).map(lambda text: f"{{{text}}}")
    return arrays | objects


_json_text = st.recursive(_atom, _containers, max_leaves=12)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _load(text: bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _published(message: Message, offset: int = 7) -> Any:
    return _load(frame_payload(encode_published(message, HEAD, offset, clock.now())))


def _refusal(payload: bytes) -> ErrorCode:
    with pytest.raises(RequestError) as caught:
        decode(payload)
    assert caught.value.message
    return caught.value.code


def _try_decode(payload: bytes) -> Message | None:
    """Return the message, or None if it is refused with one of the two codes for that."""
    try:
        return decode(payload)
    except RequestError as error:
        if error.code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST):
            raise
        return None


@given(_json_text, _space)
def test_data_passes_byte_for_byte(text: str, space: str) -> None:
    """From a publisher's frame to the viewers', `data` is the same bytes, and the whole is JSON."""
    data = text.encode()
    sent = b'{"x":0,"data"%b:%b%b%b,"type":"log"}' % ((space.encode(),) * 2 + (data, b"\n"))
    message = decode(sent)
    assert message.raw == data
    text_out = frame_payload(encode_published(message, HEAD, 1, clock.now()))
    assert text_out.endswith(b'"data":%b}' % data)
    published = _load(text_out)
    assert list(published) == ["type", "channel", "offset", "timestamp", "data"]
    assert published["data"] == _load(data)


@given(_json_text, st.data())
def test_decode_takes_nothing_but_json(text: str, data: st.DataObject) -> None:
    """A message with one character changed is refused, or is still JSON."""
    sent = f'{{"type":"log","data":{text},"more":{text}}}'
    at = data.draw(st.integers(0, len(sent) - 1))
    new = data.draw(st.sampled_from('"\\{}[],:0-.eEu \x00\x1fnN') | st.just(""))
    payload = (sent[:at] + new + sent[at + 1 :]).encode()
    message = _try_decode(payload)
    if message is not None:
        assert isinstance(_load(payload), dict)
        assert not message.raw or _load(message.raw) == _load(payload)["data"]


@given(st.text() | st.recursive(_atom, _containers))
def test_decode_raises_nothing_but_request_errors(text: str) -> None:
    """Any text is read, or refused with one of the two codes for it."""
    message = _try_decode(text.encode())
    assert message is None or isinstance(_load(text.encode()), dict)


def test_decode_reads_every_member() -> None:
    """All members of the envelope arrive, those not known are ignored."""
    message = decode(
        b'{"type":"log","id":"i","channel":"session:1","data":[1, 2],"timestamp":"t",'
        b'"offset":3,"other":{"type":"x"}}'
    )
    assert message == Message("log", b"[1, 2]", "session:1", "i", 3, "t")


@pytest.mark.parametrize("member", ["id", "channel", "timestamp", "offset"])
def test_decode_takes_null_as_absent(member: str) -> None:
    """An optional member that is null is as good as none."""
    assert decode(b'{"type":"ping","%b":null}' % member.encode()) == Message("ping")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"{",
        b'{"type":"log"',
        b'{"type":"log"} x',
        b'{"type":"log",}',
        b"{'type':'log'}",
        b'\xef\xbb\xbf{"type":"log"}',
        *(
            b'{"type":"log","data":%b}' % data
            for data in (b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b"")
        ),
        *(
            b'{"type":"log","%b":"%b"}' % (member, text)
            for member in (b"data", b"id", b"other")
            for text in (rb"\ud800", rb"\udc00\ud800", rb"\ud800\u0041", rb"\x", rb"\u12", b"\n")
        ),
        *(
            b'{"type":"log","%b":%b}' % (member, b"[" * deep + b"]" * deep)
            for member in (b"data", b"other")
            for deep in (MAX_NESTING, 10_000)
        ),
        b'{"type":"log","data":[%b]}' % (b'{"a":[' * 50 + b"]}" * 50),
        b'{"type":"log","data":[%b"]"%b]}' % (b"[" * 99, b"]" * 99),
        b'{"type":"log","other":%b}' % (b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ],
    ids=lambda payload: ascii(payload[:40]),
)
def test_decode_refuses_bad_json(payload: bytes) -> None:
    """What is not JSON is `bad_json`: also lone surrogates, NaN, and nesting without end."""
    assert _refusal(payload) == ErrorCode.BAD_JSON


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"null",
        b'"log"',
        b"[" * 10_000,
        b"{}",
        b'{"data":1}',
        *(b'{"type":%b}' % value for value in (b"null", b"1", b"[]", b"{}", b"true")),
        *(
            b'{"type":"log","%b":%b}' % (member, value)
            for member in (b"id", b"channel", b"timestamp")
            for value in (b"1", b"[]", b"{}", b"false", b"1e999")
        ),
        *(
            b'{"type":"log","offset":%b}' % value
            for value in (b'"1"', b"1.5", b"[]", b"true", b"9" * 5000)
        ),
        b'{"type":"log","id":"%b"}' % (b"x" * (MAX_ID + 1)),
    ],
    ids=lambda payload: ascii(payload[:40]),
)
def test_decode_refuses_wrong_types(payload: bytes) -> None:
    """JSON of another shape is `bad_request`."""
    assert _refusal(payload) == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 99 + b"]" * 99,
        b'{"a":[' * 49 + b"1" + b"]}" * 49,
        b"[%b[]]" % (b"[]," * 1000),
        b'"%b"' % (b"[{" * 1000),
        rb'"\"%b"' % (b"[" * 1000),
        rb'["%b\\",[]]' % (b"{" * 1000),
        b'{"%b":{}}' % (b"[" * 1000),
    ],
    ids=lambda data: ascii(data[:40]),
)
def test_decode_takes_what_is_not_too_deep(data: bytes) -> None:
    """As many levels as allowed pass, and brackets side by side or in strings are none."""
    assert decode(b'{"type":"log","data":%b}' % data).raw == data


@given(_json_text, st.integers(90, 110), st.booleans())
def test_nesting_is_counted_exactly(text: str, more: int, closed: bool) -> None:
    """What passes is what is nested at most so many levels, whatever stands in it."""

    def depth(value: Any) -> int:
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    def values(pairs: list[tuple[str, Any]]) -> list[Any]:
        return [value for _, value in pairs]  # of each key, however often it occurs

    beside = b"[]," * 120 if closed else b""
    nested = b"[" * more + beside + text.encode() + b"]" * more
    read = json.loads(text, object_pairs_hook=values)
    deepest = 1 + more + max(depth(read), int(closed))
    decoded = _try_decode(b'{"type":"log","data":%b}' % nested)
    assert (decoded is not None) == (deepest <= MAX_NESTING)


@pytest.mark.parametrize(
    "block",
    [b"[" * 97 + b"]" * 97, b'{"a":' * 97 + b"1" + b"}" * 97, rb'"\"\\["', b"[]"],
    ids=lambda block: ascii(block[:10]),
)
def test_decode_holds_nobody_up(block: bytes) -> None:
    """The largest message is read in a moment, whatever its brackets: all others wait."""
    data = b"[%b]" % b",".join([block] * (1_000_000 // len(block)))
    payload = b'{"type":"log","data":%b}' % data
    began = time.thread_time()
    for _ in range(3):
        _try_decode(payload)
    assert time.thread_time() - began < 3 * 0.4


def test_decode_counts_an_id_in_characters() -> None:
    """An id of as many characters as allowed passes, whatever its bytes."""
    id_ = "😀" * MAX_ID
    assert decode(json.dumps({"type": "log", "id": id_}).encode()).id == id_


@pytest.mark.parametrize(
    "raw", [b"[]", b"null", b'{"token":1}', b"{}", b'{"token":"' + b"[" * 5, b"[" * 10_000]
)
def test_decode_data_refuses_naming_the_request(raw: bytes) -> None:
    """A request whose `data` has the wrong shape is `bad_request` and says which it was."""
    with pytest.raises(RequestError, match=r"^`auth`: bad `data`") as caught:
        decode_data(Message("auth", raw), AUTH)
    assert caught.value.code == ErrorCode.BAD_REQUEST


def test_decode_data_takes_none_as_an_empty_object() -> None:
    """A request that needs no `data` may leave it out."""
    assert decode_data(Message("subscribe"), SUBSCRIBE).since is None


@given(st.text(max_size=20), st.none() | st.text(max_size=MAX_ID), st.integers(1, 2**63))
def test_published_has_the_members_promised(type_: str, id_: str | None, offset: int) -> None:
    """Type, channel, offset, time, and the id if it has one; `data` only if there was some."""
    published = _published(Message(type_, b"", "ignored:x", id_, 99, "ignored"), offset)
    assert STAMP.fullmatch(published.pop("timestamp"))
    expected = {"type": type_, "channel": "session:1", "offset": offset, "id": id_}
    assert published == {key: value for key, value in expected.items() if value is not None}


@given(_json_text, st.none() | st.text(max_size=MAX_ID))
def test_request_is_read_back(text: str, id_: str | None) -> None:
    """What a client encodes, the server decodes to the same message."""
    message = Message("log", text.encode(), "session:1", id_)
    assert decode(encode_request(message)) == message


@given(
    st.text(max_size=MAX_ID), st.from_regex(r"[a-z]{1,9}:[A-Za-z0-9._~/-]{1,20}", fullmatch=True)
)
def test_ack_names_the_place(id_: str, channel: str) -> None:
    """An `ack` of a published message holds its id, channel and position."""
    message = Message("log", b"1", channel, id_)
    (frame,) = encode_outcomes([message], [Receipt("e", 3)])
    ack = _load(frame_payload(frame))
    assert STAMP.fullmatch(ack.pop("timestamp"))
    data = {"epoch": "e", "offset": 3}
    assert ack == {"type": "ack", "id": id_, "channel": channel, "data": data}


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [({}, {}), ({"id": "i"}, {"id": "i"}), ({"channel": "a:b"}, {"channel": "a:b"})],
)
def test_push_names_what_is_known(kwargs: dict[str, str], named: dict[str, str]) -> None:
    """A push has type, data and time; id and channel only when they are given."""
    push = _load(frame_payload(encode_push(MessageType.PONG, [1], **kwargs)))
    assert STAMP.fullmatch(push.pop("timestamp"))
    assert push == {"type": "pong", "data": [1], **named}


@pytest.mark.parametrize(
    ("code", "retry_after", "retry"),
    [
        (ErrorCode.FORBIDDEN, None, False),
        (ErrorCode.RATE_LIMITED, 1.23456, True),
        (ErrorCode.UNAVAILABLE, 0.0, True),
    ],
)
def test_error_has_the_standard_form(
    code: ErrorCode, retry_after: float | None, retry: bool
) -> None:
    """An `error` has code, words and advice, and names the request that earned it."""
    error = RequestError(code, "why", retry_after=retry_after)
    answer = _load(frame_payload(encode_error(error, Message("log", b"1", "a:b", "i"))))
    data: dict[str, object] = {"code": str(code), "message": "why", "retry": retry}
    if retry_after is not None:
        data["retry_after"] = pytest.approx(retry_after, abs=0.001)
    assert (answer["type"], answer["id"], answer["channel"]) == ("error", "i", "a:b")
    assert answer["data"] == data
    assert set(_load(frame_payload(encode_error(error)))) == {"type", "data", "timestamp"}


def test_published_infinity_reaches_the_viewer() -> None:
    """A number too large for a float is passed on as it was written."""
    assert _published(Message("log", b"1e999"))["data"] == math.inf


@given(st.lists(st.integers(0, 4_000_000_000_000_000_000), min_size=1, max_size=20))
def test_clock_never_goes_back(times: list[int]) -> None:
    """Timestamps grow or stand still, whatever the system's clock does."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        stamps = []
        for nanoseconds in times:
            patch.setattr(time, "time_ns", lambda now=nanoseconds: now)
            stamps.append(clock.now().decode())
    assert all(STAMP.fullmatch(stamp) for stamp in stamps)
    assert stamps == sorted(stamps)


@pytest.mark.parametrize(
    ("nanoseconds", "stamp"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_400_000_001_999, "2000-02-29T00:00:00.000001Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999Z"),
    ],
)
def test_clock_writes_rfc_3339(
    nanoseconds: int, stamp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UTC with microseconds, all six digits of them, never rounded up."""
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)
    assert Clock().now() == stamp.encode()
