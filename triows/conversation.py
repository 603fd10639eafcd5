"""One connection of a client, from the server's greeting to its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final, final

import attrs
import msgspec
import trio
import uuid_utils

from triows.codec import MAX_NESTING, decode, decode_data, encode_json, encode_request
from triows.dial import Dialed
from triows.errors import CloseCode, ConnectionClosed, HandshakeRefused, RequestError
from triows.limits import TokenBucket
from triows.messages import Message, MessageType
from triows.outbox import BACKOFF_MIN, Outbox, as_error
from triows.viewer import Subscription

logger = logging.getLogger("triows.client")

TICK: Final = 0.001  # seconds; the least that is worth a wait
ANSWER_NESTING: Final = MAX_NESTING + 10  # levels: an answer may wrap whole messages
PACE: Final = 0.9  # of the server's rate limit: what we send at most
_ANSWERS: Final = frozenset({"ack", "error", "auth", "pong"})
_REFRESH_AT: Final = 0.8  # of a token's remaining life, after which a new one is asked for

GetToken = Callable[[], Awaitable[str | None]]


_Rate = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class _Limits(msgspec.Struct):
    messages_per_second: _Rate
    messages_burst: _Rate = 0
    bytes_per_second: _Rate = 0


class _Heartbeat(msgspec.Struct):
    ping_interval: _Seconds
    pong_timeout: _Seconds
    idle_timeout: _Seconds


class _Greeting(msgspec.Struct):
    """What of the server's greeting we cannot do without."""

    limits: _Limits
    heartbeat: _Heartbeat
    expires_at: Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class _Reconnect(msgspec.Struct):
    after: Annotated[float, msgspec.Meta(ge=0, le=3600)]


_greeting: Final = msgspec.json.Decoder(_Greeting)
_reconnect: Final = msgspec.json.Decoder(_Reconnect)


@final
@attrs.define(eq=False)
class Desk:
    """What outlives a connection: what the application wants, and what waits for an answer.

    Attributes:
        subscriptions: by channel.
        wanted: subscriptions of which the server has to be told.
        outbox: requests.
        session: what the server said at the start: connection, user, heartbeat, limits.
        stay_away: seconds the server asked for before it closed.
    """

    subscriptions: dict[str, Subscription] = attrs.field(factory=dict)
    wanted: dict[Subscription, None] = attrs.field(factory=dict)
    outbox: Outbox = attrs.field(factory=Outbox)
    session: dict[str, Any] = attrs.field(factory=dict)
    stay_away: float = 0.0

    def want(self, subscription: Subscription) -> None:
        """Have the server told whether `subscription` is wanted."""
        self.wanted[subscription] = None
        self.outbox.wake()

    async def request(self, message: Message) -> Any:
        """Send a request; return the data of its answer.

        Raises:
            TriowsError: the server refused it, or the client has given up.
        """
        pending = self.outbox.put(message)
        try:
            return await self.outbox.wait(pending)
        finally:
            self.outbox.forget(pending)


@final
class Conversation:
    """What is said over one connection.

    Args:
        dialed: the connection.
        desk: what is to be said.
        get_token: returns a fresh token, or None if there is only one.
    """

    def __init__(self, dialed: Dialed, desk: Desk, get_token: GetToken | None) -> None:
        self._dialed = dialed
        self._desk = desk
        self._get_token = get_token
        self._asked: dict[str, Subscription] = {}  # by the id of the `subscribe`
        self._heard_at = trio.current_time()
        self._greeting: _Greeting | None = None
        self._token_life = 0.0  # seconds, of the token the server has

    async def greet(self) -> None:
        """Take the server's greeting.

        Raises:
            ConnectionClosed: it is over, or the server speaks something else.
        """
        text = await self._dialed.receive()
        try:
            self._authenticated(decode(text, ANSWER_NESTING))
        except (RequestError, LookupError, TypeError, ValueError):
            reason = "the server does not speak triows.v1"
            raise ConnectionClosed(CloseCode.PROTOCOL_ERROR, reason) from None

    def _authenticated(self, message: Message) -> None:
        """Take what the server says of who we are, and for how long by its own clock."""
        self._greeting = decode_data(message, _greeting)
        self._desk.session = message.data
        stamp = message.timestamp
        now = datetime.fromisoformat(stamp).timestamp() if stamp else time.time()
        self._token_life = self._greeting.expires_at - now

    async def run(self, nursery: trio.Nursery) -> None:
        """Take up where the last connection ended, and go on until this one does.

        Raises:
            ConnectionClosed: always; how it ended. Also from the tasks in `nursery`.
        """
        desk, greeting = self._desk, self._greeting
        assert greeting is not None
        desk.wanted = dict.fromkeys(
            s for s in desk.subscriptions.values() if not (s.paused or s.is_over)
        )
        desk.outbox.restart()
        nursery.start_soon(self._write, greeting.limits)
        nursery.start_soon(self._keep_alive, greeting.heartbeat)
        if self._get_token is not None:
            nursery.start_soon(self._refresh, self._get_token)
        while True:
            text = await self._dialed.receive()
            self._heard_at = trio.current_time()
            try:
                self._take(decode(text, ANSWER_NESTING))
            except (RequestError, LookupError, TypeError, ValueError) as error:
                raise ConnectionClosed(
                    CloseCode.PROTOCOL_ERROR, f"the server broke the protocol: {error!r}"
                ) from error

    # In

    def _take(self, message: Message) -> None:
        """Take one message of the server."""
        match message.type:
            case MessageType.AUTH:
                self._authenticated(message)
            case MessageType.RECONNECT:
                self._desk.stay_away = decode_data(message, _reconnect).after
            case MessageType.ERROR if message.id is None:
                self._take_error(message)
            case MessageType.PONG | MessageType.ACK | MessageType.ERROR:
                pass
            case _:
                self._deliver(message)
        if message.type in _ANSWERS and message.id is not None:
            self._take_answer(message)

    def _deliver(self, message: Message) -> None:
        subscription = self._desk.subscriptions.get(message.channel or "")
        if subscription is not None and not subscription.deliver(message):
            logger.warning("a message is missing on %s: asking again", message.channel)
            self._desk.want(subscription)

    def _take_answer(self, message: Message) -> None:
        subscription = self._asked.pop(message.id or "", None)
        if subscription is None:
            self._desk.outbox.settle(message)
        elif message.type == MessageType.ACK:
            subscription.acknowledged(message.data)
        else:
            error = as_error(message)
            if error.retry:
                self._desk.outbox.hold(error.retry_after or BACKOFF_MIN)
                self._desk.want(subscription)
            else:
                subscription.fail(error)

    def _take_error(self, message: Message) -> None:
        """Take an `error` that answers no request: a subscription that was ended."""
        error = as_error(message)
        subscription = self._desk.subscriptions.get(message.channel or "")
        if subscription is not None:
            subscription.fail(error)
        else:
            logger.warning("the server says %s: %s", error.code, error.message)

    # Out

    async def _write(self, limits: _Limits) -> None:
        """Send what is to be sent, no faster than the server said it would take: a request that
        is refused for that, and sent again, has lost its place among the others.
        """
        desk, now = self._desk, trio.current_time()
        rate, bytes_rate = limits.messages_per_second, limits.bytes_per_second
        burst = limits.messages_burst or rate
        messages = TokenBucket(rate * PACE, min(rate, burst) * PACE, now)
        size = TokenBucket(bytes_rate * PACE, bytes_rate * PACE, now)
        while True:
            held = desk.outbox.held
            if held or not (desk.wanted or desk.outbox):
                with trio.move_on_after(held or math.inf):
                    await desk.outbox.changed()
                continue
            text = self._next_text()
            for bucket, amount in ((messages, 1), (size, len(text))):
                while wait := bucket.take(amount, trio.current_time()):  # noqa: ASYNC110
                    await trio.sleep(max(wait, TICK))
            await self._dialed.send(text)

    def _next_text(self) -> bytes:
        desk = self._desk
        if not desk.wanted:
            return desk.outbox.pop()
        subscription = next(iter(desk.wanted))
        del desk.wanted[subscription]
        id_ = str(uuid_utils.uuid7())
        if subscription.paused:
            # With an id, so that an error in answer to it is not taken for another's.
            return encode_request(
                Message(MessageType.UNSUBSCRIBE, channel=subscription.channel, id=id_)
            )
        self._asked[id_] = subscription
        raw = encode_json(subscription.request())
        return encode_request(
            Message(MessageType.SUBSCRIBE, raw=raw, channel=subscription.channel, id=id_)
        )

    # Alive, and allowed

    async def _keep_alive(self, heartbeat: _Heartbeat) -> None:
        """Ping when it is quiet: the server closes what is idle, and a dead network is silent."""
        interval = min(heartbeat.ping_interval, heartbeat.idle_timeout / 2)
        timeout = heartbeat.pong_timeout
        while True:
            await trio.sleep(interval)
            asked_at = trio.current_time()
            with trio.move_on_after(timeout) as scope:
                await self._desk.request(Message(MessageType.PING))
            if scope.cancelled_caught and self._heard_at < asked_at:
                raise ConnectionClosed(
                    CloseCode.NO_PONG, f"the server was silent for {timeout:g} s"
                )

    async def _refresh(self, get_token: GetToken) -> None:
        """Get a new token while the old one is still good, and hand it over in-band.

        When none can be had, try again in what is left: the connection lives for so long.
        """
        expires = trio.current_time() + self._token_life
        while True:
            await trio.sleep(max(1.0, (expires - trio.current_time()) * _REFRESH_AT))
            try:
                raw = encode_json({"token": await get_token()})
                await self._desk.request(Message(MessageType.AUTH, raw=raw))
            except (RequestError, ConnectionClosed, HandshakeRefused) as error:
                logger.warning("the token was not renewed: %s", error)
            else:
                expires = trio.current_time() + self._token_life
