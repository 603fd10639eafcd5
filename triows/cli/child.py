"""A command that runs: what it prints, what it is given to read, and the signals it gets."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import struct
import subprocess
import sys
import termios
from typing import Any, Final, TextIO, final

import trio

from triows.cli import terminal
from triows.cli.terminal import Size

GRACE: Final = 1.0  # seconds after its end for what it left running to print the rest
READ: Final = 64 * 1024  # bytes
MAX_WAITING: Final = 64 * 1024  # bytes of input that the command has not read yet
WRITE: Final = 4096  # bytes of input at once


@final
class Output:
    """What a command prints, and where it would have gone.

    Attributes:
        screen: where it would have gone.
        name: `stdout`, `stderr`, or `terminal` for both.
    """

    def __init__(self, stream: trio.lowlevel.FdStream, screen: TextIO, name: str) -> None:
        self.screen = screen
        self.name = name
        self._stream = stream
        self._reading: trio.CancelScope | None = None
        self._over = math.inf  # when to stop reading, if there is not
        self._left = 0  # bytes that the command itself may have written

    @property
    def is_terminal(self) -> bool:
        """Whether it comes from a terminal."""
        return self.name == "terminal"

    async def read(self, until: float) -> bytes | None:
        """Return the next bytes, b"" when there will be none, None at the time `until`."""
        if self._left <= 0 and trio.current_time() >= self._over:
            return b""
        deadline = until if self._left > 0 else min(until, self._over)
        with trio.CancelScope(deadline=deadline) as self._reading:
            try:
                chunk = bytes(await self._stream.receive_some(READ))
            except trio.BrokenResourceError:  # how Linux says that a terminal has no other end
                return b""
            self._left -= len(chunk)
            return chunk
        return None

    def command_has_ended(self) -> None:
        """Read what there is and, for a moment, what comes; not for ever, since something the
        command left running may keep its output open.
        """
        size = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._stream.fileno(), termios.FIONREAD, size)
        self._left = struct.unpack("i", size)[0]
        self._over = trio.current_time() + GRACE
        if self._reading is not None and self._left <= 0:
            self._reading.deadline = min(self._reading.deadline, self._over)


@final
class Feed:
    """Input on its way to a command; it is bounded, and a command that does not read holds
    nobody up.
    """

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._changed = trio.lowlevel.ParkingLot()
        self.is_open = True

    @property
    def waiting(self) -> int:
        """Bytes that the command has not taken yet."""
        return len(self._waiting)

    def offer(self, data: bytes) -> bool:
        """Add input; False if there is no room for it, or nobody to read it."""
        if not self.is_open or len(self._waiting) + len(data) > MAX_WAITING:
            return False
        self._waiting += data
        self._changed.unpark_all()
        return True

    async def put(self, data: bytes) -> None:
        """Add input, of at most `MAX_WAITING`, when there is room; dropped if nobody reads."""
        while self.is_open and not self.offer(data):
            await self._changed.park()

    async def run(self) -> None:
        """Pass the input on, until nobody reads it."""
        try:
            while True:
                while not self._waiting:
                    await self._changed.park()
                piece = bytes(self._waiting[:WRITE])
                await self._stream.send_all(piece)
                del self._waiting[: len(piece)]
                self._changed.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.is_open = False
            self._changed.unpark_all()


@final
class Child:
    """A command that was started; made by `start_piped` or `start_in_terminal`.

    Attributes:
        process: its process.
        outputs: what it prints.
        feed: its input, or None if it reads ours itself.
        size: of its terminal, or None if it has none.
    """

    def __init__(
        self,
        process: trio.Process,
        outputs: list[Output],
        feed: Feed | None,
        *,
        own_group: bool,
        ends: tuple[trio.lowlevel.FdStream, int] | None = None,
    ) -> None:
        self.process = process
        self.outputs = outputs
        self.feed = feed
        self.size: Size | None = None
        self._own_group = own_group
        self._ends = ends

    @property
    def shares_our_group(self) -> bool:
        """Whether the terminal sends it Ctrl-C as well, when it does so to us."""
        return not self._own_group

    @property
    def end_of_file(self) -> bytes:
        """What it is sent when our own input has ended; nothing if its input stays open."""
        return terminal.end_of_file(self._ends[0].fileno()) if self._ends is not None else b""

    def resize(self, size: Size) -> None:
        """Give its terminal another size."""
        if self._ends is not None:
            terminal.set_size(self._ends[0].fileno(), size)
            self.size = size

    def interrupt(self) -> None:
        """Send SIGINT, in a terminal to what runs in front there, as Ctrl-C does.

        Raises:
            PermissionError: it runs as somebody else.
        """
        self._send(signal.SIGINT, self._in_front() or self.process.pid)

    def send(self, number: int) -> None:
        """Send a signal to all of its group, and to what runs in front in its terminal.

        Raises:
            PermissionError: it runs as somebody else.
        """
        front = self._in_front()
        self._send(number, self.process.pid)
        if front and front != self.process.pid:
            self._send(number, front)

    def _send(self, number: int, group: int) -> None:
        if self.process.returncode is not None:
            return
        try:
            if self._own_group:
                os.killpg(group, number)
            else:
                self.process.send_signal(number)
        except ProcessLookupError:
            pass  # gone in between

    def _in_front(self) -> int:
        """Return the process group in front in its terminal, or 0."""
        if self._ends is None:
            return 0
        try:
            group = os.tcgetpgrp(self._ends[0].fileno())
        except OSError:
            return 0
        return group if group > 1 else 0

    def command_has_ended(self) -> None:
        """Let go of the command's end of the terminal, and read what is left."""
        if self._ends is not None and self._ends[1] >= 0:
            os.close(self._ends[1])
            self._ends = (self._ends[0], -1)
        for output in self.outputs:
            output.command_has_ended()

    async def aclose(self) -> None:
        """Let go of everything; what still runs then is killed."""
        with contextlib.suppress(PermissionError):
            self.send(signal.SIGKILL)
        with trio.move_on_after(GRACE, shield=True):
            await self.process.wait()
        with trio.CancelScope(shield=True):
            if self._ends is not None:
                if self._ends[1] >= 0:
                    os.close(self._ends[1])
                await self._ends[0].aclose()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    await pipe.aclose()


async def start_piped(command: list[str], *, feed: bool) -> Child:
    """Start a command with pipes for its outputs, and for its input if we are to `feed` it:
    then in a process group of its own, so that it can be interrupted alone.

    Raises:
        OSError: it cannot be started.
    """
    options: dict[str, Any] = {}
    if feed:
        options = {"process_group": 0, "preexec_fn": terminal.feel_interrupts}
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE if feed else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    pipes = ((process.stdout, sys.stdout, "stdout"), (process.stderr, sys.stderr, "stderr"))
    outputs = []
    for pipe, screen, name in pipes:
        assert isinstance(pipe, trio.lowlevel.FdStream)
        outputs.append(Output(pipe, screen, name))
    input_ = Feed(process.stdin) if process.stdin is not None else None
    return Child(process, outputs, input_, own_group=feed)


async def start_in_terminal(command: list[str]) -> Child:
    """Start a command in a session and a terminal of its own, as large as ours.

    Raises:
        OSError: it cannot be started.
    """
    size = terminal.our_size()
    ours, theirs = terminal.open_terminal(size)
    stream = trio.lowlevel.FdStream(ours)
    try:
        # Only the child itself can take the terminal, so there is no way around preexec_fn.
        process = await trio.lowlevel.open_process(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=terminal.take_terminal,
        )
    except BaseException:
        os.close(theirs)
        await trio.aclose_forcefully(stream)
        raise
    # We keep the command's end open: it may let go of its terminal, and open it again.
    output = Output(stream, sys.stdout, "terminal")
    child = Child(process, [output], Feed(stream), own_group=True, ends=(stream, theirs))
    child.size = size
    return child
