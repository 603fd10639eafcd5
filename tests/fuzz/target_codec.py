"""Messages: read, or refused with the documented error; what was read is kept as it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

import triows
from triows import requests
from triows.codec import (
    decode,
    decode_data,
    encode_error,
    encode_json,
    encode_published,
    encode_request,
    published_head,
)
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.logs import Log
from triows.messages import Message

_STAMP: Final = b"2026-11-22T21:07:20.050054Z"
_LOG: Final = Log("session:1", LogLimits(max_messages=3), 0.0)
for _number in range(5):
    _LOG.append(Message("log", b"1"), "ann", 0.0)


def _loads(text: bytes) -> Any:
    """Read JSON without a word on how large a number is."""
    return json.loads(text, parse_int=str, parse_float=str)


def run(data: bytes) -> str:
    """Read one text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return "not UTF-8: never gets here"
    try:
        message = decode(data)
    except RequestError as error:
        if error.code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST):
            raise
        encode_error(error)
        return f"{error.code} {error.message[:34]}"
    whole = _loads(data)
    assert (message.type, message.id, message.channel) == (
        whole["type"], whole.get("id"), whole.get("channel"),
    )  # fmt: skip
    assert _loads(message.raw or b"null") == whole.get("data")
    encode_json(message.data)
    again = decode(encode_request(message))
    assert msgspec.structs.replace(again, offset=message.offset, timestamp=message.timestamp) == (
        message
    )
    frame = encode_published(message, published_head("session:1"), 7, _STAMP)
    sent = decode(frame_payload(frame))
    assert (sent.raw, sent.id, sent.type, sent.offset) == (message.raw, message.id, message.type, 7)
    return f"{_known(message.type)} {'id' if message.id else ''} {_requests(message)}"


def _known(type_: str) -> str:
    return type_ if type_ in triows.MessageType.__members__.values() else "own"


def _requests(message: Message) -> str:
    """Read the data as that of every request; say what each makes of it."""
    said = []
    reads: tuple[tuple[Any, Callable[[Any], object]], ...] = (
        (requests.AUTH, lambda data: data.token.encode(errors="strict")),
        (requests.SUBSCRIBE, lambda data: (data.check(), data.start(_LOG))),
        (requests.HISTORY, lambda data: data.bounds(_LOG)),
        (requests.END, lambda data: None),
    )
    for decoder, use in reads:
        try:
            use(decode_data(message, decoder))
        except RequestError as error:
            encode_error(error, message)
            said.append(error.code[4:8])
        else:
            said.append("ok")
    return " ".join(said)
