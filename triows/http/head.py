"""The head of a request: read within bounds and checked before anything else sees it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

import attrs
import h11

from triows.errors import ErrorCode, HandshakeRefused
from triows.transport import Transport

MAX_HEAD: Final = 16 * 1024  # bytes
_END: Final = b"\r\n\r\n"
_FOLDED: Final = re.compile(rb"(?<!\r)\n|\n[ \t]")
_ONCE: Final = frozenset(
    {
        "host",
        "origin",
        "authorization",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "content-length",
        "content-type",
        "last-event-id",
    }
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class PeerGone(Exception):
    """The peer ended the connection before its request was whole."""


@attrs.frozen
class Head:
    """A request without its body.

    Attributes:
        method: such as GET.
        version: of HTTP, such as 1.1.
        path: without the query.
        query: what followed the `?`, undecoded.
        headers: by lower-case name; several of one name are joined with a comma.
        rest: bytes that came after it already.
    """

    method: str
    version: str
    path: str
    query: str
    headers: Mapping[str, str]
    rest: bytes

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is missing."""
        return self.headers.get(name, "")

    def tokens(self, name: str) -> list[str]:
        """Return the parts of a header that is a comma-separated list."""
        return [part.strip() for part in self.header(name).split(",") if part.strip()]


async def read_head(transport: Transport, already: bytes = b"") -> Head:
    """Read one head; the caller has the deadline.

    Args:
        transport: where it comes from.
        already: what was received of it before.

    Raises:
        HandshakeRefused: 400, 431.
        PeerGone: nothing to answer to.
    """
    raw = bytearray(already)
    searched = 0
    while (end := raw.find(_END, searched)) < 0:
        if len(raw) > MAX_HEAD:
            raise _too_large(len(raw))
        searched = max(0, len(raw) - len(_END) + 1)
        data = await transport.receive()
        if not data:
            raise PeerGone
        raw += data
    end += len(_END)
    if end > MAX_HEAD:
        raise _too_large(end)
    return _parse(bytes(raw[:end]), bytes(raw[end:]))


def _too_large(size: int) -> HandshakeRefused:
    return HandshakeRefused(
        431,
        ErrorCode.HEAD_TOO_LARGE,
        f"the head has {size} bytes or more; the limit is {MAX_HEAD}",
    )


def _bad(message: str) -> HandshakeRefused:
    return HandshakeRefused(400, ErrorCode.BAD_REQUEST, message)


def _parse(raw: bytes, rest: bytes) -> Head:
    if not raw.isascii():
        raise _bad("the head has a byte above 0x7f")
    if _FOLDED.search(raw):
        # h11 would take both, and other readers would see other headers, or another end.
        raise _bad("the head has a line that ends in a bare line feed, or goes on in the next")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    parser.receive_data(raw)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError:
        # Without h11's words: they quote the line, and the line may hold a token.
        raise _bad("not an HTTP request") from None
    if not isinstance(request, h11.Request):
        raise _bad("not an HTTP request")
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in request.headers:
        name, value = name_bytes.decode(), value_bytes.decode()
        if name in headers and name in _ONCE:
            raise _bad(f"the header {name!r} occurs twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, query = _split(request.target.decode())
    method, version = request.method.decode(), request.http_version.decode()
    return Head(method, version, path, query, headers, rest)


def _split(target: str) -> tuple[str, str]:
    """Return path and query of what is asked for."""
    if target.startswith("/"):
        # `//host/path` is a path as well: who took it for an address would serve `/path` to those
        # whom a proxy in front keeps from it, and a page there takes itself for one of `host`.
        path, _, query = target.partition("?")
        return path, query
    try:
        address = urlsplit(target)
    except ValueError:
        raise _bad("the target is not an address") from None
    return address.path, address.query


def check_upgrade(head: Head) -> None:
    """Check that a head opens a WebSocket (RFC 6455 section 4.2.1).

    Raises:
        HandshakeRefused: 426 if it does not ask for one, 400 if it asks wrongly.
    """
    upgrades = [token.lower() for token in head.tokens("upgrade")]
    connection = [token.lower() for token in head.tokens("connection")]
    if upgrades != ["websocket"] or "upgrade" not in connection:
        raise HandshakeRefused(
            426, ErrorCode.UPGRADE_REQUIRED, "this address speaks WebSocket only"
        )
    if head.header("sec-websocket-version") != "13":
        raise HandshakeRefused(426, ErrorCode.UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13")
    if head.method != "GET":
        raise _bad("a WebSocket is opened with GET")
    if head.version != "1.1":
        raise _bad("a WebSocket is opened with HTTP/1.1")
    try:
        key = base64.b64decode(head.header("sec-websocket-key"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 16:
        raise _bad("Sec-WebSocket-Key must be 16 bytes in base64")


def check_origin(head: Head, allowed: tuple[str, ...], *, loopback: bool) -> None:
    """Check that the web page behind a request, if there is one, may use this server.

    Pages of the server's own address and of `allowed` may. On loopback the address must be
    written as a loopback name: any name can be made to point there (DNS rebinding).

    Raises:
        HandshakeRefused: 403.
    """
    origin = head.header("origin")
    if not origin or "*" in allowed or origin in allowed:
        return
    try:
        page = urlsplit(origin)
        own = page.netloc.lower() == head.header("host").lower() != "" and (
            not loopback or page.hostname in _LOOPBACK
        )
    except ValueError:
        own = False
    if not own:
        raise HandshakeRefused(
            403,
            ErrorCode.FORBIDDEN,
            f"pages of {origin[:100]!r} may not connect; server.allowed_origins lists who may",
        )


def find_token(head: Head, *, in_query: bool) -> str | None:
    """Return the token a request carries: as a header, as a subprotocol, or in its address.

    Raises:
        HandshakeRefused: 400 for a token in the address where that is not switched on.
    """
    in_address = parse_qs(head.query).get("token")
    if in_address and not in_query:
        raise _bad(
            "a token in the address ends up in logs: send it as `Authorization: Bearer`, as "
            "the subprotocol `bearer.<token>`, or in an `auth` message"
        )
    scheme, _, credentials = head.header("authorization").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    for offer in head.tokens("sec-websocket-protocol"):
        if offer.startswith("bearer."):
            return offer.removeprefix("bearer.")
    return in_address[0] if in_address else None
