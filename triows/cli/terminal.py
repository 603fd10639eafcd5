"""Terminals: the one this program was started in, and one made for a command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

STDIN: Final = 0
MAX_SIZE: Final = 0xFFFF  # columns and rows: the kernel keeps them in 16 bits


class Size(NamedTuple):
    """Of a terminal."""

    columns: int
    rows: int


def our_size() -> Size:
    """Return the size of our terminal; without one, what $COLUMNS and $LINES say, or 80x24."""
    for descriptor in (1, 2, 0):
        try:
            found = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if found.columns > 0 and found.lines > 0:
            return Size(*found)
    columns, rows = shutil.get_terminal_size((80, 24))
    return Size(min(columns, MAX_SIZE), min(rows, MAX_SIZE))


def set_size(descriptor: int, size: Size) -> None:
    """Give a terminal a size; the kernel tells what runs in front there, by SIGWINCH."""
    termios.tcsetwinsize(descriptor, (size.rows, size.columns))


def open_terminal(size: Size) -> tuple[int, int]:
    """Make a terminal with the modes of ours; return our end of it and the command's."""
    ours, theirs = os.openpty()
    set_size(theirs, size)
    if _has_keyboard():
        with contextlib.suppress(termios.error):
            termios.tcsetattr(theirs, termios.TCSANOW, termios.tcgetattr(STDIN))
    return ours, theirs


def take_terminal() -> None:
    """Make standard input the controlling terminal, and have Ctrl-C felt.

    For the child process, before the command: a new session has no terminal yet, and signals
    that are ignored stay so, as Ctrl-C is for what a script has started in the background.
    """
    feel_interrupts()
    fcntl.ioctl(STDIN, termios.TIOCSCTTY, 0)


def feel_interrupts() -> None:
    """Take the usual end from SIGINT and SIGQUIT, which may have been ignored here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def end_of_file(descriptor: int) -> bytes:
    """Return the key that ends the input at a terminal (Ctrl-D)."""
    key: Any = termios.tcgetattr(descriptor)[6][termios.VEOF]
    return bytes(key)


def in_front() -> bool:
    """Whether our controlling terminal sends us what its keys mean, such as Ctrl-C."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(descriptor)


def may_read_input() -> bool:
    """Whether standard input is there, and reading it would not stop us as a background job."""
    if sys.stdin is None:
        return False
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return True  # a file, a pipe, or a terminal of somebody else


@contextlib.contextmanager
def raw_keyboard(*, wanted: bool) -> Iterator[None]:
    """Take each key as it comes, Ctrl-C too; the terminal is as before however this ends.

    Without a keyboard of ours, or when it is not wanted, this does nothing.
    """
    if not (wanted and _has_keyboard() and may_read_input()):
        yield
        return
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN, termios.TCSANOW)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(STDIN, termios.TCSANOW, before)


def _has_keyboard() -> bool:
    return sys.stdin is not None and os.isatty(STDIN)
