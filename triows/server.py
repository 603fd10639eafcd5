"""The supervisor: opens the port, owns bus and hub, and lets go of them in the right order.

    services   bus · hub flusher · pager · stall clock   outlive the handlers
      └─ handlers   one task a connection   outlive accepting
           └─ accepting

Streams that others serve in tasks of theirs are waited for, and cut off, as handlers are.

Leaving `async with open_server()` drains; cancelling aborts.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, final

import attrs
import trio

from triows import requests
from triows.administration import Administration
from triows.application import Application, Handler
from triows.auth import Authenticator, Authorizer, Identity, Revocable, Revocation, Revocations
from triows.bus import Bus
from triows.bus.engine import open_bus
from triows.codec import check_nesting, decode_data
from triows.config import Settings
from triows.connection import Connection
from triows.counters import Counts
from triows.errors import ErrorCode, HandshakeRefused
from triows.http import open_doors
from triows.http.front import Front, Upgrade
from triows.http.head import Head
from triows.hub import Hub
from triows.listener import Listener
from triows.listeners import Listeners, Port, Streams
from triows.messages import (
    LIFECYCLE,
    Message,
    MessageType,
    Patterns,
    Position,
    check_channel,
    check_message,
    event,
)
from triows.peer import Services
from triows.registry import Registry
from triows.stall import StallClock
from triows.statistics import ClosedConnection, ConnectionStatistics, ServerStatistics
from triows.tokens import JWTAuth
from triows.transport import Transport
from triows.wire import SUBPROTOCOL

logger = logging.getLogger("triows.server")

_ABOUT: Final = {"name": "triows", "version": version("triows"), "protocol": SUBPROTOCOL}


@final
class Server:
    """A running server, as its application sees it. Made by `open_server`."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        authorizer: Authorizer | None,
        handlers: Mapping[str, Handler],
    ) -> None:
        limits = settings.limits
        self.settings = settings
        self._hub = Hub()
        self._bus: Bus = open_bus(settings.store, settings.log, self._hub.mark, self._told)
        self._bus.renewed = self._hub.renew
        self._bus.present_here = lambda channel: [
            subscriber.describe() for subscriber in self._hub.subscribers(channel)
        ]
        revocations, counts = Revocations(), Counts()
        revocable = Revocable(authenticator, revocations)
        self._registry = Registry(limits, self._announce)
        self._accepting = trio.CancelScope()
        self._administration = Administration(
            self._registry, revocations, self._hub, self._bus, counts, StallClock(), self._accepting
        )
        self._bus.known_here = self._administration.describe
        self._services = Services(
            limits=limits,
            authenticator=revocable,
            application=Application(dict(handlers), authorizer, limits.handler_timeout),
            bus=self._bus,
            hub=self._hub,
            counts=counts,
            greeting={**limits.for_clients(), "server": _ABOUT},
        )
        public = {"/healthz": lambda: {"status": "ok"}, "/readyz": self._readiness}
        self._doors, missing = open_doors(settings, self._services, self._administration, public)
        self._front = Front(settings, revocable, self._registry, public, missing)
        self._listeners: Port | None = None
        self._streams = Streams()

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        assert self._listeners is not None
        return self._listeners.port

    @property
    def url(self) -> str:
        """The address clients connect to."""
        server = self.settings.server
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"{'wss' if server.tls_cert else 'ws'}://{host}:{self.port}/ws"

    # What an application does

    async def publish(self, channel: str, message: Message) -> Position:
        """Publish `message` and return its position once the engine has kept it.

        Never waits for a viewer. Cancelled, the outcome is unknown; publishing again with the
        same `id` finds out, and does not publish twice.

        Raises:
            RequestError: `bad_channel`, `bad_request`, `ended`, or what the engine says.
        """
        check_message(message)
        check_nesting(message.raw)
        if message.type == MessageType.END:
            decode_data(message, requests.END)
        return await self._bus.publish(check_channel(channel), message, "")

    def listen(self, *patterns: str) -> Listener:
        """Return an iterator over what is published from now on; see `Listener`.

        Args:
            patterns: channels, or prefixes of channels that end in `*`.
        """
        return Listener(self._hub, self._bus, Patterns.parse(patterns))

    def connections(self) -> list[ConnectionStatistics]:
        """Return a snapshot of every connection, oldest first."""
        return self._administration.connections()

    def closed_connections(self) -> list[ClosedConnection]:
        """Return the last connections that ended, newest last, with the reason of each."""
        return self._administration.closed_connections()

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the server as a whole."""
        return self._administration.statistics(self.connections())

    def disconnect(self, connection: str, reason: str = "by an administrator") -> bool:
        """End one connection with 4503, at once; False if there is none of that id."""
        return self._administration.disconnect(connection, reason)

    async def revoke(self, *, token_id: str | None = None, user: str | None = None) -> int:
        """Believe a token no more, or no token of a user that was issued until now.

        Its connections get nothing more from the moment this is awaited on and are closed with
        4503, within `limits.close_timeout` at the latest; one that has not taken what was sent
        before is cut without a word. Returns how many there were, when the engine has kept the
        revocation: with a store on disk it holds after a restart, too. Cancelled, it holds here.

        Raises:
            ConfigError: neither is named, or both are.
            RequestError: `unavailable`: it holds, but only for as long as this server runs.
        """
        return await self._administration.revoke(token_id=token_id, user=user)

    def drain(self) -> None:
        """Take no new connections, and end each one as soon as it has all that is its.

        Returns at once. Clients are told when to come back, spread over time.
        """
        self._administration.drain()

    async def wait_draining(self) -> None:
        """Wait until draining has begun: by `drain`, or by an administrator over HTTP."""
        await self._administration.draining.wait()

    # What a connection goes through

    async def serve_stream(self, stream: trio.abc.Stream, peer: str = "") -> None:
        """Serve one connection over any stream, to its end; never raises but Cancelled.

        The task is the caller's; leaving `open_server` waits for its end as for that of any other
        connection, and cuts it off when it cuts them off: then this returns, and from then on at
        once.

        Args:
            stream: taken over, and closed at the end.
            peer: the peer's network address, for rates and logs.
        """
        await self._streams.serve(self._serve, Transport(stream, peer))

    async def _serve(self, transport: Transport) -> None:
        admitted: list[Connection] = []

        def admit(upgrade: Upgrade) -> None:
            admitted.append(self._admit(transport, upgrade.identity))

        try:
            upgrade = await self._front.open(transport, admit)
            if isinstance(upgrade, Head):
                assert self._doors is not None
                await self._doors.serve(transport, upgrade)
            elif upgrade is not None:
                opening = admitted[0].run(upgrade.key, upgrade.rest, upgrade.subprotocol)
                del upgrade, admit  # nobody needs them while the connection lives
                await opening
        except Exception:
            logger.exception("serving a connection of %s failed", transport.peer)
        finally:
            await transport.close()  # noqa: ASYNC102 it does not wait

    def _admit(self, transport: Transport, identity: Identity | None) -> Connection:
        """Give a connection its place; plain, so that no revocation slips in between."""
        connection = Connection(transport, self._services, self._registry)
        self._registry.add(connection)
        if identity is not None:
            connection.authenticated(identity)
        return connection

    @asynccontextmanager
    async def _run(self, listeners: Port | None) -> AsyncIterator[None]:
        """Own the services, the handlers and the accepting.

        Leaving drains, an exception or cancellation aborts. The body's exception comes out as
        it is, not in a group: it is kept aside while the nurseries end.
        """
        self._listeners = listeners
        failure: BaseException | None = None
        async with trio.open_nursery() as services:
            services.start_soon(self._bus.run)
            services.start_soon(self._hub.run)
            services.start_soon(self._hub.pager.run, self._bus.fetch)
            services.start_soon(self._administration.stall.run)
            async with self._streams.open(), trio.open_nursery() as handlers:
                if listeners is not None:
                    handlers.start_soon(self._accept, listeners, handlers)
                try:
                    yield
                except BaseException as error:  # noqa: ASYNC103 raised again below
                    failure = error
                    handlers.cancel_scope.cancel(reason="the application failed")
                else:
                    self.drain()
                handlers.start_soon(self._streams.outlast)
                timeout = self.settings.limits.drain_timeout
                handlers.cancel_scope.deadline = trio.current_time() + timeout
            with trio.move_on_after(timeout if failure is None else 0):
                await self._bus.settle()
            services.cancel_scope.cancel(reason="the server has drained")
        if failure is not None:
            raise failure

    async def _accept(self, listeners: Port, handlers: trio.Nursery) -> None:
        with self._accepting:
            await listeners.accept(handlers, self._serve)

    def _readiness(self) -> dict[str, str]:
        if self._registry.draining:
            raise HandshakeRefused(
                503, ErrorCode.UNAVAILABLE, "the server is draining", retry_after=5
            )
        if self._bus.failure is not None:
            raise HandshakeRefused(503, ErrorCode.UNAVAILABLE, self._bus.failure, retry_after=5)
        return {"status": "ready"}

    def _told(self, revocation: Revocation) -> None:
        self._administration.cut(revocation)

    def _announce(self, data: dict[str, object]) -> None:
        self._bus.submit(LIFECYCLE, event(data), "", trio.current_time(), lambda *_: None)


@asynccontextmanager
async def open_server(
    *,
    auth: Authenticator | None = None,
    host: str | None = None,
    port: int | None = None,
    settings: Settings | None = None,
    authorize: Authorizer | None = None,
    on_command: Handler | None = None,
    handlers: Mapping[str, Handler] | None = None,
    listen: bool | Port = True,
) -> AsyncIterator[Server]:
    """Open a server for the duration of an `async with`.

    Leaving the block drains: each client gets what is still its own and is asked to come back,
    within `limits.drain_timeout`. Cancelling (or an exception) aborts. Either way no task and
    no socket is left.

    Args:
        auth: whose tokens are believed; None takes the section `auth` of `settings`.
        host, port: where to listen; None takes the section `server`.
        settings: everything else.
        authorize: asked instead of the grants in the tokens.
        on_command: the application's handler for `command`, see `Handler`.
        handlers: handlers for message types of its own, by type.
        listen: False opens no port: streams come by `Server.serve_stream`. Or a port of another
            kind than TCP's, as tests have it.

    Raises:
        ConfigError: no key, or the store or the port cannot be opened.
    """
    settings = settings or Settings()
    if host is not None:
        settings = attrs.evolve(settings, server=attrs.evolve(settings.server, host=host))
    if port is not None:
        settings = attrs.evolve(settings, server=attrs.evolve(settings.server, port=port))
    all_handlers = dict(handlers or {})
    if on_command is not None:
        all_handlers[MessageType.COMMAND] = on_command
    server = Server(settings, auth or JWTAuth.from_settings(settings.auth), authorize, all_handlers)
    async with server._bus:
        if isinstance(listen, bool):
            listeners: Port | None = await Listeners.open(settings.server) if listen else None
        else:
            listeners = listen
        async with server._run(listeners):
            yield server


async def serve(
    *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED, **options: Any
) -> None:
    """Run a server until cancelled, which aborts it.

    For `await nursery.start(partial(serve, ...))`, which returns the server once the port is
    open. To drain, call `Server.drain` first, or use `open_server`, which has the `options`.
    """
    async with open_server(**options) as server:
        task_status.started(server)
        await trio.sleep_forever()
