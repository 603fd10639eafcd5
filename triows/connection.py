"""One connection is one nursery: reader, writer, heartbeat, and the only closer.

    nursery          trio-websocket's task · writer        until the last byte is out
      └─ live        reader · heartbeat (· handlers)       until somebody asks for the end

Everybody else *asks* for a close, with a code; only `run` performs it. Leaving `run` by any way
takes the connection out of hub and registry and closes its stream.
"""

from __future__ import annotations

import logging
import time
from typing import Final, final

import trio
import uuid_utils

from triows.application import Request
from triows.auth import Identity
from triows.errors import Close, CloseCode, ConnectionClosed
from triows.frames import TEXT, encode_frame
from triows.hub import PULL_BYTES, Subscription
from triows.registry import Registry
from triows.session import Services, Session
from triows.statistics import ConnectionStatistics
from triows.transport import Transport
from triows.wire import PeerError, Wire

logger = logging.getLogger("triows.connection")

BACKLOG: Final = 64 * 1024  # bytes of answers that may wait before the reader stops reading
HANDLER_QUEUE: Final = 16  # messages that may wait for the application, of one connection
STALL: Final = 0.5  # seconds a timer may be late before the server counts as having stalled
_CLOSE_FRAME: Final = 0x8
_GOING_AWAY: Final = encode_frame(int(CloseCode.GOING_AWAY).to_bytes(2, "big"), opcode=_CLOSE_FRAME)


@final
class Connection:
    """One client.

    Attributes:
        id: unique (UUIDv7), and ordered by time of opening.
        identity: who it is; None until a token was verified.
        subscriptions: what it watches, by channel.
        close: with which code it ends; None while it lives.
        queued, stale: the hub's, see `triows.hub.Subscriber`.
    """

    __slots__ = (
        "__weakref__",
        "_active_at",
        "_cut",
        "_deadline",
        "_deadline_close",
        "_handlers",
        "_live",
        "_opened",
        "_opened_at",
        "_parting",
        "_progress",
        "_received_messages",
        "_registry",
        "_renewed",
        "_replies",
        "_reply_size",
        "_round_trip",
        "_sent_messages",
        "_services",
        "_session",
        "_state",
        "_transport",
        "_unsent",
        "_wake",
        "_wire",
        "close",
        "id",
        "identity",
        "queued",
        "stale",
        "subscriptions",
    )

    def __init__(self, transport: Transport, services: Services, registry: Registry) -> None:
        now = trio.current_time()
        self.id = str(uuid_utils.uuid7())
        self.identity: Identity | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.close: Close | None = None
        self.queued = False
        self.stale: dict[Subscription, None] = {}
        self._transport = transport
        self._services = services
        self._registry = registry
        self._wire = Wire(transport, services.limits, self._output)
        self._session = Session(self, services, now)
        self._replies: list[bytes] = []
        self._reply_size = 0
        self._progress: trio.Event | None = None  # set when replies are taken, or all is sent
        self._unsent: memoryview | None = None  # what the socket did not take yet
        self._wake: trio.MemorySendChannel[None] | None = None  # to the writer
        self._renewed: trio.MemorySendChannel[None] | None = None  # to the heartbeat
        self._handlers: trio.MemorySendChannel[Request] | None = None
        self._live: trio.Nursery | None = None
        self._cut = False  # no goodbye: the peer would not get it
        self._parting: Close | None = None  # to be asked for once the peer has all that is its
        self._state = "opening"
        self._opened = now
        self._opened_at = time.time()
        self._active_at = now
        self._deadline = now + services.limits.handshake_timeout
        self._deadline_close = Close(
            CloseCode.UNAUTHORIZED,
            f"no `auth` within {services.limits.handshake_timeout:g} s",
        )
        self._received_messages = 0
        self._sent_messages = 0
        self._round_trip: float | None = None

    # The nursery

    async def run(self, head: bytes, rest: bytes, subprotocol: str | None) -> None:
        """Serve the connection to its end; never raises anything but Cancelled.

        Cancelled, it tries to say 1001 without waiting and closes the stream by force.

        Args:
            head: the request's head, checked before.
            rest: what came after the head already.
            subprotocol: the one to agree on, or None.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._wake, woken = trio.open_memory_channel[None](1)
                nursery.start_soon(self._write, woken)
                with trio.move_on_after(self._services.limits.handshake_timeout):
                    await self._wire.accept(nursery, head, rest, subprotocol)
                    self._state = "open"
                if self._state == "open":
                    await self._be_live()
                    await self._say_goodbye()
                elif self.close is None:
                    self.close = Close(CloseCode.ABNORMAL, "the peer took no answer")
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
                if self.identity is not None:
                    self._session.greet()
                self._renewed, renewed = trio.open_memory_channel[None](1)
                live.start_soon(self._read)
                live.start_soon(self._heartbeat, renewed)
                if self.close is not None:  # asked for during the handshake
                    live.cancel_scope.cancel(reason=self.close.reason)
        except* Exception as group:
            self._failed(group)

    async def _say_goodbye(self) -> None:
        """Send what was answered, and a close frame; wait for the peer's, not for long."""
        self._state = "closing"
        self._detach()
        if self._cut or self.close is None:
            return
        with trio.move_on_after(self._services.limits.close_timeout) as scope:
            await self._wire.close(self.close)
            while self._unsent is not None:
                await self._wait_progress()
            await self._transport.finish()
        self._cut = scope.cancelled_caught

    def _failed(self, group: BaseExceptionGroup[Exception]) -> None:
        if self.close is None:
            logger.error("connection %s failed", self.id, exc_info=group)
            self.close = Close(CloseCode.INTERNAL_ERROR, "the server failed")
        else:  # on the way out: a peer that breaks off in the middle of a close, for example
            logger.debug("connection %s failed while closing", self.id, exc_info=group)

    def _leave(self) -> None:
        """Take the connection out of hub and registry; plain, so that nothing can cancel it."""
        self._detach()
        if self.close is None:  # cancelled from outside
            self.close = Close(CloseCode.GOING_AWAY, "the server was stopped")
            if self._unsent is None and self._state == "open":
                try:
                    self._transport.try_send(_GOING_AWAY)
                except OSError:
                    self._cut = True
        self._state = "closing"
        self._registry.remove(self, self.close)

    def _detach(self) -> None:
        for subscription in self.subscriptions.values():
            self._services.hub.unsubscribe(subscription)
        self.subscriptions.clear()
        self.stale.clear()

    def request_close(self, close: Close) -> None:
        """Ask for the end, with a code; the first to ask is heard. Returns at once.

        Nothing is read or delivered any more; answers already given are still sent.
        """
        if self.close is None:
            self.close = close
            if self._live is not None:
                self._live.cancel_scope.cancel(reason=close.reason)

    def part(self, close: Close) -> None:
        """Ask for the end as soon as everything published so far has been sent."""
        self._parting = close
        self._part_if_current()

    def _part_if_current(self) -> None:
        if self._parting is not None and self.is_current:
            self.request_close(self._parting)

    def _lose(self, close: Close) -> None:
        """End without a goodbye: the peer is gone, or takes nothing."""
        self._cut = True
        self.request_close(close)

    # In

    async def _read(self) -> None:
        wire, session = self._wire, self._session
        try:
            while True:
                kind, payload = await wire.receive()
                if kind != TEXT:
                    self.request_close(
                        Close(CloseCode.UNSUPPORTED_DATA, "binary messages are not spoken here")
                    )
                    return
                now = trio.current_time()
                self._active_at = now
                self._received_messages += 1
                await session.receive(payload, now)
                if self._reply_size > BACKLOG:  # a peer that asks and does not read
                    await self._wait_pulled()
        except PeerError as error:
            self.request_close(error.close)
        except ConnectionClosed as closed:
            self.request_close(Close(CloseCode.NORMAL, ""))
            self.close = _as_close(closed)
            self._cut = closed.code == CloseCode.ABNORMAL

    def hand_on(self, request: Request) -> bool:
        """Have the application's handler run, in a task beside the reader, one at a time."""
        if self._handlers is None:
            assert self._live is not None
            self._handlers, requests = trio.open_memory_channel[Request](HANDLER_QUEUE)
            self._live.start_soon(self._run_handlers, requests)
        try:
            self._handlers.send_nowait(request)
        except trio.WouldBlock:
            return False
        return True

    async def _run_handlers(self, requests: trio.MemoryReceiveChannel[Request]) -> None:
        async for request in requests:
            await self._session.run_handler(request)

    def authenticated(self, identity: Identity) -> None:
        """Take note of who is there, and of when the token expires."""
        self.identity = identity
        remaining = identity.expires_at - time.time()
        self._deadline = trio.current_time() + remaining
        self._deadline_close = Close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        self._registry.identify(self, identity.user)
        if self._renewed is not None:
            try:
                self._renewed.send_nowait(None)
            except trio.WouldBlock:
                pass  # the heartbeat will look anyway

    # Out

    def offer(self, frame: bytes) -> None:
        """Send a frame with the next flush, ahead of what the logs have; never waits."""
        self._replies.append(frame)
        self._reply_size += len(frame)
        self._services.hub.ready(self)

    async def _output(self, data: bytes) -> None:
        """Send bytes of the control plane at once; returns when they were taken."""
        self._replies.append(data)
        self._reply_size += len(data)
        self.flush(self._active_at)  # control frames do not make a connection active
        await trio.lowlevel.checkpoint()
        await self._wait_pulled()

    def flush(self, now: float) -> None:
        """Send what the socket takes without waiting; the writer sees to the rest."""
        self.queued = False
        if self._unsent is not None or self._cut:
            return
        data = self._pull(now)
        if not data:
            return
        try:
            sent = self._transport.try_send(data)
        except OSError:
            self._lose(Close(CloseCode.ABNORMAL, "the peer is gone"))
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            assert self._wake is not None
            self._wake.send_nowait(None)
        elif self.stale:
            self._services.hub.ready(self)
        elif self._parting is not None:
            self._part_if_current()

    def _pull(self, now: float) -> bytes:
        """Take all answers, and from the logs about as much as goes out at a time."""
        parts, self._replies = self._replies, []
        self._reply_size = 0
        self._tell_progress()
        stale, room = self.stale, PULL_BYTES
        while stale and room > 0 and self.close is None:
            subscription = next(iter(stale))
            del stale[subscription]
            gap = subscription.catch_up()
            if gap is not None:
                parts.append(gap)
            if subscription.lag:
                piece = self._services.hub.slice(subscription.log, subscription.cursor)
                self._sent_messages += piece.last - subscription.cursor
                subscription.cursor = piece.last
                parts.append(piece.data)
                room -= len(piece.data)
                self._active_at = now
                if subscription.lag:
                    stale[subscription] = None  # behind the others: everyone gets a turn
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.Event()
        await self._progress.wait()

    async def _wait_pulled(self) -> None:
        """Wait until the answers given so far are on their way."""
        while self._replies:
            await self._wait_progress()

    async def _write(self, woken: trio.MemoryReceiveChannel[None]) -> None:
        """Send what the socket did not take at once, then go on from the same cursors."""
        timeout = self._services.limits.write_timeout
        async for _ in woken:
            while self._unsent:
                sent = 0
                with trio.move_on_after(timeout) as scope:
                    try:
                        sent = await self._transport.send_some(self._unsent)
                    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                        self._lose(Close(CloseCode.ABNORMAL, "the peer is gone"))
                        return
                if scope.cancelled_caught:
                    self._lose(
                        Close(
                            CloseCode.NO_WRITE_PROGRESS,
                            f"the peer took nothing for {timeout:g} s",
                        )
                    )
                    return
                self._unsent = self._unsent[sent:]
            self._unsent = None
            self._tell_progress()
            self.flush(trio.current_time())

    @property
    def is_current(self) -> bool:
        """Whether everything published and answered so far was taken by the socket."""
        return (
            self._unsent is None
            and not self._replies
            and all(not s.lag for s in self.subscriptions.values())
        )

    # Alive

    async def _heartbeat(self, renewed: trio.MemoryReceiveChannel[None]) -> None:
        """Ping, and watch the three clocks: pong, idle, expiry."""
        limits = self._services.limits
        ping_at = trio.current_time() + limits.ping_interval
        while True:
            idle_at = self._active_at + limits.idle_timeout
            with trio.move_on_at(min(ping_at, idle_at, self._deadline)):
                await renewed.receive()
                continue
            now = trio.current_time()
            if now >= self._deadline:
                self.request_close(self._deadline_close)
            elif now >= self._active_at + limits.idle_timeout:
                self.request_close(
                    Close(CloseCode.IDLE, f"no message for {limits.idle_timeout:g} s")
                )
            elif now >= ping_at:
                pause = await self._ping()
                ping_at = trio.current_time() + pause

    async def _ping(self) -> float:
        """Ping, and return after how many seconds to ping again.

        Any byte from the peer counts as its pong. So does a full socket: then the ping itself
        is waiting, and the writer's deadline decides. And a timer that comes late says that the
        server stalled, not the peer: the pong may lie unread, so the clock starts again.
        """
        limits = self._services.limits
        started, received = trio.current_time(), self._transport.received
        deadline = min(started + limits.pong_timeout, self._deadline)
        with trio.move_on_at(deadline):
            if await self._wire.ping():
                self._round_trip = trio.current_time() - started
            return limits.ping_interval
        now = trio.current_time()
        if now - deadline > STALL or now >= self._deadline:
            return 0
        if self._transport.received == received and self._unsent is None:
            self.request_close(Close(CloseCode.NO_PONG, f"no pong for {limits.pong_timeout:g} s"))
        return limits.ping_interval

    # Told to others

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""
        user = self.identity.user if self.identity else None
        return {"connection": self.id, "user": user, "since": self._opened_at}

    def statistics(self) -> ConnectionStatistics:
        """Return a snapshot."""
        now = trio.current_time()
        subscriptions = self.subscriptions
        return ConnectionStatistics(
            id=self.id,
            user=self.identity.user if self.identity else None,
            peer=self._transport.peer,
            state=self._state,
            opened_at=self._opened_at,
            age=now - self._opened,
            idle=now - self._active_at,
            channels=tuple(subscriptions),
            received_messages=self._received_messages,
            received_bytes=self._transport.received,
            sent_messages=self._sent_messages,
            sent_bytes=self._transport.sent,
            lag=sum(s.lag for s in subscriptions.values()),
            lag_seconds=max(
                (s.log.age(s.cursor, now) for s in subscriptions.values()), default=0.0
            ),
            round_trip=self._round_trip,
        )


def _as_close(closed: ConnectionClosed) -> Close:
    """The peer's close as our own record of it; a code we do not know counts as normal."""
    try:
        code = CloseCode(closed.code)
    except ValueError:
        code = CloseCode.NORMAL
    return Close(code, closed.reason or "closed by the peer")
