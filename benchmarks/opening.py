"""Opens connections, thousands of them, with the HTTP upgrade done by hand."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from typing import TypeAlias

from benchmarks.load import Keeper, LoadError, receive, spin

Script: TypeAlias = list[tuple[bytes, bytes]]
"""What opens a connection: bytes to send, and what the answer must contain to go on."""

OPENING = 500
"""Connections that are being opened at the same time."""

PORTS = 5000
"""Connections from one loopback address."""

_NO_PORT_YET = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect, once it knows where to
_ESTABLISHED = 1  # first byte of TCP_INFO


def connect(port: int, number: int = 0, *, stalled: bool = False) -> socket.socket:
    """Begin to connect.

    Args:
        port: of the server.
        number: of the connection: chooses the source address.
        stalled: give it small buffers; the small segments keep the server's end small as well.
    """
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT
    if stalled:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    if number >= PORTS:
        client.setsockopt(socket.IPPROTO_IP, _NO_PORT_YET, 1)
        client.bind((f"127.0.0.{1 + number // PORTS}", 0))
    client.connect_ex(("127.0.0.1", port))
    return client


def is_open(client: socket.socket) -> bool:
    """Whether the connection still stands, as far as the kernel has heard."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


class _Opener:
    """Brings connections through their scripts, some at a time."""

    def __init__(
        self,
        scripts: list[Script],
        start: Callable[[int], socket.socket],
        keeper: Keeper | None,
    ) -> None:
        self.sockets: list[socket.socket] = []
        self._keeper = keeper
        self._scripts = scripts
        self._start = start
        self._poll = select.epoll()
        self._under_way: dict[int, int] = {}  # file descriptor: number
        self._steps = [0] * len(scripts)
        self._heard = [b""] * len(scripts)

    def run(self) -> None:
        while len(self.sockets) < len(self._scripts) or self._under_way:
            while len(self.sockets) < len(self._scripts) and len(self._under_way) < OPENING:
                self._begin(len(self.sockets))
            for fd, event in spin(self._poll):
                self._go_on(self._under_way[fd], event)
            if self._keeper is not None:
                self._keeper.serve(0)
        self._poll.close()

    def _begin(self, number: int) -> None:
        client = self._start(number)
        self.sockets.append(client)
        self._under_way[client.fileno()] = number
        self._poll.register(client, select.EPOLLOUT)

    def _go_on(self, number: int, event: int) -> None:
        client, script = self.sockets[number], self._scripts[number]
        if event == select.EPOLLOUT:  # connected
            client.send(script[0][0])
            self._poll.modify(client, select.EPOLLIN)
            return
        data = receive(client)
        self._heard[number] += data
        if not data:
            raise LoadError(
                f"connection {number} was refused while {len(self._under_way)} were opening, "
                f"at step {self._steps[number]}: {self._heard[number]!r}"
            )
        self._step(number, client, script)

    def _step(self, number: int, client: socket.socket, script: Script) -> None:
        """Go on for as long as the answers are there."""
        while script[self._steps[number]][1] in self._heard[number]:
            self._heard[number] = self._heard[number].split(script[self._steps[number]][1], 1)[1]
            self._steps[number] += 1
            if self._steps[number] == len(script):
                self._poll.unregister(client)
                del self._under_way[client.fileno()]
                if self._keeper is not None:
                    self._keeper.add(client)
                return
            if script[self._steps[number]][0]:
                client.send(script[self._steps[number]][0])


def open_all(
    port: int,
    scripts: list[Script],
    start: Callable[[int], socket.socket] | None = None,
    keeper: Keeper | None = None,
) -> list[socket.socket]:
    """Open one connection for each script and return them, in order.

    Args:
        start: begins to connect, given the number of the connection.
        keeper: takes on each connection as soon as it is open.
    """
    opener = _Opener(scripts, start or (lambda number: connect(port, number)), keeper)
    try:
        opener.run()
    except BaseException:
        close_all(opener.sockets)
        raise
    return opener.sockets


def close_all(clients: Iterable[socket.socket]) -> None:
    """Close connections, at once."""
    for client in clients:
        client.close()
