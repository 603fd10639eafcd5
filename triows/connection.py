"""One connection is one nursery: reader, writer, heartbeat, and the only closer.

    nursery          writer (· trio-websocket's task)      until the last byte is out
      └─ live        reader · heartbeat (· handlers)       until somebody asks for the end

The reader is the connection's own task, which opens both: a task less for each connection.
Everybody else *asks* for a close, with a code; only `run` performs it. Leaving `run` by any way
takes the connection out of hub and registry and closes its stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from typing import Final, final

import trio
import uuid_utils

from triows.application import Request
from triows.auth import Identity
from triows.codec import encode_push
from triows.errors import Close, CloseCode, ConnectionClosed
from triows.frames import TEXT, Frame, encode_close
from triows.heartbeat import Heartbeat
from triows.messages import MessageType
from triows.peer import Services
from triows.registry import Registry
from triows.sender import Sender
from triows.session import Session
from triows.statistics import ConnectionStatistics
from triows.topics import Subscription
from triows.transport import Transport
from triows.wire import PeerError, Wire, opening

logger = logging.getLogger("triows.connection")

BACKLOG: Final = 64 * 1024  # bytes of answers that may wait before the reader stops reading
HANDLER_QUEUE: Final = 16  # messages that may wait for the application, of one connection


@final
class Connection:
    """One client.

    Attributes:
        id: unique (UUIDv7), and ordered by time of opening.
        identity: who it is; None until a token was verified.
        subscriptions: what it watches, by channel.
        close: with which code it ends; None while it lives.
        outgoing: its outgoing side.
    """

    __slots__ = (
        "_cut",
        "_handlers",
        "_heard_at",
        "_heartbeat",
        "_last",
        "_live",
        "_opened",
        "_opened_at",
        "_received_messages",
        "_registry",
        "_reserved",
        "_services",
        "_session",
        "_state",
        "_transport",
        "_wire",
        "close",
        "id",
        "identity",
        "outgoing",
        "subscriptions",
    )

    def __init__(self, transport: Transport, services: Services, registry: Registry) -> None:
        now = trio.current_time()
        limits = services.limits
        self.id = str(uuid_utils.uuid7())
        self.identity: Identity | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.close: Close | None = None
        self.outgoing = Sender(transport, services.hub, self, limits.write_timeout)
        self._transport = transport
        self._services = services
        self._registry = registry
        self._wire = Wire(transport, limits, self.outgoing.output)
        self._session = Session(self, services, now)
        self._heartbeat = Heartbeat(limits, self, self._wire.ping)
        self._handlers: trio.MemorySendChannel[Request] | None = None
        self._reserved = 0  # places taken in the queue for the handlers
        self._live: trio.Nursery | None = None
        self._cut = False  # no goodbye: the peer would not get it
        self._state = "open"
        self._opened = self._heard_at = now
        self._opened_at = time.time()
        self._received_messages = 0
        self._last: ConnectionStatistics | None = None  # when its end was asked for

    # The nursery

    async def run(self, key: str, rest: bytes, subprotocol: str | None) -> None:
        """Serve the connection to its end; never raises anything but Cancelled.

        Cancelled, it tries to say goodbye without waiting, with 1001 if no other code was asked
        for, and closes the stream by force.

        Args:
            key: the opening handshake's, checked before.
            rest: what came after the head already.
            subprotocol: the one to agree on, or None.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.outgoing.run)
                self.outgoing.open(
                    opening(key, subprotocol), self._session.greeting() if self.identity else b""
                )
                self._wire.begin(nursery, rest)
                del key, rest  # nobody needs them any more
                await self._be_live()
                await self._say_goodbye()
                nursery.cancel_scope.cancel(reason="the connection has ended")
        except* Exception as group:
            self._failed(group)
        finally:
            self._leave()
            await self._transport.close(reset=self._cut)  # noqa: ASYNC102 it does not wait

    async def _be_live(self) -> None:
        """Read and keep watch until somebody asks for the end."""
        try:
            async with trio.open_nursery() as live:
                self._live = live
                live.start_soon(self._heartbeat.run)
                await self._read()
                # Not cancelled yet, if the peer was gone before its opening was answered.
                live.cancel_scope.cancel(reason="there is nothing to read any more")
        except* Exception as group:
            self._failed(group)

    async def _say_goodbye(self) -> None:
        """Send what was answered, and a close frame; wait for the peer's, not for long."""
        self._state = "closing"
        if self._cut or self.close is None:
            return
        with trio.move_on_after(self._services.limits.close_timeout):
            await self._wire.close(self.close)
            await self.outgoing.wait_sent()
        self._cut = self.outgoing.is_blocked

    def _failed(self, group: BaseExceptionGroup[Exception]) -> None:
        if self.close is None:
            logger.error("connection %s failed", self.id, exc_info=group)
            self.request_close(Close(CloseCode.INTERNAL_ERROR, "the server failed"))
        else:  # on the way out: a peer that breaks off in the middle of a close, for example
            logger.debug("connection %s failed while closing", self.id, exc_info=group)

    def _leave(self) -> None:
        """Take the connection out of hub and registry; plain, so that nothing can cancel it.

        Cancelled from outside, or failed in the middle of something, it has not said goodbye.
        """
        self.request_close(Close(CloseCode.GOING_AWAY, "the server was stopped"))
        assert self.close is not None
        if not self._cut:
            self.outgoing.say_last(encode_close(int(self.close.code)))
        self.outgoing.stop()
        self._state = "closing"
        self._registry.remove(self, self.close)

    def _detach(self) -> None:
        for subscription in self.subscriptions.values():
            self._services.hub.unsubscribe(subscription)
        self.subscriptions.clear()

    def request_close(self, close: Close) -> None:
        """Ask for the end, with a code; the first to ask is heard. Returns at once.

        Nothing is read or delivered any more; answers already given are still sent.
        """
        if self.close is None:
            self._last = self.statistics()
            self.close = close
            self._detach()
            if self._live is not None:
                self._live.cancel_scope.cancel(reason=close.reason)

    def cut(self, close: Close) -> None:
        """Ask for the end such that nothing more reaches the peer, not even what it has not
        taken yet: then there is no way to say goodbye, either.
        """
        if self.outgoing.is_blocked:
            self.lose(close)
        else:
            self.request_close(close)

    def drain(self, after: float) -> None:
        """Tell the client when to come back, and ask for the end once it has all that is its."""
        notice = {"after": after, "reason": "restart"}
        self.outgoing.offer(encode_push(MessageType.RECONNECT, notice))
        self.outgoing.part(Close(CloseCode.RESTART, "the server restarts; connect again"))

    def lose(self, close: Close) -> None:
        """Ask for the end without a goodbye: the peer is gone, or takes nothing."""
        self._cut = True
        self.outgoing.stop()
        self.request_close(close)

    # In

    async def _read(self) -> None:
        try:
            while self.close is None:
                await self._take(await self._wire.receive())
        except PeerError as error:
            self.request_close(error.close)
        except ConnectionClosed as closed:
            self.request_close(_as_close(closed))
            self._cut = closed.code == CloseCode.ABNORMAL

    async def _take(self, messages: list[Frame]) -> None:
        """Have the messages that came together seen to, in their order."""
        self._heard_at = now = trio.current_time()
        at = 0
        while at < len(messages) and self.close is None:
            together = self._session.publish_together(messages, at, now)
            answering = None if together else self._take_one(messages[at], now)
            at += together or 1
            self._received_messages += together or 1
            if answering is not None:
                await answering
                now = trio.current_time()
            if self.outgoing.reply_size > BACKLOG:  # a peer that asks and does not read
                await self.outgoing.wait_pulled()

    def _take_one(self, message: Frame, now: float) -> Awaitable[None] | None:
        kind, payload = message
        if kind == TEXT:
            return self._session.receive(payload, now)
        reason = "binary messages are not spoken here"
        self.request_close(Close(CloseCode.UNSUPPORTED_DATA, reason))
        return None

    def reserve(self) -> bool:
        """Take a place in the queue for the application's handlers; false if it is full."""
        if self._reserved >= HANDLER_QUEUE:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1

    def hand_on(self, request: Request) -> None:
        """Have the application's handler run, in a task beside the reader, one at a time; the
        place for it is reserved.
        """
        if self._live is None or self.close is not None:
            return
        if self._handlers is None:
            self._handlers, requests = trio.open_memory_channel[Request](HANDLER_QUEUE)
            self._live.start_soon(self._run_handlers, requests)
        self._handlers.send_nowait(request)

    async def _run_handlers(self, requests: trio.MemoryReceiveChannel[Request]) -> None:
        async for request in requests:
            self.release()
            await self._session.publisher.run_handler(request)

    def authenticated(self, identity: Identity) -> None:
        """Take note of who is there, and of when the token expires."""
        self.identity = identity
        self._heartbeat.expire_in(identity.expires_at - time.time())
        self._registry.identify(self, identity.user)

    # Told to others

    @property
    def active_at(self) -> float:
        """Monotonic time of the last message either way."""
        self.outgoing.settle()
        return max(self._heard_at, self.outgoing.active_at)

    @property
    def received(self) -> int:
        """Bytes received so far."""
        return self._transport.received

    @property
    def unanswered(self) -> int:
        """How many published messages are to be acknowledged and are not yet."""
        return self._session.publisher.unanswered

    @property
    def is_blocked(self) -> bool:
        """Whether the socket takes no more just now."""
        return self.outgoing.is_blocked

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""
        user = self.identity.user if self.identity else None
        return {"connection": self.id, "user": user, "since": self._opened_at}

    def statistics(self) -> ConnectionStatistics:
        """Return a snapshot; what it watched and how it lagged, as when its end was asked for."""
        now = trio.current_time()
        subscriptions = self.subscriptions
        self.outgoing.settle()
        last = self._last
        return ConnectionStatistics(
            id=self.id,
            user=self.identity.user if self.identity else None,
            peer=self._transport.peer,
            state=self._state,
            opened_at=self._opened_at,
            age=now - self._opened,
            idle=now - self.active_at,
            channels=last.channels if last else tuple(subscriptions),
            received_messages=self._received_messages,
            received_bytes=self._transport.received,
            sent_messages=self.outgoing.sent_messages,
            sent_bytes=self._transport.sent,
            lag=last.lag if last else sum(s.lag for s in subscriptions.values()),
            lag_seconds=last.lag_seconds
            if last
            else max((s.log.age(s.cursor, now) for s in subscriptions.values()), default=0.0),
            round_trip=self._heartbeat.round_trip,
        )


def _as_close(closed: ConnectionClosed) -> Close:
    """Return the peer's close as our own record of it; an unknown code counts as normal."""
    try:
        code = CloseCode(closed.code)
    except ValueError:
        code = CloseCode.NORMAL
    return Close(code, closed.reason or "closed by the peer")
