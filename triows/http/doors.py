"""The HTTP side of a server: from the head of a request to its answer.

Origin, token and query are checked here, once for all operations, and every answer gets the
headers that all have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, final

import trio
from starlette.responses import Response
from starlette.routing import Route, Router

from triows.auth import Identity
from triows.config import Settings
from triows.errors import AuthError, ErrorCode, HandshakeRefused, RequestError
from triows.http.answers import answer, empty, refusal
from triows.http.api import HANDLERS
from triows.http.call import Call, Rooms, read_query
from triows.http.exchange import Exchange
from triows.http.front import LINGER, Resource, answer_refusal, is_loopback, linger, nothing_at
from triows.http.head import Head, PeerGone, check_origin, find_token
from triows.http.operations import OPERATIONS, Grant, Operation
from triows.http.proxies import Proxies
from triows.http.rates import Turns
from triows.http.serving import Receive, Send, configure, serve
from triows.http.static import Files
from triows.limits import AddressRates
from triows.transport import Transport

logger = logging.getLogger("triows.http")

_RETRY_AFTER: Final = 5  # seconds a client is asked to wait for a place
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, If-None-Match",
    "Access-Control-Max-Age": "600",
}
_HARDENING: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@final
class Doors:
    """Serves connections that speak HTTP.

    Args:
        settings: origins, limits.
        rooms: what is asked about.
        public: further resources that everybody may read, by path.
    """

    def __init__(self, settings: Settings, rooms: Rooms, public: Mapping[str, Resource]) -> None:
        self._origins = settings.server.allowed_origins
        self._loopback = is_loopback(settings)
        self._limits = settings.limits
        self._proxies = Proxies(settings.server.trusted_proxies)
        self._rooms = rooms
        self._registry = rooms.administration.registry
        self._failures = AddressRates(settings.limits.handshakes_per_second_per_address)
        self._turns = Turns(settings.limits.max_connections_per_user)
        self._public = public
        self._config = configure(settings.limits.max_message_bytes)
        self._files = Files.load()
        paths: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method] = operation
        self._router = Router(
            [
                Route(path.replace("{channel}", "{channel:path}"), _Path(self, operations))
                for path, operations in paths.items()
            ],
            redirect_slashes=False,
            default=_Path(self, {}),
        )

    async def serve(self, transport: Transport, head: Head) -> None:
        """Serve one connection to its end; the transport is closed by the caller."""
        if not self._make_room():
            error = HandshakeRefused(
                503,
                ErrorCode.UNAVAILABLE,
                f"{len(self._registry.guests)} HTTP connections are open and all are busy; "
                f"the limit is {self._limits.max_http_connections}",
                retry_after=_RETRY_AFTER,
            )
            self._registry.refuse(error)
            await answer_refusal(transport, error)
            return
        exchange = Exchange(transport, head, self._limits)
        self._registry.guests[exchange] = None

        async def respond(receive: Receive, send: Send) -> None:
            await self._respond(exchange, receive, send)

        try:
            await serve(exchange, self._config, respond)
            if not exchange.lost:
                with trio.move_on_after(LINGER):
                    await linger(transport)
        finally:
            self._registry.guests.pop(exchange, None)
            if exchange.reset:
                await transport.close(reset=True)  # noqa: ASYNC102 it does not wait

    def _make_room(self) -> bool:
        """Have one connection end, if there are too many: the one idle for longest, or else one
        that does not take its answer.
        """
        limit, guests = self._limits.max_http_connections, self._registry.guests
        if not limit or len(guests) < limit:
            return True
        exchanges = [guest for guest in guests if isinstance(guest, Exchange)]
        for exchange in exchanges:
            if exchange.is_idle:
                del guests[exchange]
                exchange.drain()
                return True
        for exchange in exchanges:
            if exchange.is_stuck:
                del guests[exchange]
                exchange.break_off()
                return True
        return False

    async def _respond(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        request = exchange.requests.popleft()
        registry = self._registry
        try:
            if exchange in registry.guests:  # not one that had to make room
                registry.guests[exchange] = registry.guests.pop(exchange)  # the newest
            if isinstance(request, HandshakeRefused):
                await self._finish(None, refusal(request), receive, send)
                return
            self._proxies.tell(exchange.transport, request)
            scope: dict[str, Any] = {
                "type": "http",
                "method": request.method,
                "path": request.path,
                "root_path": "",
                "exchange": exchange,
                "head": request,
            }
            await self._router(scope, receive, send)
        except PeerGone:
            pass
        finally:
            exchange.answered()

    async def answer(
        self, scope: Any, receive: Receive, send: Send, operations: Mapping[str, Operation]
    ) -> None:
        """Answer one request to a path where `operations` are, by method."""
        head, exchange = scope["head"], scope["exchange"]
        path = scope.get("path_params", {})
        response: Any
        try:
            check_origin(head, self._origins, loopback=self._loopback)
            if head.method == "OPTIONS" and self._is_foreign(head):
                response = empty(204, _PREFLIGHT)
            elif not operations:
                response = self._plain(head)
            else:
                call = await self._check(head, exchange, receive, path, operations)
                response = await self._handle(call)
        except (HandshakeRefused, RequestError) as error:
            self._rooms.services.counts.errors[error.code] += 1
            response = refusal(error)
        except PeerGone:
            raise
        except Exception:
            logger.exception("answering %s %s failed", head.method, head.path[:100])
            response = refusal(HandshakeRefused(500, ErrorCode.INTERNAL, "the server failed"))
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(_allowed(operations)) or "GET, HEAD"
        await self._finish(head, response, receive, send)

    async def _handle(self, call: Call) -> Response:
        handler = HANDLERS[call.operation.name]
        if call.identity is None:
            return await handler(call)
        with self._turns.take(call.identity.user):
            return await handler(call)

    async def _finish(
        self, head: Head | None, response: Response, receive: Receive, send: Send
    ) -> None:
        """Send an answer, with the headers that all have."""
        for name, value in _HARDENING.items():
            response.headers.setdefault(name, value)
        if head is not None and self._is_foreign(head):
            response.headers["Access-Control-Allow-Origin"] = head.header("origin")
            response.headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"
            response.headers["Vary"] = "Origin"
        if head is None or self._registry.draining:
            response.headers["Connection"] = "close"
        self._rooms.services.counts.answers[response.status_code] += 1
        await response({"type": "http"}, receive, send)

    def _is_foreign(self, head: Head) -> bool:
        """Whether a page of another origin asks; only one of those that may gets that far."""
        origin = head.header("origin")
        return bool(origin) and ("*" in self._origins or origin in self._origins)

    def _plain(self, head: Head) -> Response:
        """Answer with a file, or what everybody may know."""
        resource, file = self._public.get(head.path), self._files.find(head)
        if resource is None and file is None:
            raise nothing_at(head)
        if head.method not in ("GET", "HEAD"):
            raise HandshakeRefused(
                405, ErrorCode.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here"
            )
        if file is not None:
            return file
        assert resource is not None
        return answer(resource())

    async def _check(
        self,
        head: Head,
        exchange: Exchange,
        receive: Receive,
        path: Mapping[str, str],
        operations: Mapping[str, Operation],
    ) -> Call:
        """Check what all operations have in common: method, token, query."""
        operation = operations.get("GET" if head.method == "HEAD" else head.method)
        if operation is None or (head.method == "HEAD" and operation.name == "events"):
            raise HandshakeRefused(
                405,
                ErrorCode.METHOD_NOT_ALLOWED,
                f"{head.method[:20]} is not for {head.path[:100]!r}: "
                f"expected {', '.join(_allowed(operations))}",
            )
        token = find_token(head, in_query=False)
        identity: Identity | None = None
        if operation.grant is not Grant.NONE:
            identity = await self._identify(token, exchange.transport.peer)
            if operation.grant is Grant.ADMIN and not identity.grants.admin:
                raise HandshakeRefused(
                    403, ErrorCode.FORBIDDEN, f"{identity.user} is no administrator"
                )
        query = read_query(operation, head.query)
        return Call(self._rooms, exchange, receive, head, operation, path, identity, query)

    async def _identify(self, token: str | None, address: str) -> Identity:
        """Return whose token it is. What is not believed counts for the address, what is does
        not: nobody is shut out by those who share an address with them.
        """
        try:
            if token is None:
                raise AuthError("no token: send one as `Authorization: Bearer <token>`")
            return await self._rooms.services.authenticator.verify(token)
        except AuthError as error:
            wait = self._failures.take(address, trio.current_time())
            if wait:
                rate = self._limits.handshakes_per_second_per_address
                raise HandshakeRefused(
                    429,
                    ErrorCode.RATE_LIMITED,
                    f"more than {rate:g} requests a second from {address} without a token that is "
                    "believed (limits.handshakes_per_second_per_address)",
                    retry_after=int(wait) + 1,
                ) from error
            raise


class _Path:
    """Everything that can be asked at one path."""

    def __init__(self, doors: Doors, operations: Mapping[str, Operation]) -> None:
        self._doors = doors
        self._operations = operations

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await self._doors.answer(scope, receive, send, self._operations)


def _allowed(operations: Mapping[str, Operation]) -> list[str]:
    """Return the methods that are answered."""
    methods = list(operations)
    if "GET" in operations and operations["GET"].name != "events":
        methods.append("HEAD")
    return methods
