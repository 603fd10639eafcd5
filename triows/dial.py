"""A client's end of one WebSocket: opening it, texts in and out, and why it ended."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, final
from urllib.parse import urlsplit

import attrs
import msgspec
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from triows.errors import CloseCode, ConfigError, ConnectionClosed, ErrorCode, HandshakeRefused
from triows.wire import SUBPROTOCOL

CONNECT_TIMEOUT: Final = 5.0  # seconds, for TCP, TLS and the opening handshake together
_QUEUE: Final = 64  # messages read ahead
_RECEIVE: Final = 64 * 1024  # bytes asked for at once

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to the server."""


@final
@attrs.frozen
class Address:
    """Where a server is: `ws://host:port/ws` or `wss://…`, taken apart."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read an address.

        Raises:
            ConfigError: it is none, or holds a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"not an address: {error}") from None
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ConfigError(
                f"an address of the kind {parts.scheme!r} is none of a server: "
                "expected ws://host:port/ws"
            )
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ConfigError("the address holds characters that have to be %-encoded")
        if parts.username or parts.password:
            raise ConfigError("the address holds a user name or a password; use a token")
        tls = parts.scheme == "wss"
        path = parts.path if parts.path not in ("", "/") else "/ws"
        path += f"?{parts.query}" if parts.query else ""
        return cls(parts.hostname, port if port is not None else (443 if tls else 80), path, tls)

    @property
    def authority(self) -> str:
        """What goes into the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    async def open(self) -> trio.abc.Stream:
        """Open a stream there; TLS is checked against the system's certificates.

        Raises:
            OSError: nobody answers.
        """
        if not self.tls:
            return await trio.open_tcp_stream(self.host, self.port)
        return await trio.open_ssl_over_tcp_stream(
            self.host,
            self.port,
            ssl_context=ssl.create_default_context(),
            https_compatible=True,
        )


def check_token(token: str) -> str:
    """Return `token` if it can go into a header.

    Raises:
        ConfigError: it cannot, for example because of a newline at its end.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("the token is empty, or holds white space or other odd characters")
    return token


@final
class Dialed:
    """An open WebSocket to a server."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    async def receive(self) -> bytes:
        """Return the next text message.

        Raises:
            ConnectionClosed: it is over.
        """
        try:
            message = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None
        return message.encode() if isinstance(message, str) else message

    async def send(self, text: bytes) -> None:
        """Send a text message. Cancelled, the connection is unusable.

        Raises:
            ConnectionClosed: it is over.
        """
        try:
            await self._websocket.send_message(text.decode())
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None

    async def close(self) -> None:
        """Say goodbye and wait for the server's; the caller has the deadline."""
        await self._websocket.aclose()


async def dial(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    address: Address,
    token: str | None,
    max_message: int,
) -> Dialed:
    """Open a WebSocket over `stream`. What goes wrong comes out of `nursery`: see `explain`.

    Args:
        nursery: runs trio-websocket's task.
        stream: to the server; stays the caller's, to be closed by force at the end.
        address: for the request.
        token: sent as a header, or None.
        max_message: bytes of one message that is taken.
    """
    websocket = await trio_websocket.wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type]  # any Stream will do
        address.authority,
        address.path,
        # Without a token do not promise one in a message: be refused at once.
        subprotocols=[SUBPROTOCOL] if token else [],
        extra_headers=[(b"Authorization", b"Bearer " + token.encode())] if token else [],
        message_queue_size=_QUEUE,
        max_message_size=max_message,
        receive_buffer_size=_RECEIVE,
    )
    return Dialed(websocket)


def explain(group: BaseExceptionGroup[Exception]) -> ConnectionClosed | HandshakeRefused:
    """Return why a connection ended, of what came out of its nursery.

    Raises:
        ExceptionGroup: `group`, when something is in it that is no matter of the network.
    """
    for error in _leaves(group):
        match error:
            case trio_websocket.ConnectionRejected():
                return _refusal(error)
            case ConnectionClosed() | HandshakeRefused():
                return error
            case trio.TooSlowError():
                return ConnectionClosed(
                    CloseCode.ABNORMAL, f"no answer within {CONNECT_TIMEOUT:g} s"
                )
            case LocalProtocolError():
                # trio-websocket answers a ping that crossed our close frame, and may not.
                return ConnectionClosed(CloseCode.ABNORMAL, "a ping came after our goodbye")
            case OSError() | trio.BrokenResourceError() | trio_websocket.HandshakeError():
                return ConnectionClosed(CloseCode.ABNORMAL, str(error) or "connection lost")
    raise group


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _closed(error: trio_websocket.ConnectionClosed) -> ConnectionClosed:
    if error.reason is None:
        return ConnectionClosed(CloseCode.ABNORMAL, "connection lost")
    return ConnectionClosed(int(error.reason.code), error.reason.reason or "")


def _refusal(error: trio_websocket.ConnectionRejected) -> HandshakeRefused:
    """Read the JSON error body of a refused handshake; a body of others is not trusted."""
    message, code = f"status {error.status_code}", ErrorCode.UNAVAILABLE
    headers = {name.lower(): value for name, value in error.headers or ()}
    retry_after: object = _seconds(headers.get(b"retry-after"))
    try:
        body: Any = msgspec.json.decode(error.body or b"")
        data = body["data"]
        message = str(data["message"])[:500]
        retry_after = data.get("retry_after", retry_after)
        code = ErrorCode(data["code"])
    except (msgspec.DecodeError, RecursionError, LookupError, TypeError, ValueError):
        pass  # another server's answer, or a newer one's: the status has to do
    return HandshakeRefused(
        error.status_code,
        code,
        message,
        retry_after=int(retry_after) if isinstance(retry_after, int | float) else None,
    )


def _seconds(header: bytes | None) -> int | None:
    """Read a `Retry-After` header; its other form, a date, is not worth the trouble."""
    return int(header) if header is not None and header.isdigit() and len(header) < 9 else None
