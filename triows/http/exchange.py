"""One connection that speaks HTTP: its requests, one after the other, and their answers.

Every head is read and checked here, also those that come later on the same connection, and what
hypercorn gets to read is a head of our own that says no more than it has to know: how long the
body is, and whether another request may follow. So two readers of one head cannot disagree about
where a request ends, and no header can switch the protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

import trio

from triows.auth import Identity
from triows.config import Limits
from triows.errors import Close, ErrorCode, HandshakeRefused
from triows.http.head import Head, PeerGone, read_head
from triows.transport import Transport

KEEP_ALIVE: Final = 30.0  # seconds a connection may wait for its next request
STUCK: Final = 1.0  # seconds a socket may take nothing when others want its place
PIECE: Final = 16 * 1024  # bytes of a body are handed on at a time, the last ones apart
_REFUSED: Final = b" / HTTP/1.1\r\nHost: triows\r\nConnection: close\r\n\r\n"


@final
class Exchange(trio.abc.Stream):
    """What hypercorn takes for the stream of one connection.

    Args:
        transport: the bytes beneath.
        head: of the first request.
        limits: timeouts, and the size of a body.

    Attributes:
        requests: those handed on and not taken up yet: a head, or why it is refused.
        identity: who waits for an answer that may take long.
        interrupt: called when whoever waits had better look again.
        ended: set when no further request is to come.
        lost: the peer is gone, or has taken nothing for too long.
        overdue: it was the latter.
        reset: what the kernel still holds for the peer is to be thrown away.
        refused: why whoever waits gets no answer any more.
    """

    def __init__(self, transport: Transport, head: Head, limits: Limits) -> None:
        self.transport = transport
        self.requests: deque[Head | HandshakeRefused] = deque()
        self.identity: Identity | None = None
        self.interrupt: Callable[[], None] | None = None
        self.ended = trio.Event()
        self.lost = False
        self.overdue = False
        self.reset = False
        self.refused: Close | None = None
        self._limits = limits
        self._first: Head | None = head
        self._rest = b""  # received and not handed on yet
        self._missing = 0  # bytes of the body that are still to be handed on
        self._unanswered = 0
        self._sending: trio.CancelScope | None = None
        self._last = False  # what is refused is the last request
        self._closed = False
        self._reading: trio.CancelScope | None = None
        self._idling: trio.CancelScope | None = None  # while there is nothing of the next request

    # For the registry

    def cut(self, close: Close) -> None:
        """Give no answer but a refusal; returns at once."""
        self.refused = close
        if self.interrupt is not None:
            self.interrupt()

    def drain(self) -> None:
        """Ask for the end after the answer that is under way; returns at once."""
        self.ended.set()
        if self.interrupt is not None:
            self.interrupt()

    # For those who answer

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return not self._unanswered

    @property
    def is_closed(self) -> bool:
        """Whether hypercorn wants to read no further."""
        return self._closed

    @property
    def is_blocked(self) -> bool:
        """Whether the socket takes no more just now."""
        return self._sending is not None

    @property
    def is_stuck(self) -> bool:
        """Whether the socket has taken nothing for a while."""
        if self._sending is None:
            return False
        left = self._sending.deadline - trio.current_time()
        return left < self._limits.write_timeout - STUCK

    def answered(self) -> None:
        """Take note that a request was answered: the next one has its time from now on."""
        self._unanswered -= 1
        if self._idling is not None and not self._unanswered:
            self._idling.deadline = trio.current_time() + KEEP_ALIVE

    def break_off(self) -> None:
        """Read and send nothing more, whatever is under way; returns at once.

        The send that is under way is told, too: hypercorn shields it from its own cancellation.
        """
        self.lost = True
        self.ended.set()
        for scope in (self._reading, self._sending):
            if scope is not None:
                scope.cancel(reason="the connection is broken off")

    # For hypercorn

    @property
    def socket(self) -> _NoSocket:
        """Asked for addresses."""
        return _NoSocket()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next request, or a piece of its body; empty when none is to come."""
        data = await self._receive()
        if not data:
            self.ended.set()
        return data

    async def _receive(self) -> bytes:
        if self._closed or self.lost:
            await trio.lowlevel.checkpoint()
            return b""
        if self._last:
            with trio.CancelScope() as self._reading:
                await trio.sleep_forever()
            return b""
        if self._missing:
            return await self._body()
        try:
            head, self._first = self._first or await self._next_head(), None
        except HandshakeRefused as error:
            return self._refuse(error, "GET")
        return b"" if head is None else await self._hand_on(head)

    async def _next_head(self) -> Head | None:
        """Wait for the next request; without a limit while one is being answered."""
        data, self._rest = self._rest, b""
        with trio.CancelScope() as self._reading:
            if not data:
                with trio.CancelScope() as self._idling:
                    if not self._unanswered:
                        self._idling.deadline = trio.current_time() + KEEP_ALIVE
                    data = await self.transport.receive()
                self._idling = None
            if not data:
                return None
            with trio.move_on_after(self._limits.handshake_timeout), suppress(PeerGone):
                return await read_head(self.transport, data)
        return None

    async def _hand_on(self, head: Head) -> bytes:
        await trio.lowlevel.checkpoint()
        try:
            size = _check(head, self._limits.max_message_bytes)
        except HandshakeRefused as error:
            return self._refuse(error, head.method)
        self.requests.append(head)
        self._unanswered += 1
        body, self._rest = head.rest[:size], head.rest[size:]
        self._missing = size - len(body)
        return _own_head(head, size, waits=self._missing > 0) + body

    def _refuse(self, error: HandshakeRefused, method: str) -> bytes:
        """Hand on a request that stands for one that is refused; it is the last."""
        self.requests.append(error)
        self._unanswered += 1
        self._last = True
        return (b"HEAD" if method == "HEAD" else b"GET") + _REFUSED

    async def _body(self) -> bytes:
        """Return the next piece of a body; whoever wants it has the deadline."""
        wanted = min(PIECE, self._missing)
        piece = b""
        with trio.CancelScope() as self._reading:
            while len(piece) < wanted:
                data = await self.transport.receive()
                if not data:
                    return b""
                piece += data
        self._reading = None
        if len(piece) < wanted:
            return b""
        body, self._rest = piece[: self._missing], piece[self._missing :]
        self._missing -= len(body)
        return body

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Raises:
            trio.BrokenResourceError: the peer is gone, or took nothing for
                `limits.write_timeout`.
        """
        rest = memoryview(data)
        try:
            while rest and not self.lost:
                with trio.move_on_after(self._limits.write_timeout) as self._sending:
                    rest = rest[await self.transport.send_some(rest) :]
                    continue
                self.overdue = not self.lost
                raise trio.BrokenResourceError
            if rest:
                raise trio.BrokenResourceError
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.lost = True
            self.ended.set()
            if self.interrupt is not None:
                self.interrupt()
            raise trio.BrokenResourceError("the peer is gone, or takes nothing") from None
        finally:
            self._sending = None

    async def wait_send_all_might_not_block(self) -> None:
        """Part of the interface."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Part of what hypercorn calls before `aclose`."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Read no further; the transport is closed by whoever opened it."""
        self._closed = True
        if self._reading is not None:
            self._reading.cancel(reason="the connection ends")
        await trio.lowlevel.checkpoint()


class _NoSocket:
    """Has no addresses: nobody asks hypercorn for them."""

    family = -1

    def getpeername(self) -> None:
        """Return nothing."""

    def getsockname(self) -> None:
        """Return nothing."""


def _own_head(head: Head, size: int, *, waits: bool) -> bytes:
    """Return a head that says how the request ends, and nothing of what it wants."""
    lines = ["HEAD" if head.method == "HEAD" else "POST" if size else "GET"]
    lines[0] += f" / HTTP/{head.version}"
    lines.append("Host: triows")
    if size:
        lines.append(f"Content-Length: {size}")
    if waits and head.header("expect").lower() == "100-continue":
        lines.append("Expect: 100-continue")
    # Whoever offers to switch to another protocol may not mean to go on with this one.
    if {"close", "upgrade"} & {token.lower() for token in head.tokens("connection")}:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _check(head: Head, max_body: int) -> int:
    """Return the size of a request's body.

    Raises:
        HandshakeRefused: 400, 411, 413, 426, 505.
    """
    if head.version not in ("1.0", "1.1"):
        raise HandshakeRefused(505, ErrorCode.BAD_REQUEST, "only HTTP/1.1 is spoken here")
    if head.path == "/ws":
        raise HandshakeRefused(
            400, ErrorCode.BAD_REQUEST, "open a WebSocket on a connection of its own"
        )
    if head.header("transfer-encoding"):
        raise HandshakeRefused(
            411,
            ErrorCode.LENGTH_REQUIRED,
            "a body needs a Content-Length here; `Transfer-Encoding` is not accepted",
        )
    text = head.header("content-length") or "0"
    if not text.isdecimal():
        raise HandshakeRefused(400, ErrorCode.BAD_REQUEST, "Content-Length is not a number")
    if len(text) > 18 or int(text) > max_body:
        raise HandshakeRefused(
            413,
            ErrorCode.TOO_LARGE,
            f"the body has {text[:20]} bytes; the limit is {max_body} (limits.max_message_bytes)",
        )
    return int(text)
