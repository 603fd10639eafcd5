"""The client: stays connected, and goes on where it was.

One task dials, again and again, and runs what a connection needs; the application's tasks only
ask. A request that was not answered yet is sent again on the next connection with the same
`id`, which the server does not carry out twice.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio
import uuid_utils

from triows.codec import decode, encode_json, encode_request
from triows.dial import CONNECT_TIMEOUT, Address, Dialed, OpenStream, dial, explain
from triows.errors import (
    CloseCode,
    ConnectionClosed,
    ErrorCode,
    HandshakeRefused,
    RequestError,
    TriowsError,
    may_reconnect,
)
from triows.hub import OnLag
from triows.limits import TokenBucket
from triows.messages import Message, MessageType, Position, check_channel, command
from triows.outbox import BACKOFF_MIN, Outbox, as_error, backoff
from triows.viewer import Subscription

logger = logging.getLogger("triows.client")

STABLE: Final = 5.0  # seconds a connection must have been up for the backoff to begin anew
MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes; a page of history is larger than a message
GOODBYE: Final = 0.5  # seconds the server has for its close frame when we leave
PACE: Final = 0.9  # of the server's rate limit: what we send at most
TOKEN_ATTEMPTS: Final = 3  # fresh tokens refused before the client gives up
_ANSWERS: Final = frozenset({"ack", "error", "auth", "pong"})
_REFRESH_AT: Final = 0.8  # of a token's remaining life, after which a new one is asked for

Token = str | Callable[[], Awaitable[str]] | None
"""A token, or how to get a fresh one."""

OnState = Callable[[str, TriowsError | None], None]
"""Told `connecting`, `connected`, and `disconnected` with the reason; never waits, never raises."""


@final
class Client:
    """A connection to a server that is renewed whenever it is lost. Made by `open_client`."""

    def __init__(
        self, address: Address, token: Token, open_stream: OpenStream, on_state: OnState | None
    ) -> None:
        self._address = address
        self._token = token
        self._open_stream = open_stream
        self._on_state = on_state or (lambda state, reason: None)
        self._subscriptions: dict[str, Subscription] = {}
        self._asked: dict[str, Subscription] = {}  # by the id of the `subscribe`
        self._wanted: dict[Subscription, None] = {}  # of whom the server has to be told
        self._outbox = Outbox()
        self._heard_at = 0.0
        self._retry_after = 0.0  # how long to stay away, as the server said before it closed
        self._refused = 0  # tokens refused one after the other
        self.session: dict[str, Any] = {}
        """What the server said at the start: connection, user, heartbeat, limits."""

    # What an application does

    @asynccontextmanager
    async def subscribe(
        self,
        channel: str,
        *,
        tail: int | None = None,
        since: Position | None = None,
        from_start: bool = False,
        on_lag: OnLag = OnLag.GAP,
    ) -> AsyncIterator[Subscription]:
        """Watch a channel for the duration of an `async with`.

        Args:
            channel: its name; at most one subscription of a client to each.
            tail: begin with so many of the messages there are.
            since: go on after a position, as read from `Subscription.position`.
            from_start: begin with the oldest message there is. With none of the three: with
                what comes next.
            on_lag: what happens when we are too slow and messages are no longer kept.

        Raises:
            RequestError: `bad_channel`; what the server says comes out of the iteration.
        """
        check_channel(channel)
        if channel in self._subscriptions:
            raise RequestError(ErrorCode.BAD_REQUEST, f"{channel} is watched already")
        start: dict[str, Any] = {}
        if tail is not None:
            start = {"tail": tail}
        elif since is not None:
            start = {"since": attrs.asdict(since)}
        elif from_start:
            start = {"from": "start"}
        subscription = Subscription(channel, start, on_lag, self._want)
        self._subscriptions[channel] = subscription
        if self._outbox.failure is not None:
            subscription.fail(self._outbox.failure)
        self._want(subscription)
        try:
            yield subscription
        finally:
            del self._subscriptions[channel]
            subscription.paused = True
            self._want(subscription)

    async def publish(self, channel: str, message: Message) -> Position:
        """Publish `message`; return its position when the server has acknowledged it.

        Waits for as long as there is no connection. A message without `id` is given one: sent
        again after a lost connection, it is not published twice. Cancelled, the outcome is
        unknown.

        Raises:
            RequestError: the server refused it.
            HandshakeRefused, ConnectionClosed: the client has given up.
        """
        return (await self.publish_many(channel, [message]))[0]

    async def publish_many(self, channel: str, messages: Iterable[Message]) -> list[Position]:
        """Publish several messages in order, without waiting for each; as `publish`.

        When one is refused the others may have been published.
        """
        sent = [self._outbox.put(attrs.evolve(m, channel=channel)) for m in messages]
        try:
            answers = [await self._outbox.wait(pending) for pending in sent]
        finally:
            for pending in sent:
                self._outbox.forget(pending)
        return [Position(a["epoch"], a["offset"]) for a in answers]

    async def command(self, channel: str, data: object) -> Any:
        """Send a command; return the data of its `ack` (an application's answer is `result`).

        Raises:
            As `publish`.
        """
        return await self.request(attrs.evolve(command(data), channel=channel))

    async def history(self, channel: str, **range_: Any) -> Any:
        """Return a page of what is kept: `epoch`, `earliest`, `offset`, `messages`, `next`.

        Args:
            range_: `from`, `to`, `limit`, `epoch` as in the protocol.

        Raises:
            As `publish`.
        """
        return await self.request(
            Message(MessageType.HISTORY, raw=encode_json(range_), channel=channel)
        )

    async def request(self, message: Message) -> Any:
        """Send any request; return the data of its `ack`.

        Raises:
            As `publish`.
        """
        pending = self._outbox.put(message)
        try:
            return await self._outbox.wait(pending)
        finally:
            self._outbox.forget(pending)

    def _want(self, subscription: Subscription) -> None:
        """Have the writer tell the server whether `subscription` is wanted."""
        self._wanted[subscription] = None
        self._outbox.wake()

    # The connections, one after the other

    async def run(self) -> None:
        """Stay connected until the client gives up; the reason goes to whoever waits."""
        attempt = 0
        while True:
            self._on_state("connecting", None)
            started = trio.current_time()
            ended = await self._connect()
            self._on_state("disconnected", ended)
            if self._is_final(ended):
                self._give_up(ended)
                return
            if trio.current_time() - started > STABLE:
                attempt = 0
            wait, self._retry_after = self._retry_after, 0.0
            if isinstance(ended, HandshakeRefused):
                wait = max(wait, ended.retry_after or 0)
            await trio.sleep(backoff(attempt, wait))
            attempt += 1

    def _is_final(self, ended: ConnectionClosed | HandshakeRefused) -> bool:
        if isinstance(ended, ConnectionClosed):
            return not may_reconnect(ended.code)
        if ended.status == 401:
            self._refused += 1
            return not callable(self._token) or self._refused >= TOKEN_ATTEMPTS
        return ended.status < 500 and ended.status != 429

    def _give_up(self, failure: TriowsError) -> None:
        self._outbox.fail(failure)
        for subscription in self._subscriptions.values():
            subscription.fail(failure)

    async def _connect(self) -> ConnectionClosed | HandshakeRefused:
        """Dial once and serve the connection to its end; return why it ended."""
        stream: trio.abc.Stream | None = None
        ended: ConnectionClosed | HandshakeRefused = ConnectionClosed(CloseCode.ABNORMAL)
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_TIMEOUT):
                    token = await self._fresh_token()
                    stream = await self._open_stream()
                    dialed = await dial(nursery, stream, self._address, token, MAX_MESSAGE)
                await self._converse(dialed, nursery)
        except* Exception as group:
            ended = explain(group)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)  # noqa: ASYNC102 it does not wait
        return ended

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            return await self._token()
        except TriowsError:
            raise
        except Exception as error:
            logger.exception("the token function failed")
            raise ConnectionClosed(
                CloseCode.ABNORMAL, f"the token function failed: {error!r}"
            ) from error

    async def _converse(self, dialed: Dialed, nursery: trio.Nursery) -> None:
        """Take up where the last connection ended, and read until this one does."""
        greeting = await self._greeting(dialed)
        self.session = greeting
        self._refused = 0
        self._asked.clear()
        self._wanted = dict.fromkeys(
            s for s in self._subscriptions.values() if not (s.paused or s.is_over)
        )
        self._outbox.restart()
        self._on_state("connected", None)
        nursery.start_soon(self._write, dialed, greeting["limits"]["messages_per_second"])
        nursery.start_soon(self._keep_alive, greeting["heartbeat"])
        if callable(self._token):
            nursery.start_soon(self._refresh, greeting["expires_at"])
        try:
            while True:
                self._take(decode(await dialed.receive()))
                self._heard_at = trio.current_time()
        except trio.Cancelled:  # we are leaving, or a task beside us has found the line dead
            with trio.move_on_after(GOODBYE, shield=True):
                await dialed.close()
            raise

    async def _greeting(self, dialed: Dialed) -> dict[str, Any]:
        with trio.fail_after(CONNECT_TIMEOUT):
            message = decode(await dialed.receive())
        if message.type != MessageType.AUTH:
            raise ConnectionClosed(CloseCode.ABNORMAL, "the server does not speak triows.v1")
        greeting: dict[str, Any] = message.data
        return greeting

    # In

    def _take(self, message: Message) -> None:
        """Take one message of the server."""
        match message.type:
            case MessageType.AUTH:
                self.session = message.data
            case MessageType.RECONNECT:
                self._retry_after = float(message.data["after"])
            case MessageType.ERROR if message.id is None:
                self._take_error(message)
            case MessageType.PONG | MessageType.ACK | MessageType.ERROR:
                pass
            case _:
                self._deliver(message)
        if message.type in _ANSWERS and message.id is not None:
            self._take_answer(message)

    def _deliver(self, message: Message) -> None:
        subscription = self._subscriptions.get(message.channel or "")
        if subscription is not None and not subscription.deliver(message):
            logger.warning("a message is missing on %s: asking again", message.channel)
            self._want(subscription)

    def _take_answer(self, message: Message) -> None:
        subscription = self._asked.pop(message.id or "", None)
        if subscription is None:
            self._outbox.settle(message)
        elif message.type == MessageType.ACK:
            subscription.acknowledged(message.data)
        else:
            error = as_error(message)
            if error.retry:
                self._outbox.hold(error.retry_after or BACKOFF_MIN)
                self._want(subscription)
            else:
                subscription.fail(error)

    def _take_error(self, message: Message) -> None:
        """Take an `error` that answers no request: a subscription that was ended."""
        error = as_error(message)
        subscription = self._subscriptions.get(message.channel or "")
        if subscription is not None:
            subscription.fail(error)
        else:
            logger.warning("the server says %s: %s", error.code, error.message)

    # Out

    async def _write(self, dialed: Dialed, rate: float) -> None:
        """Send what is to be sent, no faster than the server said it would take."""
        bucket = TokenBucket(rate * PACE, rate * PACE, trio.current_time())
        while True:
            held = self._outbox.held
            if held or not (self._wanted or self._outbox):
                with trio.move_on_after(held or math.inf):
                    await self._outbox.changed()
                continue
            wait = bucket.take(1, trio.current_time())
            if wait:
                self._outbox.hold(wait)
            else:
                await dialed.send(self._next_text())

    def _next_text(self) -> bytes:
        if not self._wanted:
            return self._outbox.pop()
        subscription = next(iter(self._wanted))
        del self._wanted[subscription]
        return self._subscribe_text(subscription)

    def _subscribe_text(self, subscription: Subscription) -> bytes:
        if subscription.paused:
            return encode_request(Message(MessageType.UNSUBSCRIBE, channel=subscription.channel))
        id_ = str(uuid_utils.uuid7())
        self._asked[id_] = subscription
        return encode_request(
            Message(
                MessageType.SUBSCRIBE,
                raw=encode_json(subscription.request()),
                channel=subscription.channel,
                id=id_,
            )
        )

    async def _keep_alive(self, heartbeat: dict[str, float]) -> None:
        """Ping when it is quiet: the server closes what is idle, and a dead network is silent."""
        interval = min(heartbeat["ping_interval"], heartbeat["idle_timeout"] / 2)
        while True:
            await trio.sleep(interval)
            asked_at = trio.current_time()
            with trio.move_on_after(heartbeat["pong_timeout"]) as scope:
                await self.request(Message(MessageType.PING))
            if scope.cancelled_caught and self._heard_at < asked_at:
                raise ConnectionClosed(
                    CloseCode.NO_PONG,
                    f"the server was silent for {heartbeat['pong_timeout']:g} s",
                )

    async def _refresh(self, expires_at: float) -> None:
        """Get a new token while the old one is still good, and hand it over in-band."""
        while True:
            await trio.sleep(max(1.0, (expires_at - time.time()) * _REFRESH_AT))
            try:
                token = await self._fresh_token()
                await self.request(Message(MessageType.AUTH, raw=encode_json({"token": token})))
            except RequestError as error:
                raise ConnectionClosed(CloseCode.TOKEN_EXPIRED, error.message) from None
            expires_at = self.session["expires_at"]


@asynccontextmanager
async def open_client(
    url: str,
    *,
    token: Token = None,
    on_state: OnState | None = None,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Client]:
    """Open a client for the duration of an `async with`; it connects in the background.

    A lost connection is renewed: after 0.5 to 20 s with full jitter, with a fresh token, and
    with every subscription going on where it was.

    Args:
        url: `ws://host:port/ws` or `wss://…`.
        token: a token, or an async function that returns a fresh one.
        on_state: told about the connection, see `OnState`.
        open_stream: opens the byte stream, instead of TCP to `url`: for proxies and tests.

    Raises:
        ConfigError: the address is wrong.
    """
    address = Address.parse(url)
    client = Client(address, token, open_stream or address.open, on_state)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        try:
            yield client
        except BaseException as error:  # noqa: ASYNC103 raised again below
            failure = error
        nursery.cancel_scope.cancel(reason="the client has left")
    if failure is not None:
        raise failure
