"""Lines on their way from a source to the server, as many at a time as are waiting."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import trio

import triows
from triows.cli.output import note

T = TypeVar("T")

Publish = Callable[[list[triows.Message]], Awaitable[None]]
"""Publishes messages in order; returns when they are kept."""

BATCH: Final = 64  # lines published at once
WAITING: Final = 10_000  # lines that may wait for the server; then their source has to
WAITING_BYTES: Final = 8 * 1024 * 1024  # of lines that wait: long ones are fewer
MAX_LINE: Final = 64 * 1024  # characters; a longer line is published in pieces


async def take(receive: trio.MemoryReceiveChannel[T]) -> list[T]:
    """Wait for one item and return it with all that wait behind it, at most `BATCH`.

    Raises:
        trio.EndOfChannel: there will be none.
    """
    items = [await receive.receive()]
    while len(items) < BATCH:
        try:
            items.append(receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return items


@final
class Waiting:
    """Messages that wait for the server, bounded in number and in bytes.

    A passing message, such as the state of an unfinished line, is dropped for the log message
    that is put right behind it: a server that is slow gets the newest state, not each.
    """

    def __init__(self) -> None:
        self._messages: deque[triows.Message] = deque()
        self._bytes = 0
        self._passing = False  # the newest one is
        self._closed = False
        self._was_full = False
        self._changed = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._messages)

    async def put(self, message: triows.Message, *, passing: bool = False) -> None:
        """Add a message; waits while too many are there already."""
        while len(self._messages) >= WAITING or self._bytes >= WAITING_BYTES:
            self._say_once()
            await self._changed.park()
        self.put_last(message, passing=passing)

    def _say_once(self) -> None:
        """Tell the person at the terminal why everything has become slow."""
        if not self._was_full:
            self._was_full = True
            note(
                f"{len(self._messages)} lines wait, and now the command does: the server takes "
                "fewer a second (limits.messages_per_second)",
                "yellow",
            )

    def put_last(self, message: triows.Message, *, passing: bool = False) -> None:
        """Add a message without waiting, over the bounds if need be: for the last one."""
        if self._passing and self._messages and message.type == triows.MessageType.LOG:
            self._bytes -= len(self._messages.pop().raw)
        self._messages.append(message)
        self._bytes += len(message.raw)
        self._passing = passing
        self._changed.unpark_all()

    def close(self) -> None:
        """Say that there will be no more."""
        self._closed = True
        self._changed.unpark_all()

    async def take(self) -> list[triows.Message]:
        """Wait for messages and return at most `BATCH`, oldest first.

        Raises:
            trio.EndOfChannel: there will be none.
        """
        while not self._messages:
            if self._closed:
                raise trio.EndOfChannel
            await self._changed.park()
        taken = [self._messages.popleft() for _ in range(min(BATCH, len(self._messages)))]
        self._bytes -= sum(len(message.raw) for message in taken)
        self._changed.unpark_all()
        return taken


@final
class LineCutter:
    """Makes lines of text out of bytes; what is no UTF-8 is replaced, what is too long cut.

    Args:
        overwriting: a carriage return begins the line anew, as it does on a screen: of a
            progress bar only the last state is left.
    """

    def __init__(self, *, overwriting: bool = False) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._overwriting = overwriting

    @property
    def unfinished(self) -> str:
        """The last line, as far as it has come."""
        return self._rest.rstrip("\r") if self._overwriting else self._rest

    def cut(self, chunk: bytes) -> list[str]:
        """Take the next bytes and return the lines they complete."""
        *lines, rest = (self._rest + self._decode(chunk)).split("\n")
        if self._overwriting:
            lines, rest = [_overwritten(line).rstrip("\r") for line in lines], _overwritten(rest)
        pieces = [piece for line in lines for piece in _pieces(line)]
        whole = len(rest) - len(rest) % MAX_LINE if len(rest) > MAX_LINE else 0
        pieces += [rest[at : at + MAX_LINE] for at in range(0, whole, MAX_LINE)]
        self._rest = rest[whole:]
        return pieces

    def finish(self) -> str:
        """Return the last line, if it had no end."""
        self._rest += self._decode(b"", final=True)
        return self.unfinished


def _overwritten(line: str) -> str:
    """Return what is left of a line: what follows its last carriage return, but for those at
    its end, behind which nothing has been written yet.
    """
    shown = line.rstrip("\r")
    return line[shown.rfind("\r") + 1 :]


def _pieces(line: str) -> list[str]:
    line = line.removesuffix("\r")
    return [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [""]
