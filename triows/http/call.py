"""One request, as those see it who answer it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import parse_qsl, unquote

import attrs
import trio

from triows.administration import Administration
from triows.auth import Action, Identity
from triows.errors import AuthError, ErrorCode, HandshakeRefused, RequestError
from triows.http.cursors import read_position
from triows.http.exchange import Exchange
from triows.http.head import Head, PeerGone
from triows.http.operations import Operation
from triows.http.rates import Rates
from triows.http.serving import Receive
from triows.logs import Log
from triows.messages import check_channel
from triows.peer import Services

BODY_TIMEOUT: Final = 30.0  # seconds from a head to the last byte of its body


@attrs.frozen
class Rooms:
    """What a server lends to its HTTP side."""

    services: Services
    administration: Administration
    rates: Rates


@final
@attrs.define
class Call:
    """A request whose origin and token were checked.

    Attributes:
        rooms: the server's.
        exchange: its connection.
        receive: where the body comes from.
        head: method, path, headers.
        operation: what is asked.
        path: the parameters in the path, not decoded.
        identity: whose token came with it; None where none is needed.
        query: the parameters of the query that were given.
    """

    rooms: Rooms
    exchange: Exchange
    receive: Receive
    head: Head
    operation: Operation
    path: Mapping[str, str]
    identity: Identity | None
    query: Mapping[str, Any]

    @property
    def user(self) -> Identity:
        """Who asks, where a token is needed."""
        assert self.identity is not None
        return self.identity

    @property
    def channel(self) -> str:
        """The channel in the path.

        Raises:
            RequestError: `bad_channel`.
        """
        return check_channel(unquote(self.path["channel"], errors="replace"))

    async def authorize(self, action: Action) -> str:
        """Return the channel if the token allows `action` on it.

        Raises:
            RequestError: `bad_channel`, `forbidden`.
            AuthError: the token is not to be believed any more.
        """
        channel = self.channel
        await self.rooms.services.application.authorize(self.user, action, channel)
        self.check_again()
        return channel

    async def log(self, since: str | None = None) -> Log:
        """Return the log of the channel in the path, if it may be read.

        Args:
            since: a cursor in it that the client has, perhaps from another server.

        Raises:
            RequestError: `bad_channel`, `forbidden`, `not_found`, `bad_cursor`.
        """
        channel = await self.authorize(Action.SUBSCRIBE)
        position = None if since is None else read_position(since)
        log = await self.rooms.services.bus.find(channel, position)
        if log is None:
            raise RequestError(ErrorCode.NOT_FOUND, f"there is no channel {channel!r}")
        return log

    def check_again(self) -> None:
        """Check that the token is still good after something was waited for.

        Raises:
            AuthError: it was revoked, or has expired.
        """
        self.rooms.administration.revocations.check(self.user)
        if self.user.expires_at <= time.time():
            raise AuthError("the token has expired; ask for a new one")

    def media_type(self) -> str:
        """Return what kind of body came, one of those that the operation takes.

        Raises:
            HandshakeRefused: 415.
        """
        header = self.head.header("content-type")
        kind, _, options = header.partition(";")
        kind = kind.strip().lower()
        charset = options.strip().lower().replace('"', "")
        if kind not in self.operation.body or charset not in ("", "charset=utf-8"):
            raise HandshakeRefused(
                415,
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is {header[:80]!r}; expected {' or '.join(self.operation.body)}, "
                "in UTF-8",
            )
        return kind

    async def body(self) -> bytes:
        """Return the body, whole.

        Raises:
            HandshakeRefused: 408, 415; 401 if it took longer than the token is believed.
            PeerGone: it ended too early.
        """
        given = int(self.head.header("content-length") or 0) > 0
        if given or self.operation.needs_body:
            self.media_type()
        with trio.move_on_after(BODY_TIMEOUT):
            body = await read_body(self.receive)
            self.check_again()
            return body
        raise HandshakeRefused(
            408, ErrorCode.BAD_REQUEST, f"the body did not arrive within {BODY_TIMEOUT:g} s"
        )


async def read_body(receive: Receive) -> bytes:
    """Return a request's body; it was measured before.

    Raises:
        PeerGone: it ended too early.
    """
    parts: list[bytes] = []
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise PeerGone
        parts.append(event.get("body", b""))
        if not event.get("more_body", False):
            return b"".join(parts)


def read_query(operation: Operation, query: str) -> dict[str, Any]:
    """Return the parameters of a query, each read as its operation says.

    Raises:
        HandshakeRefused: 400 for one that is unknown, wrong, or given twice.
    """
    known = {p.name: p for p in operation.parameters if p.place == "query"}
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise _bad("the query has more than 20 parameters, or is not UTF-8") from None
    for name, text in pairs:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise _bad(f"unknown parameter {name[:40]!r}; expected: {expected}")
        if name in found:
            raise _bad(f"the parameter {name!r} is given twice")
        found[name] = known[name].read(text)
    return found


def _bad(message: str) -> HandshakeRefused:
    return HandshakeRefused(400, ErrorCode.BAD_REQUEST, message)
