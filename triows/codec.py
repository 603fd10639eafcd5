"""Text to messages and back. The bytes of `data` are spliced through, never encoded again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec

from triows.errors import ErrorCode, RequestError
from triows.frames import encode_frame
from triows.messages import MAX_ID, Message, MessageType, Outcome

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_BRACE, _BRACKET = b"}]"
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: 1 and -1
_ACK: Final = b'{"type":"ack","id":%b%b%d%b'
_PLACE: Final = b',"channel":"%b","data":{"epoch":"%b","offset":'
MAX_ERROR: Final = 500  # characters of an error's message
MAX_NESTING: Final = 100  # levels; Python's own reader gives up near 1000, PHP's at 512
_T = TypeVar("_T")


class _Envelope(msgspec.Struct):
    """What a text frame may hold; members not named here are ignored."""

    type: str
    id: str | None = None
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    timestamp: str | None = None
    offset: int | None = None


_envelope: Final = msgspec.json.Decoder(_Envelope)
encode_json: Final = msgspec.json.Encoder().encode
_TYPES: Final = {str(type_): encode_json(type_) for type_ in MessageType}


def decode(payload: bytes, max_nesting: int = MAX_NESTING) -> Message:
    """Read one message; `payload` is known to be UTF-8.

    Args:
        payload: JSON text.
        max_nesting: levels that are accepted.

    Raises:
        RequestError: `bad_json` or `bad_request`, saying where.
    """
    try:
        envelope = _envelope.decode(payload)
    except msgspec.ValidationError as error:
        raise RequestError(ErrorCode.BAD_REQUEST, f"bad message: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(ErrorCode.BAD_JSON, f"bad JSON: {error}") from None
    if _may_be_deep(payload, max_nesting) and _is_deep(payload, max_nesting):
        raise RequestError(
            ErrorCode.BAD_JSON, f"bad JSON: nested more than {max_nesting} levels deep"
        )
    id_ = envelope.id
    if id_ is not None and len(id_) > MAX_ID:
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"`id` has {len(id_)} characters; the limit is {MAX_ID}"
        )
    # bytes(): a Raw pins the whole frame it was cut from.
    return Message(
        envelope.type,
        bytes(envelope.data),
        envelope.channel,
        id_,
        envelope.offset,
        envelope.timestamp,
    )


def check_nesting(data: bytes) -> None:
    """Raises RequestError (`bad_request`) for `data` that a message could not hold."""
    if _may_be_deep(data, MAX_NESTING - 1) and _is_deep(data, MAX_NESTING - 1):
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"`data` is nested more than {MAX_NESTING - 1} levels deep"
        )


def _may_be_deep(text: bytes, levels: int) -> bool:
    """Whether JSON has so many brackets that it wants a closer look; most texts have few.

    Most are one object around a text, and close no bracket before their very end: who is nested
    more deeply than `levels` (1 or more) closes more than fit into so many bytes.
    """
    all_but_end = text[:-levels]
    if _BRACE not in all_but_end and _BRACKET not in all_but_end:
        return False
    half = levels // 2  # of the brackets of a text that is too deep, more are of one kind
    return text.count(b"{") >= half or text.count(b"[") >= half


def _is_deep(text: bytes, levels: int) -> bool:
    """Whether JSON is nested more deeply than everybody can be expected to follow.

    One pass, whatever the text is: nobody else is served meanwhile.
    """
    outside = b"".join(text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS, delete=_NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0) > levels


def decode_data(message: Message, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Read the `data` of a request into what `decoder` expects.

    Raises:
        RequestError: `bad_request`, naming the member that is wrong.
    """
    try:
        return decoder.decode(message.raw or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"`{message.type}`: bad `data`: {error}"
        ) from None


class Clock:
    """Writes timestamps: RFC 3339, UTC, microseconds, never going back.

    Attributes:
        latest: the last one told.
    """

    __slots__ = ("_last", "_moment", "_prefix", "_second", "latest")

    def __init__(self) -> None:
        self.latest = b""
        self._moment = -1.0
        self._last = 0
        self._second = -1
        self._prefix = b""

    def at(self, moment: float) -> bytes:
        """Return the time now; asked again for the same `moment`, the last one told.

        Messages that were read together are stamped together: half a microsecond each.

        Args:
            moment: monotonic time in seconds, as of now or shortly before.
        """
        if moment == self._moment:
            return self.latest
        self._moment = moment
        return self.now()

    def now(self) -> bytes:
        """Return the time now, or the last one told if the system's clock was set back."""
        micros = time.time_ns() // 1000
        if micros < self._last:
            micros = self._last
        self._last = micros
        self.latest = self.write(micros)
        return self.latest

    def write(self, micros: int) -> bytes:
        """Return a time, microseconds since 1970."""
        second = micros // 1_000_000
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%06dZ" % (self._prefix, micros - second * 1_000_000)


clock: Final = Clock()


def encode_published(message: Message, head: bytes, offset: int, timestamp: bytes) -> bytes:
    """Return the frame of a message at `offset` of a log: made once, sent to every viewer.

    Args:
        message: type, id and raw are taken from it.
        head: `published_head` of its channel.
        offset: its place.
        timestamp: when it was given it.
    """
    start, stamp = published_start(head, message.type), published_stamp(timestamp)
    return encode_between(start, message, offset, stamp)


def published_head(channel: str) -> bytes:
    """Return the part of a published message that is the same for a whole channel."""
    return b'"channel":%b,' % encode_json(channel)


def published_start(head: bytes, type: str) -> bytes:
    """Return what messages of one type in one channel begin with."""
    return b'{"type":%b,%b"offset":' % (_TYPES.get(type) or encode_json(type), head)


def published_stamp(timestamp: bytes) -> bytes:
    """Return what messages of one moment have in common."""
    return b',"timestamp":"%b"' % timestamp


def encode_between(start: bytes, message: Message, offset: int, stamp: bytes) -> bytes:
    """Do as `encode_published`, with what is the same for many messages made before."""
    id_, raw = message.id, message.raw
    return encode_frame(
        b"%b%d%b%b%b%b%b}"
        % (
            start,
            offset,
            stamp,
            b"" if id_ is None else b',"id":',
            b"" if id_ is None else encode_json(id_),
            b',"data":' if raw else b"",
            raw,
        )
    )


def encode_push(
    type: MessageType, data: object, *, channel: str | None = None, id: str | None = None
) -> bytes:
    """Return the frame of a message that the server itself says to one connection."""
    message: dict[str, Any] = {"type": type}
    if id is not None:
        message["id"] = id
    if channel is not None:
        message["channel"] = channel
    message["data"] = data
    message["timestamp"] = clock.now().decode()
    return encode_frame(encode_json(message))


def encode_outcomes(messages: Sequence[Message], outcomes: Sequence[Outcome]) -> list[bytes]:
    """Return the frames that say how messages of one channel fared: an `ack` with its place for
    each that was kept and carries an `id`, an `error` for each that was refused.

    An `ack` is written by hand: it is sent once for each acknowledged message. The channel is a
    checked name, and so needs no escaping. It follows a message that was just stamped, and so
    needs no time of its own.
    """
    frames: list[bytes] = []
    channel, epoch, place = (messages[0].channel or "").encode(), "", b""
    end = b'},"timestamp":"%b"}' % clock.latest
    for message, outcome in zip(messages, outcomes, strict=True):
        if isinstance(outcome, RequestError):
            frames.append(encode_error(outcome, message))
        elif message.id is not None:
            if outcome.epoch != epoch:
                epoch = outcome.epoch
                place = _PLACE % (channel, epoch.encode())
            text = _ACK % (encode_json(message.id), place, outcome.offset, end)
            frames.append(encode_frame(text))
    return frames


def encode_error(error: RequestError, request: Message | None = None) -> bytes:
    """Return the frame of an `error`, naming the request that earned it if it is known."""
    return encode_push(
        MessageType.ERROR,
        error_data(error),
        id=request.id if request else None,
        channel=request.channel if request else None,
    )


def error_data(error: RequestError) -> dict[str, object]:
    """Return the `data` of an `error`; `retry_after` (seconds) only when it is known."""
    data: dict[str, object] = {
        "code": error.code,
        # It may quote what a peer sent, and an application's may hold halves of characters.
        "message": str(error.message)[:MAX_ERROR].encode(errors="replace").decode(),
        "retry": error.retry,
    }
    if error.retry_after is not None:
        data["retry_after"] = math.ceil(error.retry_after * 1000) / 1000
    return data


def encode_request(message: Message) -> bytes:
    """Return the text of a message as a client sends it."""
    envelope: dict[str, object] = {"type": message.type}
    if message.id is not None:
        envelope["id"] = message.id
    if message.channel is not None:
        envelope["channel"] = message.channel
    if message.raw:
        envelope["data"] = msgspec.Raw(message.raw)
    return encode_json(envelope)
