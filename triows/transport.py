"""One byte stream to a peer: a socket of our own, or any Trio stream.

A socket takes the fast path: what it accepts at once needs no task to wait. TLS and in-memory
streams run the same code without that.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, Protocol, runtime_checkable

import trio

_RECEIVE: Final = 64 * 1024  # bytes asked for at once
_PIECE: Final = 16 * 1024  # bytes a stream is given at once: so progress can be seen (a TLS record)
_SEND_BUFFER: Final = 256 * 1024
"""Bytes the kernel may hold for one peer: else a stalled viewer costs megabytes of its memory."""

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: throw away what was not sent


class Sink(Protocol):
    """What says at once what it takes: a socket that does not block."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send what is accepted at once; return how many bytes. Raises OSError: nothing is."""


@runtime_checkable
class EagerStream(Protocol):
    """A stream that says at once what it takes, as a socket does: it has the fast path, too."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what is accepted at once; return how many bytes. Raises OSError."""


class _Eager:
    """Such a stream as what a socket is, too."""

    __slots__ = ("send",)

    def __init__(self, stream: EagerStream) -> None:
        self.send = stream.try_send


class Transport:
    """Bytes in, bytes out.

    Attributes:
        sink: what says at once what it takes, if there is such a thing.
        address: the network address of who is connected.
        peer: the same, or for whom it speaks: for counting and for logs.
        received: bytes so far.
        sent: bytes so far, as the socket took them.
    """

    __slots__ = ("_socket", "_stream", "address", "peer", "received", "sent", "sink")

    def __init__(self, stream: trio.abc.Stream, peer: str) -> None:
        self._stream: trio.abc.Stream | None = stream
        self._socket: socket.socket | None = None
        self.sink: Sink | None = _Eager(stream) if isinstance(stream, EagerStream) else None
        self.address = self.peer = peer
        self.received = 0
        self.sent = 0

    @classmethod
    def from_socket(cls, sock: socket.socket, peer: str) -> Transport:
        """Take over a connected, non-blocking stream socket."""
        with contextlib.suppress(OSError):  # a peer that is gone is noticed by reading
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = cls.__new__(cls)
        transport._stream = None
        transport._socket = transport.sink = sock
        transport.address = transport.peer = peer
        transport.received = transport.sent = 0
        return transport

    async def start(self) -> None:
        """Do what comes before the first byte: for TLS its handshake.

        A peer that fails it is gone: the next `receive` says so.
        """
        if isinstance(self._stream, trio.SSLStream):
            with contextlib.suppress(trio.BrokenResourceError):
                await self._stream.do_handshake()

    async def receive(self) -> bytes:
        """Return the next bytes; empty when the peer is gone, politely or not."""
        data = await self._receive()
        self.received += len(data)
        return data

    async def _receive(self) -> bytes:
        try:
            if self._socket is None:
                assert self._stream is not None
                return bytes(await self._stream.receive_some(_RECEIVE))
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                with contextlib.suppress(BlockingIOError):
                    return self._socket.recv(_RECEIVE)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what is accepted at once; return how many bytes that was.

        Raises:
            OSError: the peer is gone.
        """
        try:
            sent = self.sink.send(data) if self.sink is not None else 0
        except BlockingIOError:
            return 0
        self.sent += sent
        return sent

    async def wait_writable(self) -> None:
        """Wait until `try_send` may send something; at once for a stream that cannot say when.

        Raises:
            OSError, trio.BrokenResourceError: the peer is gone.
        """
        if self._socket is not None:
            await trio.lowlevel.wait_writable(self._socket)
        elif self.sink is not None:
            assert self._stream is not None
            await self._stream.wait_send_all_might_not_block()

    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait until some of `data` was accepted; return how many bytes.

        Cancelled, a stream that is no socket may have sent a part: it must be closed then.

        Raises:
            OSError, trio.BrokenResourceError: the peer is gone.
        """
        await self.wait_writable()
        if self.sink is not None:
            return self.try_send(data)
        assert self._stream is not None
        piece = data[:_PIECE]
        await self._stream.send_all(piece)
        self.sent += len(piece)
        return len(piece)

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; errors and cancellation as in `send_some`."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self.send_some(rest) :]

    async def finish(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_WR)
            elif isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()

    async def close(self, *, reset: bool = False) -> None:
        """Close by force, without waiting for the peer; can be called again.

        Args:
            reset: throw away what the kernel still holds for the peer.
        """
        if self._stream is not None:
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                await trio.aclose_forcefully(self._stream)
        elif self._socket is not None and self._socket.fileno() != -1:
            if reset:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
