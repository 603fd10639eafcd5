"""One WebSocket: trio-websocket as the control plane, data frames our own.

trio-websocket does the opening handshake, ping and pong, and the closing handshake, over a
small stream in memory. Data frames never reach it: a fan-out server has to frame
a message once and give the same bytes to a thousand sockets. Three rules keep the two apart:

1. After control bytes were handed over, reading goes on only when trio-websocket has answered
   them and asks for more: a pong precedes whatever followed the ping.
2. Errors of framing are ours: it never saw the data frames, and says nothing to those who err.
3. Nothing is read as data after a close frame was handed over.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import trio
import trio_websocket
from wsproto import ConnectionType
from wsproto.handshake import H11Handshake

from triows.config import Limits
from triows.errors import Close, CloseCode, ConnectionClosed, TriowsError
from triows.frames import CONTROL, TEXT, Frame, FrameReader, is_close, mask
from triows.transport import Transport

SUBPROTOCOL: Final = "triows.v1"
MAX_REASON: Final = 123  # bytes of a close reason (RFC 6455 section 5.5)

_SPENT: Final = H11Handshake(ConnectionType.SERVER)
"""Stands in for every handshake that is over: wsproto goes on asking it for events."""

Output = Callable[[bytes], Awaitable[None]]
"""Sends bytes of the control plane, whole, between two frames; returns when they are sent."""


class PeerError(TriowsError):
    """The peer broke a rule; `close` is what it gets for that."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


class _ControlStream(trio.abc.Stream):
    """What trio-websocket takes for its socket.

    Two events and what waits between them: a memory channel would cost each idle connection
    2 KiB more.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._given = b""  # handed over, not taken yet
        self._arrived = trio.Event()
        self._wants_more = trio.Event()
        self._ended = False

    async def feed(self, data: bytes) -> None:
        """Hand over bytes; returns when they were answered and more are asked for."""
        if self._ended:
            return
        self._wants_more = trio.Event()
        self._given += data
        self._arrived.set()
        await self._wants_more.wait()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._arrived.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._wants_more.set()
        await self._arrived.wait()
        data, self._given = self._given, b""
        if not self._ended:
            self._arrived = trio.Event()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._output(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.end()
        self._wants_more.set()
        await trio.lowlevel.checkpoint()


class Wire:
    """The frames of one connection.

    Args:
        transport: the bytes beneath.
        limits: of one message.
        output: sends what the control plane has to say.
    """

    __slots__ = ("_control", "_inbox", "_next", "_reader", "_transport", "_websocket")

    def __init__(self, transport: Transport, limits: Limits, output: Output) -> None:
        self._transport = transport
        self._control = _ControlStream(output)
        self._reader = FrameReader(limits.max_message_bytes, limits.max_fragments or sys.maxsize)
        self._inbox: Iterator[Frame] = iter(())  # what was read and not taken yet
        self._next: Frame | None = None  # comes before the inbox, and is no message to hand out
        self._websocket: trio_websocket.WebSocketConnection | None = None

    async def accept(
        self, nursery: trio.Nursery, key: str, rest: bytes, subprotocol: str | None
    ) -> None:
        """Answer the opening handshake (RFC 6455 section 4.2).

        Args:
            nursery: runs trio-websocket's task; its errors come out there.
            key: the client's `Sec-WebSocket-Key`, checked before.
            rest: what came after the head already.
            subprotocol: one of those the client offered, or None.
        """
        nursery.start_soon(self._control.feed, _opening(key, subprotocol))
        request = await trio_websocket.wrap_server_stream(nursery, self._control)
        self._websocket = await request.accept(subprotocol=subprotocol)
        # 3 KiB that say nothing any more: both heads, and what has parsed them.
        self._websocket._wsproto.handshake = _SPENT
        self._inbox = iter(self._reader.feed(rest))

    async def receive(self) -> list[Frame]:
        """Return the next messages, of kind TEXT (valid UTF-8) or BINARY: those that came
        together, at least one.

        Control frames that come before them are answered. Cancelled, no message is lost.

        Raises:
            ConnectionClosed: the peer closed, or vanished (1006).
            PeerError: it broke a rule that is ours to keep.
        """
        while True:
            messages = await self._take_messages()
            if messages:
                return messages
            if self._reader.close is not None:
                raise PeerError(self._reader.close)
            data = await self._transport.receive()
            if not data:
                self._control.end()
                raise ConnectionClosed(CloseCode.ABNORMAL, "the peer is gone")
            self._inbox = iter(self._reader.feed(data))

    async def _take_messages(self) -> list[Frame]:
        """Return what is here, up to the next frame that has to be seen to first."""
        if self._next is not None:
            special, self._next = self._next, None
            await self._see_to(special)
        messages: list[Frame] = []
        for frame in self._inbox:
            kind, payload = frame
            if kind != CONTROL and (payload.isascii() or kind != TEXT or _is_utf8(payload)):
                messages.append(frame)
            elif messages:
                self._next = frame
                break
            else:
                await self._see_to(frame)
        return messages

    async def _see_to(self, frame: Frame) -> None:
        """Have a control frame answered; complain of a text that is none."""
        kind, payload = frame
        if kind != CONTROL:
            raise PeerError(Close(CloseCode.INVALID_TEXT, "a text message is not UTF-8"))
        closing = is_close(payload)
        if closing:
            # Checked before: for a malformed one trio-websocket hangs up without a word.
            _check_close(payload)
        await self._control.feed(payload)
        if closing:
            assert self._websocket is not None
            closed = self._websocket.closed
            assert closed is not None
            raise ConnectionClosed(int(closed.code), closed.reason or "")

    async def ping(self) -> bool:
        """Send a ping and wait for its pong; False if the connection ends before.

        Waits as long as it takes: the caller has the deadline.
        """
        assert self._websocket is not None
        try:
            await self._websocket.ping()
        except trio_websocket.ConnectionClosed:
            return False
        return True

    async def close(self, close: Close) -> None:
        """Send a close frame and wait for the peer's, or for its end.

        Waits as long as it takes: the caller has the deadline.
        """
        assert self._websocket is not None
        reason = close.reason.encode()[:MAX_REASON].decode(errors="ignore")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._websocket.aclose, int(close.code), reason or None)
            if self._websocket.closed is None:
                await self._await_close_frame()
                nursery.cancel_scope.cancel(reason="the peer has said goodbye, or is gone")

    async def _await_close_frame(self) -> None:
        """Read on, for the close frame only: trio-websocket cannot answer a ping any more.

        What a peer still sends that cannot be framed is thrown away unread: a socket closed
        with unread bytes would reset, and the peer might lose our close frame.
        """
        if self._next is not None:
            self._inbox = itertools.chain((self._next,), self._inbox)
        while True:
            for kind, payload in self._inbox:
                if kind == CONTROL and is_close(payload):
                    await self._control.feed(payload)
                    return
            data = await self._transport.receive()
            if not data:
                self._control.end()
                return
            self._inbox = iter(self._reader.feed(data))


def _opening(key: str, subprotocol: str | None) -> bytes:
    """Return the head that trio-websocket reads: what was checked of the peer's, no more.

    The peer's own has been read already; a token, a cookie or a header that only one of two
    readers understands does not get any further.
    """
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "GET /ws HTTP/1.1\r\nHost: triows\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n"
    ).encode()


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_close(frame: bytes) -> None:
    """Check the code and the reason in a close frame as it came (RFC 6455 section 7.4)."""
    payload = mask(frame[6:], frame[2:6])
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    known = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    try:
        payload[2:].decode()
        sound = len(payload) >= 2 and (known or 3000 <= code <= 4999)
    except UnicodeDecodeError:
        sound = False
    if not sound:
        raise PeerError(Close(CloseCode.PROTOCOL_ERROR, "a malformed close frame"))
