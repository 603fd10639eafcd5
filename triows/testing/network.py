"""A network in memory between servers and clients, every connection of which can fail."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from triows.dial import OpenStream
from triows.listeners import Serve
from triows.testing.streams import CAPACITY, FaultySocket, FaultyStream, Pipe
from triows.transport import Transport

_BOTH: Final = ("up", "down")


@final
class Link:
    """One connection, from a client to a server.

    Attributes:
        name: whose it is.
        up: from the client to the server.
        down: from the server to the client.
    """

    def __init__(self, name: str, capacity: int = CAPACITY) -> None:
        self.name = name
        self.up = Pipe(capacity)
        self.down = Pipe(capacity)

    def pipes(self, directions: tuple[str, ...] = _BOTH) -> list[Pipe]:
        """Return the pipes of these directions, `up` and `down`."""
        return [getattr(self, direction) for direction in directions]

    def cut(self) -> None:
        """End it in both directions; what is on its way arrives."""
        for pipe in self.pipes():
            pipe.end()

    def reset(self) -> None:
        """Break it; what is on its way is lost."""
        for pipe in self.pipes():
            pipe.break_off()

    def half_close(self, direction: str) -> None:
        """End it in one direction only, `up` or `down`."""
        for pipe in self.pipes((direction,)):
            pipe.end()

    def stall(self, *directions: str) -> None:
        """Let nothing through until healed, in these directions or both."""
        for pipe in self.pipes(directions or _BOTH):
            pipe.set(stalled=True)

    def slow(self, rate: float) -> None:
        """Let through so many bytes a second."""
        for pipe in self.pipes():
            pipe.set(rate=rate)

    def crumble(self, piece: int) -> None:
        """Deliver at most so many bytes at once; 1 is byte by byte."""
        for pipe in self.pipes():
            pipe.set(piece=piece)

    def delay(self, seconds: float) -> None:
        """Let everything take so long."""
        for pipe in self.pipes():
            pipe.set(delay=seconds)

    def heal(self) -> None:
        """Be fast and whole again; what was cut or reset stays so."""
        for pipe in self.pipes():
            pipe.set(stalled=False, rate=math.inf, piece=math.inf, delay=0.0)


@final
class Network:
    """Leads clients to whichever server listens.

    Args:
        capacity: bytes that are on their way at most, in each direction of a connection.

    Attributes:
        links: the connections made so far that are not over, oldest first.
        eager: whether servers get streams that take the fast path, as TCP does, or not, as TLS.
        on_link: told of each new connection before it is used.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.links: list[Link] = []
        self.eager = True
        self.on_link: Callable[[Link], None] = lambda link: None
        self._capacity = capacity
        self._ports: list[MemoryPort] = []

    def port(self) -> MemoryPort:
        """Return an open port: what `open_server` takes as `listen`, which closes it."""
        return MemoryPort(self._ports)

    def opener(self, name: str = "client") -> OpenStream:
        """Return what `open_client` takes as `open_stream`.

        Args:
            name: goes into `Link.name`, and is the network address that the server sees.
        """

        async def open_stream() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return self._connect(name)

        return open_stream

    def _connect(self, name: str) -> FaultyStream:
        if not self._ports:
            raise ConnectionRefusedError("connection refused")
        link = Link(name, self._capacity)
        self.on_link(link)
        kind = FaultySocket if self.eager else FaultyStream
        self.links.append(link)
        self._ports[-1].serve(kind(link.up, link.down), name, self._over(link))
        return FaultyStream(link.down, link.up)

    def _over(self, link: Link) -> Callable[[], None]:
        def over() -> None:
            self.links.remove(link)
            link.cut()  # closed already, unless nobody ever accepted it

        return over

    def of(self, name: str) -> list[Link]:
        """Return the connections of a name, oldest first."""
        return [link for link in self.links if link.name == name]


@final
class MemoryPort:
    """A server's side of a network. Made by `Network.port`.

    Attributes:
        port: 0: there is no TCP port.
    """

    def __init__(self, ports: list[MemoryPort]) -> None:
        self.port = 0
        self._ports = ports  # those that are open, the newest last
        self._ports.append(self)
        self._backlog: deque[tuple[Transport, Callable[[], None]]] = deque()
        self._arrived = trio.lowlevel.ParkingLot()

    async def accept(self, nursery: trio.Nursery, serve: Serve) -> None:
        """Have connections served in `nursery`, until cancelled."""
        try:
            while True:
                while self._backlog:
                    nursery.start_soon(_serve, serve, *self._backlog.popleft())
                await self._arrived.park()
        finally:
            self.close()

    def close(self) -> None:
        """Be there no longer."""
        if self in self._ports:
            self._ports.remove(self)
        while self._backlog:
            _, over = self._backlog.popleft()
            over()

    def serve(self, stream: FaultyStream, peer: str, over: Callable[[], None]) -> None:
        """Have one connection served.

        Args:
            stream: the server's end.
            peer: its network address.
            over: called when the server has let go of it.
        """
        self._backlog.append((Transport(stream, peer), over))
        self._arrived.unpark()


async def _serve(
    serve: Callable[[Transport], Awaitable[None]], transport: Transport, over: Callable[[], None]
) -> None:
    try:
        await serve(transport)
    finally:
        over()
