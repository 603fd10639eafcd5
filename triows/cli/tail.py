"""`triows tail`: a session's log, live, in a terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TextIO, final

import msgspec
import trio

import triows
from triows.cli.output import (
    ERASE_LINE,
    escape_json,
    fit,
    harmless,
    note,
    on_screen,
    styled,
    wants_colour,
)

PATIENCE: Final = 2.0  # seconds of silence, after which a channel without messages is told of


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
    screen = None if as_json else Screen(sys.stdout)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    start: dict[str, Any] = {"since": since} if since is not None else {"tail": lines}
    if since is None and lines is None:
        start = {"from_start": True}
    async with client.subscribe(channel, **start) as messages, _position_told(messages, screen):
        message = await (anext(messages, None) if screen is None else _first(messages))
        while message is not None:
            if screen is None:
                assert messages.position is not None
                text = _as_json(message, messages.position.epoch) + "\n"
            else:
                text = screen.show(message)
            await _print(text)
            message = await anext(messages, None)
    return 0


async def _first(messages: triows.Subscription) -> triows.Message | None:
    """Return the first message, None if there will be none; say if nobody has published any."""
    while True:
        with trio.move_on_after(PATIENCE):
            return await anext(messages, None)
        if messages.position is not None:  # the server has answered
            if not messages.head:
                note(f"nothing has been published to {messages.channel} yet; waiting")
            return await anext(messages, None)


@final
class Screen:
    """Where messages are shown: below each other, and the unfinished line of a terminal last,
    as far as it has come. Anywhere but at a terminal only finished lines are shown.
    """

    def __init__(self, stream: TextIO) -> None:
        self._colour = wants_colour(stream)
        self._is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._unfinished = ""

    def show(self, message: triows.Message) -> str:
        """Return what is to be written for a message."""
        clear = ERASE_LINE if self._unfinished else ""
        line = render(message, colour=self._colour)
        state = _state_of_line(message)
        if state is None:  # of another kind: the unfinished line stays the last one
            return f"{clear}{line}\n{self._unfinished}"
        if state == "finished":
            self._unfinished = ""
            return f"{clear}{line}\n"
        if not self._is_terminal:
            return ""
        self._unfinished = fit(line, shutil.get_terminal_size().columns - 1)
        return clear + self._unfinished

    def leave(self) -> str:
        """Return what is to be written before anybody else writes."""
        return "\n" if self._unfinished else ""


@asynccontextmanager
async def _position_told(
    messages: triows.Subscription, screen: Screen | None
) -> AsyncIterator[None]:
    """Say on interruption where to go on."""
    try:
        yield
    except (trio.Cancelled, KeyboardInterrupt):
        if screen is not None:
            _write(screen.leave())
        position = messages.position
        if position is not None:
            note(f"go on with --since {position.epoch}:{position.offset}")
        raise


async def _print(text: str) -> None:
    """Write text; a thread waits if whatever reads our output is slow, not the heartbeat."""
    await trio.to_thread.run_sync(_write, text)


def _write(text: str) -> None:
    sys.stdout.write(text)
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
    if isinstance(data, dict) and data.get("stream") == "terminal":
        text = on_screen(text)
    shown = harmless(text, colour=colour)
    from_stderr = isinstance(data, dict) and data.get("stream") == "stderr"
    return styled(shown, "red", colour=colour) if from_stderr else shown


def _state_of_line(message: triows.Message) -> str | None:
    """Return whether a terminal's line is `finished` or `partial`; None for all other messages."""
    if message.type != triows.MessageType.LOG:
        return None
    try:
        data = message.data
    except RecursionError:
        return None
    if not isinstance(data, dict) or data.get("stream") != "terminal":
        return None
    return "partial" if data.get("partial") is True else "finished"


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
