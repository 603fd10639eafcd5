"""The client: stays connected, and goes on where it was.

One task dials, again and again, and runs what a connection needs; the application's tasks only
ask. A request that was not answered yet is sent again on the next connection with the same
`id`, which the server does not carry out twice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio
from msgspec.structs import replace

from triows.codec import encode_json
from triows.conversation import Conversation, Desk
from triows.dial import CONNECT_TIMEOUT, Address, OpenStream, check_token, dial, explain
from triows.errors import (
    AuthError,
    CloseCode,
    ConfigError,
    ConnectionClosed,
    ErrorCode,
    HandshakeRefused,
    RequestError,
    TriowsError,
    may_reconnect,
)
from triows.messages import PUBLISHED, Message, MessageType, Position, check_channel, command
from triows.outbox import Pending, backoff
from triows.topics import OnLag
from triows.viewer import Subscription

logger = logging.getLogger("triows.client")

GOODBYE: Final = 0.5  # seconds the server has for its close frame when we leave
STABLE: Final = 5.0  # seconds a connection must have been up for the backoff to begin anew
MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes; a page of history is larger than a message
TOKEN_ATTEMPTS: Final = 3  # fresh tokens refused before the client gives up

Token = str | Callable[[], Awaitable[str]] | None
"""A token, or how to get a fresh one."""

OnState = Callable[[str, TriowsError | None], None]
"""Told `connecting`, `connected`, and with the reason `disconnected` (it will try again) or
`failed` (it will not); never waits, never raises."""


@final
class Client:
    """A connection to a server that is renewed whenever it is lost. Made by `open_client`."""

    def __init__(
        self,
        addresses: Sequence[Address],
        token: Token,
        open_stream: OpenStream | None,
        on_state: OnState | None,
    ) -> None:
        self._addresses = addresses
        self._turn = 0  # whose it is; counts on
        self._token = token
        self._open_stream = open_stream
        self._on_state = on_state or (lambda state, reason: None)
        self._desk = Desk()
        self._refused = 0  # tokens refused one after the other
        self._connected_at = math.inf
        self._talking: trio.CancelScope | None = None  # while there is a connection
        self._leaving = False

    @property
    def session(self) -> Mapping[str, Any]:
        """What the server said at the start: connection, user, heartbeat, limits."""
        return self._desk.session

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
        desk = self._desk
        if channel in desk.subscriptions:
            raise RequestError(ErrorCode.BAD_REQUEST, f"{channel} is watched already")
        start: dict[str, Any] = {}
        if tail is not None:
            start = {"tail": tail}
        elif since is not None:
            start = {"since": attrs.asdict(since)}
        elif from_start:
            start = {"from": "start"}
        subscription = Subscription(channel, start, on_lag, desk.want)
        desk.subscriptions[channel] = subscription
        if desk.outbox.failure is not None:
            subscription.fail(desk.outbox.failure)
        desk.want(subscription)
        try:
            yield subscription
        finally:
            del desk.subscriptions[channel]
            subscription.paused = True
            desk.want(subscription)

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
        outbox = self._desk.outbox
        sent: list[Pending] = []
        try:
            for message in messages:
                if message.type not in PUBLISHED:
                    reason = f"a message of type {message.type!r} cannot be published"
                    raise RequestError(ErrorCode.BAD_REQUEST, reason)
                sent.append(outbox.put(replace(message, channel=channel)))
            answers = [await outbox.wait(pending) for pending in sent]
        finally:
            for pending in sent:
                outbox.forget(pending)
        return [_position(answer) for answer in answers]

    async def command(self, channel: str, data: object) -> Any:
        """Send a command; return the data of its `ack` (an application's answer is `result`).

        Raises:
            As `publish`.
        """
        return await self.request(replace(command(data), channel=channel))

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
        return await self._desk.request(message)

    # The connections, one after the other

    async def run(self) -> None:
        """Stay connected until the client leaves or gives up; then the reason goes to whoever
        waits.
        """
        attempt = 0
        while True:
            self._on_state("connecting", None)
            self._connected_at = math.inf
            ended = await self._connect()
            if self._leaving:
                return
            if self._is_final(ended):
                self._on_state("failed", ended)
                self._give_up(ended)
                return
            self._on_state("disconnected", ended)
            if trio.current_time() - self._connected_at > STABLE:
                attempt = 0
            wait, self._desk.stay_away = self._desk.stay_away, 0.0
            if isinstance(ended, HandshakeRefused):
                wait = max(wait, ended.retry_after or 0)
            await trio.sleep(backoff(attempt // len(self._addresses), wait))
            attempt += 1
            self._turn += 1

    def leave(self, nursery: trio.Nursery) -> None:
        """End `run`: with a goodbye if there is a connection, else at once."""
        self._leaving = True
        if self._talking is None:
            nursery.cancel_scope.cancel(reason="the client has left")
        else:
            self._talking.cancel(reason="the client has left")

    def _is_final(self, ended: ConnectionClosed | HandshakeRefused) -> bool:
        if isinstance(ended, ConnectionClosed):
            return not may_reconnect(ended.code)
        if ended.status == 401:
            self._refused += 1
            return not callable(self._token) or self._refused >= TOKEN_ATTEMPTS
        return ended.status < 500 and ended.status != 429

    def _give_up(self, failure: TriowsError) -> None:
        self._desk.outbox.fail(failure)
        for subscription in self._desk.subscriptions.values():
            subscription.fail(failure)

    async def _connect(self) -> ConnectionClosed | HandshakeRefused:
        """Dial once and serve the connection to its end; return why it ended."""
        address = self._addresses[self._turn % len(self._addresses)]
        stream: trio.abc.Stream | None = None
        ended: ConnectionClosed | HandshakeRefused = ConnectionClosed(CloseCode.ABNORMAL)
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_TIMEOUT):
                    token = await self._fresh_token()
                    stream = await (self._open_stream or address.open)()
                    dialed = await dial(nursery, stream, address, token, MAX_MESSAGE)
                    conversation = Conversation(
                        dialed, self._desk, self._fresh_token if callable(self._token) else None
                    )
                    await conversation.greet()
                await self._converse(conversation)
                with trio.move_on_after(GOODBYE):
                    await dialed.close()
                nursery.cancel_scope.cancel(reason="the connection is over")
        except* Exception as group:
            ended = explain(group)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)  # noqa: ASYNC102 it does not wait
        return ended

    async def _converse(self, conversation: Conversation) -> None:
        """Talk until we leave; raises when the connection ends before."""
        self._refused = 0
        self._connected_at = trio.current_time()
        self._on_state("connected", None)
        try:
            with trio.CancelScope() as self._talking:
                async with trio.open_nursery() as talk:
                    await conversation.run(talk)
        finally:
            self._talking = None

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            return check_token(await self._token())
        except ConfigError as error:
            raise AuthError(str(error)) from None
        except Exception as error:
            logger.exception("the token function failed")
            raise ConnectionClosed(
                CloseCode.ABNORMAL, f"the token function failed: {error!r}"
            ) from error


def _position(answer: Any) -> Position:
    try:
        return Position(answer["epoch"], answer["offset"])
    except (LookupError, TypeError):
        reason = "the server's `ack` holds no position"
        raise ConnectionClosed(CloseCode.PROTOCOL_ERROR, reason) from None


@asynccontextmanager
async def open_client(
    url: str | Sequence[str],
    *,
    token: Token = None,
    on_state: OnState | None = None,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Client]:
    """Open a client for the duration of an `async with`; it connects in the background.

    A lost connection is renewed: after 0.5 to 20 s with full jitter, with a fresh token, and
    with every subscription going on where it was.

    Args:
        url: `ws://host:port/ws` or `wss://…`; or several, of servers that share one store: each
            attempt goes to the next of them, the first one first.
        token: a token, or an async function that returns a fresh one.
        on_state: told about the connection, see `OnState`.
        open_stream: opens the byte stream, instead of TCP to `url`: for proxies and tests.

    Raises:
        ConfigError: an address is wrong or there is none, or the token cannot be one.
    """
    addresses = [Address.parse(one) for one in ([url] if isinstance(url, str) else url)]
    if not addresses:
        raise ConfigError("no address of a server: expected ws://host:port/ws, one or several")
    if isinstance(token, str):
        check_token(token)
    client = Client(addresses, token, open_stream, on_state)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        try:
            yield client
        except BaseException as error:  # noqa: ASYNC103 raised again below
            failure = error
            nursery.cancel_scope.cancel(reason="the application failed")
        else:
            client.leave(nursery)
    if failure is not None:
        raise failure
