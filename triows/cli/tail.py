"""`triows tail`: a session's log, live, in a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

import triows
from triows.cli.output import escape_json, harmless, note, styled, wants_colour


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    start: dict[str, Any] = {"since": since} if since is not None else {"tail": lines}
    if since is None and lines is None:
        start = {"from_start": True}
    async with client.subscribe(channel, **start) as messages, _position_told(messages):
        async for message in messages:
            if as_json:
                assert messages.position is not None
                text = _as_json(message, messages.position.epoch)
            else:
                text = render(message, colour=colour)
            await _print(text)
    return 0


@asynccontextmanager
async def _position_told(messages: triows.Subscription) -> AsyncIterator[None]:
    """Say on interruption where to go on."""
    try:
        yield
    except (trio.Cancelled, KeyboardInterrupt):
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


def _as_json(message: triows.Message, epoch: str) -> str:
    """Return a message as one line of JSON, with its epoch, so that one can go on from it."""
    fields = {
        "type": message.type,
        "id": message.id,
        "channel": message.channel,
        "epoch": epoch,
        "offset": message.offset,
        "timestamp": message.timestamp,
        "data": msgspec.Raw(msgspec.json.format(message.raw or b"null", indent=-1)),
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return escape_json(msgspec.json.encode(present).decode())


def render(message: triows.Message, *, colour: bool) -> str:
    """Return a message as a person reads it; nothing in it can steer the terminal."""
    try:
        data = message.data
    except RecursionError:
        data = "(nested too deeply to be shown)"
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
    data = data if isinstance(data, dict) else {}
    count, reason = data.get("count"), data.get("reason")
    if reason == "epoch":
        text = "-- the log began anew"
        text += f"; its first {count} messages are gone" if count else ""
    else:
        why = "no longer kept" if reason == "retention" else "too slow for them"
        text = f"-- {count} messages are missing ({data.get('from')} to {data.get('to')}): {why}"
    return harmless(text, colour=False)


def _compact(data: Any) -> str:
    return msgspec.json.encode(data).decode()
