"""Who may in: from the first byte of a connection to an admitted WebSocket, or an answer."""

from __future__ import annotations

import logging
from collections import Counter
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
from triows.limits import AddressRates
from triows.transport import Transport
from triows.wire import SUBPROTOCOL

logger = logging.getLogger("triows.http")

MAX_PENDING: Final = 1024  # connections that are still opening; then the oldest has to go
_LINGER: Final = 1.0  # seconds a peer has to take its answer before its socket is closed

Resource = Callable[[], Any]
"""Returns what a GET answers, anything JSON."""


@attrs.frozen
class Upgrade:
    """A WebSocket to be served.

    Attributes:
        head, rest: see `Head`.
        subprotocol: the one to agree on, or None.
        identity: whose token came with it; None if an `auth` message is to come.
    """

    head: bytes
    rest: bytes
    subprotocol: str | None
    identity: Identity | None


@final
class Front:
    """Reads, checks and answers requests until one opens a WebSocket.

    Args:
        settings: origins, timeouts, rates.
        authenticator: the same for WebSockets and for HTTP.
        public: resources that everybody may read, by path.
        private: resources for administrators, by path.

    Attributes:
        refused: how many were refused, by status.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        public: Mapping[str, Resource],
        private: Mapping[str, Resource],
    ) -> None:
        self.refused: Counter[int] = Counter()
        self._settings = settings
        self._authenticator = authenticator
        self._public = public
        self._private = private
        self._rates = AddressRates(settings.limits.handshakes_per_second_per_address)
        self._pending: dict[trio.CancelScope, None] = {}
        self._loopback = settings.server.host in ("127.0.0.1", "::1", "localhost")

    async def open(self, transport: Transport, admit: Callable[[Upgrade], None]) -> Upgrade | None:
        """Bring one connection to the point where it is a WebSocket.

        Args:
            transport: a fresh connection.
            admit: called with the upgrade, at once after its token was checked; may refuse.

        Returns:
            None if the request was answered, refused or never became whole.
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

    async def _open(self, transport: Transport, admit: Callable[[Upgrade], None]) -> Upgrade | None:
        method = "GET"
        try:
            head = await read_head(transport)
            method = head.method
            if head.path == "/ws":
                upgrade = await self._check(head, transport.peer)
                admit(upgrade)
                return upgrade
            status, body = 200, await self._resource(head)
            retry_after = None
        except HandshakeRefused as error:
            self.refused[error.status] += 1
            logger.info("refused %s: %s", transport.peer, error)
            request_error = RequestError(error.code, error.message, retry_after=error.retry_after)
            status, body = error.status, {"type": "error", "data": error_data(request_error)}
            retry_after = error.retry_after
        await _answer(transport, status, body, retry_after, with_body=method != "HEAD")
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
        return Upgrade(head.raw, head.rest, subprotocol, identity)

    async def _resource(self, head: Head) -> Any:
        public = self._public.get(head.path)
        resource = public or self._private.get(head.path)
        if resource is None:
            raise HandshakeRefused(
                404, ErrorCode.NOT_FOUND, f"there is nothing at {head.path[:100]!r}"
            )
        if head.method not in ("GET", "HEAD"):
            raise HandshakeRefused(
                405, ErrorCode.BAD_REQUEST, "only GET and HEAD are answered here"
            )
        if public is None:
            check_origin(head, self._settings.server.allowed_origins, loopback=self._loopback)
            token = find_token(head, in_query=False)
            if token is None:
                raise AuthError("no token: send one as `Authorization: Bearer <token>`")
            identity = await self._authenticator.verify(token)
            if not identity.grants.admin:
                raise HandshakeRefused(
                    403, ErrorCode.FORBIDDEN, f"{identity.user} is no administrator"
                )
        return resource()


async def _answer(
    transport: Transport, status: int, body: Any, retry_after: int | None, *, with_body: bool
) -> None:
    """Send one JSON answer and let the peer take it: closed with bytes unread, a socket would
    reset, and the answer might be lost.
    """
    text = encode_json(body) + b"\n"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    if status == HTTPStatus.UPGRADE_REQUIRED:
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    if status == HTTPStatus.UNAUTHORIZED:
        lines.append("WWW-Authenticate: Bearer")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    with trio.move_on_after(_LINGER):
        try:
            await transport.send_all(head + text if with_body else head)
        except (OSError, trio.BrokenResourceError):
            return
        await transport.finish()
        while await transport.receive():
            pass
