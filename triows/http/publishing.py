"""Publishing over HTTP: one message, or many, with the same checks as on the socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec
import trio
import uuid_utils
from starlette.responses import Response

from triows import requests
from triows.application import Request
from triows.auth import Action
from triows.codec import check_nesting, decode, decode_data, error_data
from triows.errors import ErrorCode, RequestError
from triows.http.answers import answer
from triows.http.call import Call
from triows.http.operations import JSON
from triows.messages import PUBLISHED, Message, MessageType, Outcome

MAX_BATCH: Final = 1000  # messages in one request
MAX_HANDLED: Final = 16  # of them, commands that have a handler: the application's time is dear


async def publish(call: Call) -> Response:
    """Publish what the body holds; answered when the engine has kept it."""
    channel = call.channel
    is_one = call.media_type() == JSON
    body = _check_text(await call.body())
    lines = [body] if is_one else [line for line in body.split(b"\n") if line.strip()]
    if not 1 <= len(lines) <= MAX_BATCH:
        raise RequestError(
            ErrorCode.TOO_LARGE if lines else ErrorCode.BAD_REQUEST,
            f"the body has {len(lines)} messages; expected 1 to {MAX_BATCH}, one a line",
        )
    _count(call, len(lines), len(body))
    checked = await _check_all(call, channel, lines)
    if is_one and isinstance(checked[0], RequestError):
        raise checked[0]
    results = await _submit_all(call, channel, checked)
    if not is_one:
        return answer({"results": [_describe(result) for result in results]})
    if isinstance(results[0], RequestError):
        raise results[0]
    return answer({"channel": channel, **results[0]}, 200 if results[0]["duplicate"] else 201)


async def end(call: Call) -> Response:
    """Publish the last message of a channel."""
    channel = await call.authorize(Action.PUBLISH)
    raw = _check_text(await call.body()).strip() or b"{}"
    message = Message(MessageType.END, raw)
    decode_data(message, requests.END)
    check_nesting(raw)
    _count(call, 1, len(raw))
    (result,) = await _submit_all(call, channel, [message])
    if isinstance(result, RequestError):
        raise result
    return answer({"channel": channel, "epoch": result["epoch"], "offset": result["offset"]})


def _check_text(body: bytes) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise RequestError(ErrorCode.BAD_JSON, f"the body is not UTF-8: {error}") from None
    return body


def _count(call: Call, messages: int, size: int) -> None:
    peer = call.exchange.transport.peer
    call.rooms.rates.take(call.user.user, peer, messages, size, trio.current_time())


def _describe(result: dict[str, Any] | RequestError) -> dict[str, Any]:
    return {"error": error_data(result)} if isinstance(result, RequestError) else result


async def _check_all(
    call: Call, channel: str, lines: Sequence[bytes]
) -> list[Message | RequestError]:
    """Return the message of each line, or why it cannot be published."""
    verdicts: dict[Action, RequestError | None] = {}
    checked: list[Message | RequestError] = []
    handled = 0
    for line in lines:
        try:
            message = _read(line, channel)
            is_command = message.type == MessageType.COMMAND
            action = Action.COMMAND if is_command else Action.PUBLISH
            if action not in verdicts:
                verdicts[action] = await _judge(call, action)
            if (verdict := verdicts[action]) is not None:
                raise verdict
            handled += _is_handled(call, message)
            if handled > MAX_HANDLED:
                raise RequestError(
                    ErrorCode.UNAVAILABLE, f"more than {MAX_HANDLED} commands in one request"
                )
            checked.append(message)
        except RequestError as error:
            checked.append(error)
    return checked


def _read(line: bytes, channel: str) -> Message:
    message = decode(line)
    if message.type not in PUBLISHED:
        raise RequestError(
            ErrorCode.UNKNOWN_TYPE,
            f"a message of type {message.type[:40]!r} cannot be published here; "
            f"expected {', '.join(sorted(PUBLISHED))}",
        )
    if message.channel not in (None, channel):
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"`channel` is not {channel!r}, as the address says; omit it"
        )
    if message.type == MessageType.END:
        decode_data(message, requests.END)
    return message


async def _judge(call: Call, action: Action) -> RequestError | None:
    try:
        await call.authorize(action)
    except RequestError as error:
        return error
    return None


def _is_handled(call: Call, message: Message) -> bool:
    return (
        message.type == MessageType.COMMAND
        and message.type in call.rooms.services.application.handlers
    )


async def _submit_all(
    call: Call, channel: str, messages: Sequence[Message | RequestError]
) -> list[dict[str, Any] | RequestError]:
    """Submit all messages one after the other, and return how each fared."""
    call.check_again()
    outcomes: list[Outcome | None] = [m if isinstance(m, RequestError) else None for m in messages]
    missing = outcomes.count(None)
    complete, now = trio.Event(), trio.current_time()

    def submit(at: int, message: Message) -> None:
        def done(_: Message, outcome: Outcome) -> None:
            nonlocal missing
            outcomes[at] = outcome
            missing -= 1
            if not missing:
                complete.set()

        call.rooms.services.bus.submit(channel, message, call.user.user, now, done)

    for at, message in enumerate(messages):
        if isinstance(message, Message):
            submit(at, message)
    if missing:
        await complete.wait()
    return [
        await _result(call, message, outcome)
        for message, outcome in zip(messages, outcomes, strict=True)
    ]


async def _result(
    call: Call, message: Message | RequestError, outcome: Outcome | None
) -> dict[str, Any] | RequestError:
    """Return how a message fared; of a command that has a handler, with what that answers."""
    assert outcome is not None
    if isinstance(outcome, RequestError):
        return outcome
    assert isinstance(message, Message)
    position = attrs.asdict(outcome.position)
    result: dict[str, Any] = {**position, "duplicate": outcome.duplicate}
    if outcome.duplicate or not _is_handled(call, message):
        return result
    request = Request(message, call.user, str(uuid_utils.uuid7()), outcome.position)
    try:
        answered: msgspec.Raw = await call.rooms.services.application.run(request)
    except RequestError as error:
        return error
    return {**result, "result": answered}
