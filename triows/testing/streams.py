"""Byte streams in memory that fail as networks do: late, slow, in crumbs, half closed, cut, reset.

Nothing is lost or turned round on the way, as with TCP; what fails is when it comes, and whether.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, final

import trio

CAPACITY: Final = 64 * 1024
"""Bytes that are on their way at most; whoever sends more waits."""

Tap = Callable[[bytes], None]
"""Told of all bytes that are given to a pipe; never waits, never raises."""


@final
class Pipe:
    """One direction of a connection. Its attributes can be set at any time, by `set`.

    Attributes:
        capacity: bytes that are on their way at most.
        piece: bytes a receiver gets at once; 1 delivers byte by byte.
        rate: bytes a second.
        delay: seconds from one end to the other.
        stalled: while true, nothing arrives.
        size: bytes on their way.
        tap: told what is sent.
    """

    def __init__(self, capacity: int = CAPACITY, tap: Tap | None = None) -> None:
        self.capacity = capacity
        self.tap = tap
        self.size = 0
        self.piece: float = math.inf
        self.rate = math.inf
        self.delay = 0.0
        self.stalled = False
        self._chunks: deque[tuple[float, bytes]] = deque()  # when each arrives
        self._free_at = -math.inf  # when the line is free again, at this rate
        self._ended = False  # nothing more will be sent
        self._broken = False
        self._deaf = False  # nobody receives any more
        self._receivers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()

    def set(self, **attributes: object) -> None:
        """Change attributes, and have whoever waits look again."""
        for name, value in attributes.items():
            setattr(self, name, value)
        if "rate" in attributes:
            self._free_at = -math.inf  # what held the line at the old rate holds it no longer
        self._receivers.unpark_all()
        self._senders.unpark_all()

    def end(self) -> None:
        """Send nothing more; what is on its way arrives."""
        self.set(_ended=True)

    def break_off(self) -> None:
        """Fail at both ends; what is on its way is lost."""
        self._chunks.clear()
        self.set(_broken=True, size=0)

    def abandon(self) -> None:
        """Receive nothing more; who sends finds out."""
        self._chunks.clear()
        self.set(_deaf=True, size=0)

    def put(self, data: bytes | bytearray | memoryview) -> int:
        """Send what there is room for; return how many bytes.

        Raises:
            BrokenPipeError: nobody is there to receive them.
        """
        if self._broken or self._deaf or self._ended:
            raise BrokenPipeError("the connection is broken")
        taken = bytes(data[: max(0, self.capacity - self.size)])
        if taken:
            if self.tap is not None:
                self.tap(taken)
            self._chunks.append((trio.current_time() + self.delay, taken))
            self.size += len(taken)
            self._receivers.unpark_all()
        return len(taken)

    async def wait_room(self) -> None:
        """Wait until something can be sent, or never will.

        Raises:
            trio.BrokenResourceError: never.
        """
        while not (self._broken or self._deaf or self._ended) and self.size >= self.capacity:
            await self._senders.park()
        if self._broken or self._deaf or self._ended:
            raise trio.BrokenResourceError("the connection is broken")

    async def get(self, most: int) -> bytes:
        """Return what has arrived, at most so many bytes; empty at the end.

        Raises:
            trio.BrokenResourceError: the connection was reset.
        """
        while True:
            if self._broken:
                raise trio.BrokenResourceError("the connection was reset")
            if self._deaf:
                raise trio.ClosedResourceError("this end was closed")
            if self._ended and not self._chunks and not self.stalled:
                return b""
            wait = self._wait()
            if wait <= 0:
                return self._take(int(min(most, self.piece)))
            with trio.move_on_after(wait):
                await self._receivers.park()

    def _wait(self) -> float:
        """Return for how many seconds nothing arrives."""
        if self.stalled or not self._chunks:
            return math.inf
        return max(self._chunks[0][0], self._free_at) - trio.current_time()

    def _take(self, most: int) -> bytes:
        at, chunk = self._chunks.popleft()
        data, rest = chunk[:most], chunk[most:]
        if rest:
            self._chunks.appendleft((at, rest))
        self.size -= len(data)
        self._free_at = trio.current_time() + len(data) / self.rate
        self._senders.unpark_all()
        return data


class FaultyStream(trio.abc.HalfCloseableStream):
    """One end of a connection made of two pipes."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; waits for room. Raises BrokenResourceError if nobody receives."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            await self.wait_send_all_might_not_block()
            try:
                rest = rest[self._outgoing.put(rest) :]
            except BrokenPipeError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        await self._outgoing.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; empty at the end. Raises BrokenResourceError if the connection was reset."""
        await trio.lowlevel.checkpoint()
        return await self._incoming.get(max_bytes or CAPACITY)

    async def send_eof(self) -> None:
        """Send nothing more, but receive."""
        self._outgoing.end()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close: what was sent arrives, what was not received is lost."""
        self._closed = True
        self._outgoing.end()
        self._incoming.abandon()
        await trio.lowlevel.checkpoint()


@final
class FaultySocket(FaultyStream):
    """A stream that says at once what it takes, as a socket does."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what there is room for; return how many bytes. Raises BrokenPipeError."""
        if self._closed:
            raise BrokenPipeError("this end was closed")
        return self._outgoing.put(data)
