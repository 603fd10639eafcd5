"""A terminal with `triows` in it, and its far end in the hands of a test."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

SIZE = (24, 80)  # rows, columns


class Window:
    """What somebody has who sits at a terminal: a screen, keys, and a size.

    Attributes:
        process: what runs in it.
        screen: all that was written to it.
    """

    def __init__(self, process: trio.Process, far: trio.lowlevel.FdStream, near: int) -> None:
        self.process = process
        self.screen = ""
        self._far = far
        self._near = near
        self._changed = trio.Event()
        self._modes = self.modes()

    async def collect(self) -> None:
        """Read the screen until the window is closed."""
        while True:
            try:
                chunk = bytes(await self._far.receive_some())
            except trio.ClosedResourceError:
                return
            self.screen += chunk.decode(errors="replace")
            self._changed.set()
            self._changed = trio.Event()

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait until something is on the screen."""
        while (found := re.search(pattern, self.screen)) is None:
            await self._changed.wait()
        return found

    async def type(self, keys: str) -> None:
        """Press keys."""
        await self._far.send_all(keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Pull at the window's corner."""
        termios.tcsetwinsize(self._far.fileno(), (rows, columns))

    async def close(self) -> None:
        """Close the window: the terminal hangs up."""
        await self._far.aclose()

    def modes(self) -> list[Any]:
        """Return the modes of the terminal, as they are now."""
        return termios.tcgetattr(self._near)

    @property
    def is_as_before(self) -> bool:
        """Whether the modes are those from before the program was started."""
        return self.modes() == self._modes

    @property
    def is_raw(self) -> bool:
        """Whether keys go through uninterpreted."""
        return not self.modes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)


def _take_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def window(*arguments: object, **variables: str) -> AsyncIterator[Window]:
    """Run `triows` with arguments in a terminal; it is killed after 20 s."""
    program = [sys.executable, "-c", "from triows.cli import main; main()"]
    async with window_of([*program, *map(str, arguments)], **variables) as opened:
        yield opened


@asynccontextmanager
async def window_of(command: list[str], **variables: str) -> AsyncIterator[Window]:
    """Run a program in a terminal; it is killed after 20 s."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIOWS_")}
    far, near = os.openpty()
    termios.tcsetwinsize(near, SIZE)
    stream = trio.lowlevel.FdStream(far)
    try:
        with trio.fail_after(60):
            process = await trio.lowlevel.open_process(
                command,
                stdin=near,
                stdout=near,
                stderr=near,
                env={**environment, **variables},
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
            try:
                async with trio.open_nursery() as nursery:
                    opened = Window(process, stream, near)
                    nursery.start_soon(opened.collect)
                    yield opened
                    nursery.cancel_scope.cancel()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    finally:
        os.close(near)
        await trio.aclose_forcefully(stream)
