"""The load generator: raw sockets and one epoll, no WebSocket library, one thread.

Nothing is parsed while time is taken. Deliveries are counted by their bytes, for their lengths
are known beforehand; answers by a marker, one byte that each holds exactly once, so that it does
not matter how they are torn apart.

It polls without sleeping, for it has a core of its own. A reader that sleeps has to be woken for
nearly every message, and the kernel does that in the sender's time: the servers would be
measured by what it costs to wake their reader up.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping

from benchmarks.frames import CLOSE, PING, PONG, client_frame, split_frame

PATIENCE = 15.0
"""Seconds without a single byte after which a run has failed."""

BUFFER = 512 * 1024


idle_seconds = 0.0
"""How long the generator has been polling in vain, since the start."""


def spin(poll: select.epoll) -> list[tuple[int, int]]:
    """Return what is ready; polls in vain until something is."""
    global idle_seconds
    events = poll.poll(0, 1024)
    if events:
        return events
    began = time.perf_counter()
    while not events:
        events = poll.poll(0, 1024)
        if not events and time.perf_counter() - began > PATIENCE:
            raise LoadError(f"nothing came for {PATIENCE:g} s")
    idle_seconds += time.perf_counter() - began
    return events


class LoadError(Exception):
    """A server did not do what a workload needs."""


class Unable(Exception):
    """A candidate has not what a workload needs; says what."""


class Keeper:
    """Keeps idle connections alive: answers their pings.

    Attributes:
        pings: how many came.
        ended: how many connections the server closed.

    Args:
        answers: what to send to messages that are pings as well.
    """

    def __init__(self, answers: Mapping[bytes, bytes]) -> None:
        self._answers = answers
        self.pings = 0
        self.ended = 0
        self._poll = select.epoll()
        self._clients: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}

    def add(self, client: socket.socket) -> None:
        """Take on a connection."""
        self._clients[client.fileno()] = client
        self._rests[client.fileno()] = b""
        self._poll.register(client, select.EPOLLIN)

    def hold(self, seconds: float) -> None:
        """Do so for that time."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self.serve(left)

    def serve(self, timeout: float) -> None:
        """Answer what is there, or comes first within `timeout` seconds."""
        for fd, _ in self._poll.poll(timeout):
            client = self._clients[fd]
            data = receive(client)
            frames, self._rests[fd] = _frames(self._rests[fd] + data)
            for opcode, payload in frames:
                if opcode == PING or payload in self._answers:
                    self.pings += 1
                    send(client, self._answers.get(payload) or client_frame(payload, PONG))
            if not data or any(opcode == CLOSE for opcode, _ in frames):
                self._poll.unregister(fd)
                self.ended += 1


def send(client: socket.socket, data: bytes) -> None:
    """Send all of `data`, waiting if need be."""
    sent = client.send(data)
    while sent < len(data):
        writable = select.poll()
        writable.register(client, select.POLLOUT)
        if not writable.poll(PATIENCE * 1000):
            raise LoadError("the server reads no more")
        sent += client.send(data[sent:])


class Reader:
    """Reads from many connections, and counts the bytes, or a marker among them.

    Args:
        clients: the connections.
        marker: the byte to count; empty counts all.
    """

    def __init__(self, clients: list[socket.socket], marker: bytes = b"") -> None:
        self._marker = marker
        self._buffer = bytearray(BUFFER)
        self._poll = select.epoll()
        self._receive = {client.fileno(): client.recv_into for client in clients}
        for client in clients:
            self._poll.register(client, select.EPOLLIN | select.EPOLLET)

    def wait(self, size: int) -> None:
        """Read until `size` of what is counted have come, together; more is an error."""
        receive, buffer, marker = self._receive, self._buffer, self._marker
        missing = size
        while missing > 0:
            for fd, _ in spin(self._poll):
                received = receive[fd](buffer)
                missing -= buffer.count(marker, 0, received) if marker else received
                if received == BUFFER:
                    missing -= self._rest(fd)
                elif not received:
                    raise LoadError("a connection was closed")
        if missing:
            raise LoadError(f"{-missing} {self._unit()} too many")

    def _rest(self, fd: int) -> int:
        """Read on, after a full buffer, until there is nothing more."""
        size = 0
        while True:
            try:
                received = self._receive[fd](self._buffer)
            except BlockingIOError:
                return size
            if not received:
                raise LoadError("a connection was closed")
            size += self._buffer.count(self._marker, 0, received) if self._marker else received

    def _unit(self) -> str:
        return f"of {self._marker!r}" if self._marker else "bytes"


class Asker:
    """Sends requests on many connections, so many under way on each, and counts the answers.

    Args:
        clients: the connections.
        marker: the byte that each answer holds once.
        sources: for each connection, what returns the bytes of that many new requests.
        window: how many are under way on each connection.
    """

    def __init__(
        self,
        clients: list[socket.socket],
        marker: bytes,
        sources: list[Callable[[int], bytes]],
        window: int,
    ) -> None:
        self.answered = 0
        self._window = window
        self._marker = marker
        self._clients = {client.fileno(): client for client in clients}
        self._sources = {
            client.fileno(): source for client, source in zip(clients, sources, strict=True)
        }
        self._missing = dict.fromkeys(self._clients, 0)
        self._poll = select.epoll()
        for client in clients:
            self._poll.register(client, select.EPOLLIN)

    def start(self) -> None:
        """Send the first requests of every connection."""
        for fd, client in self._clients.items():
            send(client, self._sources[fd](self._window))
            self._missing[fd] = self._window

    def run(self, until: float) -> None:
        """Keep the requests coming until that time; leaves some under way."""
        buffer, marker, window = bytearray(BUFFER), self._marker, self._window
        clients, sources, missing = self._clients, self._sources, self._missing
        answered = 0
        while time.perf_counter() < until:
            for fd in self._ready():
                client = clients[fd]
                size = client.recv_into(buffer)
                count = buffer.count(marker, 0, size)
                answered += count
                missing[fd] -= count
                if not missing[fd]:
                    send(client, sources[fd](window))
                    missing[fd] = window
                elif not size or missing[fd] < 0:
                    raise LoadError("a connection was closed, or gave too many answers")
        self.answered += answered

    def finish(self) -> None:
        """Wait for the answers to all that is under way."""
        while any(self._missing.values()):
            for fd in self._ready():
                data = self._clients[fd].recv(BUFFER)
                self._missing[fd] -= data.count(self._marker)
                if not data or self._missing[fd] < 0:
                    raise LoadError("a connection was closed, or gave too many answers")

    def _ready(self) -> list[int]:
        return [fd for fd, _ in spin(self._poll)]


def receive(client: socket.socket) -> bytes:
    """Return what is there; nothing when the connection has ended, in whatever way."""
    try:
        return client.recv(65536)
    except OSError:
        return b""


def _frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    frames = []
    while (parts := split_frame(data)) is not None:
        opcode, payload, data = parts
        frames.append((opcode, payload))
    return frames, data


def wait_readable(client: socket.socket, before: bytes = b"") -> None:
    """Wait until something comes after `before`."""
    readable = select.poll()
    readable.register(client, select.POLLIN)
    if not readable.poll(PATIENCE * 1000):
        raise LoadError(f"nothing came after {before[-1000:]!r}")


def read_message(client: socket.socket, pings: Mapping[bytes, bytes] = {}) -> bytes:
    """Wait for the next message that is not one of `pings`, and return it."""
    data = b""
    while True:
        wait_readable(client, data)
        received = receive(client)
        data += received
        frames, data = _frames(data)
        messages = [payload for kind, payload in frames if kind != PING and payload not in pings]
        if len(messages) > 1 or (messages and data):
            raise LoadError(f"more than one message came: {messages!r} {data!r}")
        if messages:
            return messages[0]
        if not received:
            raise LoadError(f"the connection was closed after {data!r}")
