"""Where connections come from: the open port, and others who hand us streams.

The port's sockets we make ourselves, so that each can take the fast path.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, final

import trio

from triows.config import ServerSettings
from triows.errors import ConfigError
from triows.transport import Transport

logger = logging.getLogger("triows.server")

_BACKLOG: Final = 4096  # openings the kernel may hold; it cuts this down to somaxconn
_AT_ONCE: Final = 64  # connections accepted before others get a turn
_PAUSE: Final = 0.1  # seconds to wait when there are no file descriptors left
_NO_CAPACITY: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

Serve = Callable[[Transport], Awaitable[None]]


class Port(Protocol):
    """Where a server's connections come from: `Listeners`, or another network than TCP's."""

    port: int
    """The TCP port, if there is one."""

    async def accept(self, nursery: trio.Nursery, serve: Serve) -> None:
        """Run `serve` in `nursery` for each connection, until cancelled."""


@final
class Listeners:
    """The sockets listened on, one for each address of the host's name.

    Attributes:
        port: the TCP port.
    """

    def __init__(self, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        self._sockets = sockets
        self._tls = tls
        self.port: int = sockets[0].getsockname()[1]

    @classmethod
    async def open(cls, server: ServerSettings) -> Listeners:
        """Bind and listen.

        Raises:
            ConfigError: the address cannot be bound, or the certificate not be read.
        """
        tls = _load_certificate(server)
        sockets = await bind(server.host, server.port, shared=server.workers > 1)
        try:
            if server.worker_port:
                sockets += await bind(server.host, server.worker_port, setting="worker_port")
            for bound in sockets:
                bound.listen(_BACKLOG)
        except OSError as error:
            close(sockets)
            raise _cannot_listen(server.host, server.port, "port", error) from error
        except BaseException:
            close(sockets)
            raise
        return cls(sockets, tls)

    async def accept(self, nursery: trio.Nursery, serve: Serve) -> None:
        """Run `serve` in `nursery` for each connection, until cancelled."""
        try:
            async with trio.open_nursery() as accepting:
                for listening in self._sockets:
                    accepting.start_soon(self._accept, listening, nursery, serve)
        finally:
            self.close()

    def close(self) -> None:
        """Listen no longer."""
        close(self._sockets)

    async def _accept(self, listening: socket.socket, nursery: trio.Nursery, serve: Serve) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(_AT_ONCE):
                try:
                    accepted, address = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_CAPACITY:
                        logger.error("cannot accept a connection: %s", error)
                        await trio.sleep(_PAUSE)
                    break  # anything else went wrong with that one connection only
                accepted.setblocking(False)
                nursery.start_soon(serve, self._transport(accepted, address[0]))

    def _transport(self, accepted: socket.socket, peer: str) -> Transport:
        if self._tls is None:
            return Transport.from_socket(accepted, peer)
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        stream = trio.SSLStream(plain, self._tls, server_side=True, https_compatible=True)
        return Transport(stream, peer)


@final
class Streams:
    """Connections that others accept and serve in tasks of theirs; they end with the server."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, None] = {}
        self._over = trio.lowlevel.ParkingLot()
        self._open = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have them served until this is left: then those that are left are cut off, and seen to
        end, and none begins any more.
        """
        self._open = True
        try:
            yield
        finally:
            self._open = False
            for scope in self._scopes:
                scope.cancel(reason="the server has ended")
            with trio.CancelScope(shield=True):  # not for long: all are cancelled
                await self.outlast()

    async def serve(self, serve: Serve, transport: Transport) -> None:
        """Run `serve` in this task; returns early when `open` is left."""
        with trio.CancelScope() as scope:
            if not self._open:
                await transport.close()
                return
            self._scopes[scope] = None
            try:
                await serve(transport)
            finally:
                del self._scopes[scope]
                self._over.unpark_all()

    async def outlast(self) -> None:
        """Wait until none is left."""
        while self._scopes:
            await self._over.park()


async def bind(
    host: str, port: int, *, shared: bool = False, setting: str = "port"
) -> list[socket.socket]:
    """Return a socket for each address of `host`, all bound to one port, none listening yet.

    Args:
        host: name or address.
        port: 0 picks a free one.
        shared: other processes of this user may bind it too; the kernel deals connections out to
            those that listen.
        setting: of the section `server`, for the error.

    Raises:
        ConfigError: somebody else has the port, or the address is none of ours.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:  # IPv6 is switched off, say
                    continue
                raise
            sockets.append(bound)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            port = bound.getsockname()[1]
        if not sockets:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    except OSError as error:
        close(sockets)
        raise _cannot_listen(host, port, setting, error) from error
    return sockets


def close(sockets: list[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()


def _cannot_listen(host: str, port: int, setting: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host} port {port}: {error}; set server.host or server.{setting}"
    )


def _load_certificate(server: ServerSettings) -> ssl.SSLContext | None:
    if not server.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except OSError as error:  # ssl.SSLError is one too
        raise ConfigError(
            f"cannot read server.tls_cert {server.tls_cert} with server.tls_key "
            f"{server.tls_key}: {error}"
        ) from error
    return context
