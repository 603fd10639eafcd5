"""One WebSocket: data frames, ping and pong our own, the closing handshake trio-websocket's.

A fan-out server has to frame a message once and give the same bytes to a thousand sockets, and
an idle connection has to cost next to nothing: so trio-websocket is called in when a connection
ends, over a small stream in memory. Three rules keep the two apart:

1. After a close frame was handed over, all is over when trio-websocket has answered it.
2. Errors of framing are ours: it never saw the data frames, and says nothing to those who err.
3. Nothing is read as data after a close frame was handed over.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, final

import trio
import trio_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.handshake import H11Handshake

from triows.config import Limits
from triows.errors import Close, CloseCode, ConnectionClosed, TriowsError
from triows.frames import (
    CONTROL,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameReader,
    encode_frame,
    is_close,
    read_control,
)
from triows.transport import Transport

SUBPROTOCOL: Final = "triows.v1"
MAX_REASON: Final = 123  # bytes of a close reason (RFC 6455 section 5.5)

_KEY_SUFFIX: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_SPENT: Final = H11Handshake(ConnectionType.SERVER)
"""Stands in for every opening handshake: wsproto asks it for events, and it has none."""

Output = Callable[[bytes], Awaitable[None]]
"""Sends a control frame, whole, between two others; returns when it is on its way."""


class PeerError(TriowsError):
    """The peer broke a rule; `close` is what it gets for that."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


class _Opened(WSConnection):
    """A WebSocket as wsproto has it when its opening handshake is over."""

    def __init__(self) -> None:  # without the parent's, which makes a parser for a head
        self.client = False
        self.handshake = _SPENT
        self.connection = Connection(ConnectionType.SERVER)


@final
class _Closing(trio.abc.Stream):
    """The closing handshake, and what trio-websocket takes for its socket.

    Args:
        output: sends what it has to say.

    Attributes:
        websocket: its end of the WebSocket.
        is_heard: whether the peer's close frame was handed over; there will be no other.
    """

    def __init__(self, output: Output) -> None:
        self.is_heard = False
        self.websocket = trio_websocket.WebSocketConnection(self, _Opened())
        self._output = output
        self._given = b""  # handed over, not taken yet
        self._arrived = trio.Event()
        self._answered = trio.Event()

    async def run(self) -> None:
        """Run trio-websocket's own task, until cancelled or the WebSocket is closed."""
        await self.websocket._reader_task()

    async def feed(self, frame: bytes) -> None:
        """Hand over the peer's close frame; returns when it was answered, if it had to be."""
        self._given = frame
        self.is_heard = True
        self._arrived.set()
        await self._answered.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._arrived.wait()
        data, self._given = self._given, b""
        if not data:  # that was all
            self._answered.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._output(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._answered.set()
        await trio.lowlevel.checkpoint()


class Wire:
    """The frames of one connection, after its opening handshake.

    Args:
        transport: the bytes beneath.
        limits: of one message.
        output: sends control frames.
    """

    __slots__ = (
        "_closing",
        "_inbox",
        "_next",
        "_nursery",
        "_output",
        "_pinged",
        "_pong",
        "_reader",
        "_transport",
    )

    def __init__(self, transport: Transport, limits: Limits, output: Output) -> None:
        self._transport = transport
        self._output = output
        self._reader = FrameReader(limits.max_message_bytes, limits.max_fragments or sys.maxsize)
        self._inbox: Iterator[Frame] = iter(())  # what was read and not taken yet
        self._next: Frame | None = None  # comes before the inbox, and is no message to hand out
        self._nursery: trio.Nursery | None = None
        self._closing: _Closing | None = None
        self._pinged = 0  # number of the last ping, which is what it carries
        self._pong: trio.Event | None = None  # set when its pong is here

    def begin(self, nursery: trio.Nursery, rest: bytes) -> None:
        """Begin with frames: the answer to the opening handshake comes before them.

        Args:
            nursery: runs trio-websocket's task when there is one; its errors come out there.
            rest: what came after the head already.
        """
        self._nursery = nursery
        self._inbox = iter(self._reader.feed(rest))

    async def receive(self) -> list[Frame]:
        """Return the next messages, of kind TEXT (valid UTF-8) or BINARY: those that came
        together, at least one.

        Control frames that come before them are answered. Cancelled, no text or binary message
        is lost.

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
        """Answer a control frame; complain of a text that is none."""
        kind, payload = frame
        if kind != CONTROL:
            raise PeerError(Close(CloseCode.INVALID_TEXT, "a text message is not UTF-8"))
        if is_close(payload):
            # Checked before: for a malformed one trio-websocket hangs up without a word.
            _check_close(payload)
            await self._call_in().feed(payload)
            closed = self._call_in().websocket.closed
            assert closed is not None
            raise ConnectionClosed(int(closed.code), closed.reason or "")
        opcode, said = read_control(payload)
        if opcode == PING:
            await self._output(encode_frame(said, PONG))
        elif self._pong is not None and said == _number(self._pinged):
            self._pong.set()

    def _call_in(self) -> _Closing:
        """Return what does the closing handshake; the first to ask begins it."""
        if self._closing is None:
            assert self._nursery is not None
            self._closing = _Closing(self._output)
            self._nursery.start_soon(self._closing.run)
        return self._closing

    async def ping(self) -> None:
        """Send a ping and wait for its pong (RFC 6455 section 5.5.2); one at a time.

        Waits as long as it takes: the caller has the deadline.
        """
        self._pinged += 1
        self._pong = trio.Event()
        try:
            await self._output(encode_frame(_number(self._pinged), PING))
            await self._pong.wait()
        finally:
            self._pong = None

    async def close(self, close: Close) -> None:
        """Send a close frame and wait for the peer's, or for its end.

        Waits as long as it takes: the caller has the deadline.
        """
        closing = self._call_in()
        reason = close.reason.encode()[:MAX_REASON].decode(errors="ignore")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing.websocket.aclose, int(close.code), reason or None)
            if not closing.is_heard:
                await self._await_close_frame(closing)
                nursery.cancel_scope.cancel(reason="the peer has said goodbye, or is gone")

    async def _await_close_frame(self, closing: _Closing) -> None:
        """Read on, for the close frame only: a goodbye is the last that is said.

        What a peer still sends that cannot be framed is read and thrown away: a socket closed
        with unread bytes would reset, and the peer might lose our close frame.
        """
        if self._next is not None:
            self._inbox = itertools.chain((self._next,), self._inbox)
        while True:
            for kind, payload in self._inbox:
                if kind == CONTROL and is_close(payload):
                    await closing.feed(payload)
                    return
            data = await self._transport.receive()
            if not data:
                return
            self._inbox = iter(self._reader.feed(data))


def opening(key: str, subprotocol: str | None) -> bytes:
    """Return the answer to an opening handshake (RFC 6455 section 4.2.2).

    Ours, as its head was read and checked here: trio-websocket would read it again, in a task of
    its own.

    Args:
        key: the client's `Sec-WebSocket-Key`, checked before.
        subprotocol: one of those the client offered, or None.
    """
    digest = hashlib.sha1((key + _KEY_SUFFIX).encode(), usedforsecurity=False).digest()
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n{protocol}\r\n"
    ).encode()


def _number(ping: int) -> bytes:
    """Return what a ping carries, so that its pong is known from a late one."""
    return ping.to_bytes(4, "big")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_close(frame: bytes) -> None:
    """Check the code and the reason in a close frame as it came (RFC 6455 section 7.4)."""
    _, payload = read_control(frame)
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    # Those of the RFC and of its registry, but 1014: trio-websocket hangs up on it.
    known = 1000 <= code <= 1013 and code not in (1004, 1005, 1006)
    try:
        payload[2:].decode()
        sound = len(payload) >= 2 and (known or 3000 <= code <= 4999)
    except UnicodeDecodeError:
        sound = False
    if not sound:
        raise PeerError(Close(CloseCode.PROTOCOL_ERROR, "a malformed close frame"))
