"""Who may in: from the first byte of a connection to an admitted WebSocket, or a request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, final

import attrs
import trio

from triows.auth import Authenticator, Identity
from triows.codec import encode_json, error_data
from triows.config import Settings
from triows.errors import AuthError, ErrorCode, HandshakeRefused, RequestError
from triows.http.head import (
    Head,
    PeerGone,
    check_origin,
    check_upgrade,
    find_token,
    read_head,
)
from triows.http.proxies import Proxies
from triows.limits import AddressRates
from triows.registry import Registry
from triows.transport import Transport
from triows.wire import SUBPROTOCOL

logger = logging.getLogger("triows.http")

MAX_PENDING: Final = 1024  # connections that are still opening; then the oldest has to go
LINGER: Final = 1.0  # seconds a peer has to take its answer before its socket is closed
_ELSEWHERE: Final = ("/api/", "/metrics", "/openapi.json", "/dashboard", "/triows.")

Resource = Callable[[], Any]
"""Returns what a GET answers, anything JSON."""


@attrs.frozen
class Upgrade:
    """A WebSocket to be served.

    Attributes:
        key: what the handshake is answered with (RFC 6455 section 4.2.2).
        rest: what came after the head already.
        subprotocol: the one to agree on, or None.
        identity: whose token came with it; None if an `auth` message is to come.
    """

    key: str
    rest: bytes
    subprotocol: str | None
    identity: Identity | None


@final
class Front:
    """Reads and checks the head of a connection's first request; a WebSocket is checked here.

    Args:
        settings: origins, timeouts, rates.
        authenticator: the same for WebSockets and for HTTP.
        registry: told of refusals.
        public: resources that everybody may read, by path; all that there is without `missing`.
        missing: what is not installed; None if other requests can be served.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        registry: Registry,
        public: Mapping[str, Resource],
        missing: ImportError | None,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._registry = registry
        self._public = public
        self._missing = missing
        self._rates = AddressRates(settings.limits.handshakes_per_second_per_address)
        self._pending: dict[trio.CancelScope, None] = {}
        self._loopback = is_loopback(settings)
        self._proxies = Proxies(settings.server.trusted_proxies)

    async def open(
        self, transport: Transport, admit: Callable[[Upgrade], None]
    ) -> Upgrade | Head | None:
        """Bring one connection to the point where it is a WebSocket, or known to be none.

        Args:
            transport: a fresh connection.
            admit: called with the upgrade, at once after its token was checked; may refuse.

        Returns:
            The head of a request that is served elsewhere; None if the request was answered,
            refused or never became whole.
        """
        with trio.move_on_after(self._settings.limits.handshake_timeout) as scope:
            self._pending[scope] = None
            if len(self._pending) > MAX_PENDING:
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                oldest.cancel(reason="too many connections are opening")
            try:
                await transport.start()
                return await self._open(transport, admit)
            except PeerGone:
                pass
            finally:
                self._pending.pop(scope, None)
        return None

    async def _open(
        self, transport: Transport, admit: Callable[[Upgrade], None]
    ) -> Upgrade | Head | None:
        method = "GET"
        try:
            head = await read_head(transport)
            method = head.method
            self._proxies.tell(transport, head)
            if head.path == "/ws":
                upgrade = await self._check(head, transport.peer)
                admit(upgrade)
                return upgrade
            if head.path not in self._public and self._missing is None:
                return head
            answer = encode_json(self._resource(head))
            await _send(transport, 200, answer, [], with_body=method != "HEAD")
        except HandshakeRefused as error:
            self._registry.refuse(error)
            logger.info("refused %s: %s", transport.peer, error)
            await answer_refusal(transport, error, with_body=method != "HEAD")
        return None

    async def _check(self, head: Head, peer: str) -> Upgrade:
        """Check everything about an opening handshake, the cheapest first."""
        server = self._settings.server
        check_upgrade(head)
        check_origin(head, server.allowed_origins, loopback=self._loopback)
        wait = self._rates.take(peer, trio.current_time())
        if wait:
            raise HandshakeRefused(
                429,
                ErrorCode.RATE_LIMITED,
                f"too many openings from {peer}",
                retry_after=int(wait) + 1,
            )
        offers = head.tokens("sec-websocket-protocol")
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offers else None
        if offers and subprotocol is None:
            raise HandshakeRefused(
                400, ErrorCode.BAD_REQUEST, f"the subprotocol must be {SUBPROTOCOL}"
            )
        token = find_token(head, in_query=server.token_in_query)
        identity = None
        if token is not None:
            identity = await self._authenticator.verify(token)
        elif subprotocol is None:
            # With the subprotocol agreed on, an `auth` message may follow: browsers cannot
            # send headers, and some would rather not put a token into a subprotocol.
            raise AuthError("no token: send one as `Authorization: Bearer <token>`")
        return Upgrade(head.header("sec-websocket-key"), head.rest, subprotocol, identity)

    def _resource(self, head: Head) -> Any:
        resource = self._public.get(head.path)
        if resource is not None:
            if head.method not in ("GET", "HEAD"):
                raise HandshakeRefused(
                    405, ErrorCode.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here"
                )
            return resource()
        if head.path.startswith(_ELSEWHERE) or head.path == "/":
            raise HandshakeRefused(
                501,
                ErrorCode.NOT_INSTALLED,
                f"this server was installed without its HTTP side ({self._missing}): "
                "pip install 'triows[server]'",
            )
        raise nothing_at(head)


def is_loopback(settings: Settings) -> bool:
    """Whether only this machine can connect."""
    return settings.server.host in ("127.0.0.1", "::1", "localhost")


def nothing_at(head: Head) -> HandshakeRefused:
    """Return the refusal of a path that leads nowhere."""
    return HandshakeRefused(404, ErrorCode.NOT_FOUND, f"there is nothing at {head.path[:100]!r}")


def error_body(error: HandshakeRefused) -> bytes:
    """Return the JSON that says why."""
    as_request = RequestError(error.code, error.message, retry_after=error.retry_after)
    return encode_json({"type": "error", "data": error_data(as_request)})


def error_headers(error: HandshakeRefused) -> list[tuple[str, str]]:
    """Return the headers that go with the status of a refusal."""
    headers = []
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    if error.status == HTTPStatus.UPGRADE_REQUIRED:
        headers += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    return headers


async def answer_refusal(
    transport: Transport, error: HandshakeRefused, *, with_body: bool = True
) -> None:
    """Refuse a request in JSON, and let the peer take it."""
    await _send(
        transport, error.status, error_body(error), error_headers(error), with_body=with_body
    )


async def _send(
    transport: Transport,
    status: int,
    body: bytes,
    extra: list[tuple[str, str]],
    *,
    with_body: bool,
) -> None:
    text = body + b"\n"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(f"{name}: {value}" for name, value in extra),
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    with trio.move_on_after(LINGER):
        try:
            await transport.send_all(head + text if with_body else head)
        except (OSError, trio.BrokenResourceError):
            return
        await linger(transport)


async def linger(transport: Transport) -> None:
    """Let the peer take its answer, until it hangs up: closed with bytes unread, a socket would
    reset, and the answer might be lost. The caller has the deadline.
    """
    await transport.finish()
    while await transport.receive():
        pass
