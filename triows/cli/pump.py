"""What flows while a command runs: its output to the screen and the server, our input to it."""

from __future__ import annotations

import errno
import math
import os
from typing import Final, TextIO, final

import trio

import triows
from triows.cli import terminal
from triows.cli.child import Child, Output
from triows.cli.lines import LineCutter, Publish, Waiting
from triows.cli.output import note

PAUSE: Final = 0.1  # seconds until an unfinished line is told, and at least between two of them
MAX_UNFINISHED: Final = 4096  # characters of it that are told: the last ones
KEYS: Final = 4096  # bytes of our input read at once


@final
class Pump:
    """Passes output on to the screen, and each line of it to the publisher.

    From a terminal, a line that is not finished is told as well, after a pause: prompts and
    progress are such lines.
    """

    def __init__(self, output: Output, waiting: Waiting) -> None:
        self._output = output
        self._waiting = waiting
        self._lines = LineCutter(overwriting=output.is_terminal)
        self._told = ""  # of the line that is not finished
        self._tell_at = math.inf

    async def run(self) -> None:
        """Pass on what comes until there is no more."""
        try:
            while (chunk := await self._output.read(self._tell_at)) != b"":
                if chunk is not None:
                    await trio.to_thread.run_sync(_show, self._output.screen, chunk)
                    await self._publish_lines(chunk)
                if trio.current_time() >= self._tell_at:
                    await self._tell_unfinished()
        finally:
            last = self._lines.finish()
            if last:
                self._waiting.put_last(self._line(last))

    async def _publish_lines(self, chunk: bytes) -> None:
        for line in self._lines.cut(chunk):
            await self._waiting.put(self._line(line))
            self._told = ""
        if self._output.is_terminal and self._lines.unfinished != self._told:
            self._tell_at = min(self._tell_at, trio.current_time() + PAUSE)

    async def _tell_unfinished(self) -> None:
        self._tell_at = math.inf
        if self._lines.unfinished == self._told:
            return
        self._told = self._lines.unfinished
        message = self._line(self._told[-MAX_UNFINISHED:], partial=True)
        await self._waiting.put(message, passing=True)

    def _line(self, text: str, **more: bool) -> triows.Message:
        return triows.log({"stream": self._output.name, "text": text, **more})


def _show(screen: TextIO, chunk: bytes) -> None:
    try:
        screen.buffer.write(chunk)
        screen.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        # Nobody looks any more, or the terminal is gone; those who watch elsewhere still do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.fileno())


async def publish_waiting(waiting: Waiting, publish: Publish) -> None:
    """Publish in order until there is no more. Refused, say so once, and let the command go on
    unwatched.
    """
    refused = False
    while True:
        try:
            messages = await waiting.take()
        except trio.EndOfChannel:
            return
        if refused:
            continue
        try:
            await publish(messages)
        except triows.TriowsError as error:
            refused = True
            note(f"no longer published: {error}", "yellow")


async def pass_input_on(child: Child, *, stays_open: bool) -> None:
    """Pass our own input on to the command, as fast as it reads; in a terminal its end too, if
    it is not to stay open for the input of others.
    """
    if child.feed is None or not terminal.may_read_input():
        return
    last = b"\n"
    while data := await _read_input():
        await child.feed.put(data)
        last = data
    if stays_open:
        return
    end = child.end_of_file
    await child.feed.put(end if last.endswith(b"\n") else end + end)


async def _read_input() -> bytes:
    """Read our input without O_NONBLOCK, which others that have it open would feel."""
    try:
        await trio.lowlevel.wait_readable(terminal.STDIN)
    except OSError:
        await trio.lowlevel.checkpoint()  # a file, which can always be read
    try:
        return os.read(terminal.STDIN, KEYS)
    except OSError:  # the terminal is gone
        return b""
