"""`triows tail`: a session's log, live, in a terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

import triows
from triows.cli.output import harmless, note, styled, wants_colour


def parse_since(text: str) -> triows.Position:
    """Read a position as `tail` prints it, `epoch:offset`.

    Raises:
        ConfigError: it is none.
    """
    epoch, _, offset = text.rpartition(":")
    if not epoch or not offset.isdecimal():
        raise triows.ConfigError(f"--since {text!r} is not a position: expected epoch:offset")
    return triows.Position(epoch, int(offset))


async def tail(
    client: triows.Client,
    channel: str,
    *,
    lines: int | None,
    since: triows.Position | None,
    as_json: bool,
) -> int:
    """Print what is published on `channel` until it ends; return the exit status."""
    colour = wants_colour(sys.stdout)
    start: dict[str, Any] = {"since": since} if since is not None else {"tail": lines}
    if since is None and lines is None:
        start = {"from_start": True}
    async with client.subscribe(channel, **start) as messages, _position_told(messages):
        async for message in messages:
            text = _as_json(message) if as_json else render(message, colour=colour)
            await _print(text)
    return 0


@asynccontextmanager
async def _position_told(messages: triows.Subscription) -> AsyncIterator[None]:
    """Say on interruption where to go on."""
    try:
        yield
    except trio.Cancelled:
        position = messages.position
        if position is not None:
            note(f"go on with --since {position.epoch}:{position.offset}")
        raise


async def _print(text: str) -> None:
    """Write a line; a thread waits if whatever reads our output is slow, not the heartbeat."""
    await trio.to_thread.run_sync(_write, text)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _as_json(message: triows.Message) -> str:
    data = msgspec.Raw(message.raw or b"null")
    fields = {
        "type": message.type,
        "id": message.id,
        "channel": message.channel,
        "offset": message.offset,
        "timestamp": message.timestamp,
        "data": data,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode(present).decode()


def render(message: triows.Message, *, colour: bool) -> str:
    """Return a message as a person reads it; nothing in it can steer the terminal."""
    data = message.data
    match message.type:
        case "log":
            return _render_log(data, colour=colour)
        case "end":
            return styled(_describe_end(data), "bold", colour=colour)
        case "gap":
            return styled(_describe_gap(data), "yellow", colour=colour)
        case _:
            text = f"[{message.type}] {_compact(data)}"
            return styled(harmless(text, colour=False), "blue", colour=colour)


def _render_log(data: Any, *, colour: bool) -> str:
    text = data.get("text") if isinstance(data, dict) else data
    if not isinstance(text, str):
        return harmless(_compact(data), colour=False)
    shown = harmless(text, colour=colour)
    from_stderr = isinstance(data, dict) and data.get("stream") == "stderr"
    return styled(shown, "red", colour=colour) if from_stderr else shown


def _describe_end(data: Any) -> str:
    data = data if isinstance(data, dict) else {}
    code, reason = data.get("exit_code"), data.get("reason")
    text = "-- ended" + (f" with exit code {code}" if code is not None else "")
    return harmless(text + (f": {reason}" if reason else ""), colour=False)


def _describe_gap(data: Any) -> str:
    if data["reason"] == "epoch":
        text = "-- the log began anew"
        return text + (f"; its first {data['count']} messages are gone" if data["count"] else "")
    return f"-- {data['count']} messages are missing ({data['from']} to {data['to']}): " + (
        "no longer kept" if data["reason"] == "retention" else "too slow for them"
    )


def _compact(data: Any) -> str:
    return msgspec.json.encode(data).decode()
