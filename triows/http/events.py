"""Channels as Server-Sent Events: a viewer that speaks HTTP, with a cursor like any other."""

from __future__ import annotations

import random
import time
from typing import Any, Final, final

import trio
from starlette.responses import Response

from triows.auth import Identity
from triows.codec import decode, encode_json
from triows.errors import Close, CloseCode, ErrorCode, RequestError, may_reconnect
from triows.frames import frame_payload
from triows.http.answers import empty
from triows.http.call import Call
from triows.http.cursors import start, write_cursor
from triows.http.operations import EVENTS
from triows.http.serving import Receive, Send
from triows.http.waiter import Waiter
from triows.hub import PULL_BYTES
from triows.logs import Log
from triows.statistics import ConnectionStatistics
from triows.topics import Subscription

SIGN_OF_LIFE: Final = 15.0  # seconds without an event, after which a comment is sent
_RETRY_DELAY: Final = 1.0  # seconds after which what could not be read is asked for again
_RETRY: Final = (1000, 5000)  # milliseconds, from and to, after which to come back


async def events(call: Call) -> Response:
    """Answer with a stream of what comes after a cursor."""
    query = call.query
    resumed = call.head.header("last-event-id") or query.get("since")
    if "since" in query and "tail" in query:
        raise RequestError(ErrorCode.BAD_REQUEST, "`since` and `tail` exclude one another")
    log = await call.log(resumed)
    cursor, gap = start(log, resumed, None if resumed else query.get("tail"))
    call.check_again()
    if log.ended is not None and cursor >= log.head and gap is None:
        return empty(204)
    call.rooms.administration.registry.check_room()
    # No checkpoint from here to where the stream takes its place.
    return EventStream(call, log, cursor, gap)


@final
class EventStream(Waiter, Response):
    """One stream: an answer, a connection in the pool, and a subscriber.

    Attributes:
        close: with which code it ends; None while it lives.
    """

    def __init__(self, call: Call, log: Log, cursor: int, gap: dict[str, Any] | None) -> None:
        Waiter.__init__(self, call.user)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
        Response.__init__(self, None, 200, headers, EVENTS)
        del self.headers["content-length"]
        self.identity: Identity | None = call.user
        self.close: Close | None = None
        self._call = call
        self._log = log
        self._cursor = cursor
        self._gap = gap
        self._after: float | None = None  # seconds after which to come back, when drained
        self._subscription: Subscription | None = None
        self._closing = trio.Event()
        self._opened = self._active_at = trio.current_time()
        self._sent_messages = 0
        self._sent_before = call.exchange.transport.sent
        self._last: ConnectionStatistics | None = None

    # One stream is one nursery

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send events until the channel ends, the peer is gone, or somebody asks for the end."""
        registry, hub = self._call.rooms.administration.registry, self._call.rooms.services.hub
        exchange = self._call.exchange
        registry.add(self)
        registry.guests.pop(exchange, None)  # it has its place in the pool
        exchange.interrupt = self.wake
        self._subscription = hub.subscribe(self, self._log, self._cursor)
        try:
            registry.identify(self, self._call.user.user)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watch_peer, receive)
                nursery.start_soon(self._watch_end)
                await self._stream(receive, send)
                nursery.cancel_scope.cancel(reason="the stream has ended")
        except Exception:
            self._end(Close(CloseCode.INTERNAL_ERROR, "the server failed"))
            raise
        finally:
            self._detach()
            if self.close is None:
                self.close = Close(CloseCode.GOING_AWAY, "the server was stopped")
            registry.remove(self, self.close)

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text = b"retry: %d\n\n" % random.randint(*_RETRY)  # noqa: S311 no secret
        if self._gap is not None:
            text += self._tell_gap(self._gap)
        while True:
            if text:
                await send({"type": "http.response.body", "body": text, "more_body": True})
            if self._is_over():
                break
            text = await self._next()
        if not self._is_lost:
            await send({"type": "http.response.body", "body": self._goodbye(), "more_body": False})

    async def _next(self) -> bytes:
        """Return what there is to send: what has come, or a sign of life when nothing does."""
        subscription = self._subscription
        assert subscription is not None
        if subscription.lag:
            return await self._pull(subscription)
        with trio.move_on_after(SIGN_OF_LIFE):
            await self.wait()
            return b""
        return b": alive\n\n"

    async def _pull(self, subscription: Subscription) -> bytes:
        """Take the next messages from the log."""
        log, parts = subscription.log, []
        gap = subscription.catch_up()
        if gap is not None:
            parts.append(self._tell_gap(decode(frame_payload(gap)).data))
        first, epoch = subscription.cursor + 1, log.epoch
        try:
            texts = await self._call.rooms.services.bus.history(log, first, log.head, PULL_BYTES)
        except RequestError as error:  # the engine has logged it
            texts = []
            parts.append(b": waiting for what cannot be read now\n\n")
            with trio.move_on_after(error.retry_after or _RETRY_DELAY):
                await self._closing.wait()
        if log.epoch != epoch:
            return b""  # it began anew meanwhile
        for offset, text in enumerate(texts, first):
            parts.append(_event(decode(text).type, write_cursor(log, offset), text))
        if self.close is None:
            subscription.cursor += len(texts)
            self._sent_messages += len(texts)
            self._active_at = trio.current_time()
            return b"".join(parts)
        return b""

    def _tell_gap(self, gap: dict[str, Any]) -> bytes:
        self._call.rooms.services.hub.gaps += 1
        return _event("gap", write_cursor(self._log, gap["to"]), encode_json(gap))

    # How it ends

    @property
    def _is_lost(self) -> bool:
        return self.gone or self._call.exchange.lost

    def _is_over(self) -> bool:
        """Whether nothing more is to be sent but a goodbye."""
        subscription = self._subscription
        assert subscription is not None
        if self._is_lost:
            if self._call.exchange.overdue:
                timeout = self._call.rooms.services.limits.write_timeout
                reason = f"the peer took nothing for {timeout:g} s"
                self._end(Close(CloseCode.NO_WRITE_PROGRESS, reason))
            self._end(Close(CloseCode.ABNORMAL, "the peer is gone"))
        elif self.close is None and not subscription.lag:
            if self._log.ended is not None:
                self._end(Close(CloseCode.NORMAL, "the channel has ended"))
            elif self._after is not None:
                self._end(Close(CloseCode.RESTART, "the server restarts; connect again"))
        return self.close is not None

    def _goodbye(self) -> bytes:
        """Return the last event: whether to come back, and when; none after the channel's end."""
        assert self.close is not None
        if self.close.code is CloseCode.NORMAL:
            return b""
        if self._after is not None:
            data: dict[str, object] = {"after": self._after, "reason": "restart"}
            retry = b"retry: %d\n" % round(self._after * 1000)
            return retry + b"event: reconnect\ndata: %b\n\n" % encode_json(data)
        data = {
            "code": int(self.close.code),
            "reason": self.close.reason,
            "reconnect": may_reconnect(self.close.code),
        }
        return b"event: close\ndata: %b\n\n" % encode_json(data)

    async def _watch_end(self) -> None:
        """Ask for the end when the token expires; then, see that it does not take too long."""
        with trio.move_on_after(max(0, self._call.user.expires_at - time.time())):
            await self._closing.wait()
        self._end(Close(CloseCode.TOKEN_EXPIRED, "the token has expired"))
        await trio.sleep(self._call.rooms.services.limits.close_timeout)
        self._call.exchange.break_off()

    def _end(self, close: Close) -> None:
        """Ask for the end; the first to ask is heard."""
        if self.close is None:
            self._last = self.statistics()
            self.close = close
            self._detach()
            self._closing.set()
            self.wake()

    def _detach(self) -> None:
        if self._subscription is not None and self._subscription.active:
            self._call.rooms.services.hub.unsubscribe(self._subscription)

    # For the registry

    def request_close(self, close: Close) -> None:
        """Ask for the end, with a code. Returns at once."""
        self._end(close)

    def cut(self, close: Close) -> None:
        """Ask for the end such that nothing more reaches the peer."""
        self._end(close)
        if self._call.exchange.is_blocked:
            self._call.exchange.reset = True
            self._call.exchange.break_off()

    def drain(self, after: float) -> None:
        """Ask for the end once it has all that is its; returns at once."""
        self._after = after
        self.wake()

    def statistics(self) -> ConnectionStatistics:
        """Return a snapshot; of its lag, as when its end was asked for."""
        now = trio.current_time()
        subscription, transport = self._subscription, self._call.exchange.transport
        lag = subscription.lag if subscription is not None else 0
        age = self._log.age(subscription.cursor, now) if subscription is not None else 0.0
        return ConnectionStatistics(
            id=self.id,
            user=self._call.user.user,
            peer=transport.peer,
            state="open" if self.close is None else "closing",
            opened_at=self._since,
            age=now - self._opened,
            idle=now - self._active_at,
            channels=(self._log.channel,),
            received_messages=0,
            received_bytes=0,
            sent_messages=self._sent_messages,
            sent_bytes=transport.sent - self._sent_before,
            lag=self._last.lag if self._last else lag,
            lag_seconds=self._last.lag_seconds if self._last else age,
            round_trip=None,
        )


def _event(kind: str, cursor: str, data: bytes) -> bytes:
    """Return one event. Line breaks in JSON are white space, and end a line here."""
    lines = b"\ndata: ".join(data.splitlines())
    name = " ".join(kind.splitlines()).encode(errors="replace")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), name, lines)
