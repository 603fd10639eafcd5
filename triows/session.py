"""The protocol of one connection: a message in, what follows from it out.

A session knows no socket and no task. Every request gets exactly one answer, an `ack` or an
`error` (messages to publish only when they carry an `id`), and a refused request has done
nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import attrs
import msgspec

from triows import requests
from triows.application import Application, Request
from triows.auth import Action, Authenticator, Identity
from triows.bus import Bus
from triows.codec import (
    clock,
    decode,
    decode_data,
    encode_ack,
    encode_error,
    encode_json,
    encode_push,
)
from triows.config import Limits
from triows.errors import (
    AuthError,
    Close,
    CloseCode,
    ErrorCode,
    RequestError,
)
from triows.frames import encode_frame
from triows.hub import Hub, Subscriber, Subscription
from triows.limits import Budget
from triows.messages import Message, MessageType, Position, Receipt, check_channel

PAGE_BYTES: Final = 256 * 1024  # of messages in one answer to `history`
MAX_PRESENT: Final = 1000  # connections named in one answer to `presence`


@attrs.frozen
class Services:
    """What all sessions of a server share."""

    limits: Limits
    authenticator: Authenticator
    application: Application
    bus: Bus
    hub: Hub
    greeting: Mapping[str, object]


class Outgoing(Subscriber, Protocol):
    """What a session asks of the outgoing side of its connection."""

    def offer(self, frame: bytes) -> None:
        """Send a frame as soon as the socket takes it; never waits."""


class Peer(Protocol):
    """What a session asks of its connection."""

    id: str
    identity: Identity | None
    subscriptions: dict[str, Subscription]

    @property
    def outgoing(self) -> Outgoing:
        """Its outgoing side."""

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""

    def authenticated(self, identity: Identity) -> None:
        """Take note of who is there, and of when the token expires."""

    def hand_on(self, request: Request) -> bool:
        """Have `run_handler` called apart from the reader; False if too many wait already."""


class Session:
    """Decides what each message of one client means."""

    __slots__ = ("_budget", "_peer", "_services")

    def __init__(self, peer: Peer, services: Services, now: float) -> None:
        self._peer = peer
        self._services = services
        self._budget = Budget(services.limits, now)

    async def receive(self, payload: bytes, now: float) -> None:
        """Take one text message; waits only for an application's own authorizer or a key set."""
        request: Message | None = None
        try:
            self._budget.take(len(payload), now)
            request = decode(payload)
            await self._route(request)
        except RequestError as error:
            self._refuse(error, request, now)

    def _refuse(self, error: RequestError, request: Message | None, now: float) -> None:
        self._peer.outgoing.offer(encode_error(error, request))
        if self._budget.is_spent(now):
            limited = error.code is ErrorCode.RATE_LIMITED
            code = CloseCode.RATE_LIMIT if limited else CloseCode.BAD_REQUESTS
            reason = f"too many refused messages; the last one: {error.message}"
            self._peer.request_close(Close(code, reason))

    async def _route(self, request: Message) -> None:
        if self._peer.identity is None and request.type != MessageType.AUTH:
            self._peer.request_close(
                Close(CloseCode.UNAUTHORIZED, "the first message must be `auth`")
            )
            return
        handle = _ROUTES.get(request.type)
        if handle is not None:
            await handle(self, request)
        elif request.type in self._services.application.handlers:
            self._hand_on(request, None)
        else:
            raise RequestError(ErrorCode.UNKNOWN_TYPE, f"unknown type {request.type[:40]!r}")

    # Who is there, and is it alive

    async def _on_auth(self, request: Message) -> None:
        token = decode_data(request, requests.AUTH).token
        old = self._peer.identity
        try:
            identity = await self._services.authenticator.verify(token)
            if old is not None and identity.user != old.user:
                raise AuthError("the new token is of another user; open a new connection")
        except AuthError as error:
            if old is None:
                self._peer.request_close(Close(CloseCode.UNAUTHORIZED, error.message))
            raise RequestError(ErrorCode.UNAUTHORIZED, error.message) from None
        self._peer.authenticated(identity)
        if self._peer.identity is not identity:  # refused for another reason, and closing
            return
        await self._recheck_subscriptions()
        self.greet(request.id)

    def greet(self, request_id: str | None = None) -> None:
        """Say who the server takes the client for, and what it expects of it."""
        peer = self._peer
        assert peer.identity is not None
        self._offer(
            MessageType.AUTH,
            {
                "connection": peer.id,
                "user": peer.identity.user,
                "expires_at": peer.identity.expires_at,
                **self._services.greeting,
            },
            id=request_id,
        )

    async def _recheck_subscriptions(self) -> None:
        for channel, subscription in list(self._peer.subscriptions.items()):
            try:
                await self._authorize(Action.SUBSCRIBE, channel)
            except RequestError as error:
                if self._peer.subscriptions.get(channel) is subscription:
                    self._drop(channel)
                self._peer.outgoing.offer(
                    encode_error(error, Message(MessageType.SUBSCRIBE, channel=channel))
                )

    async def _on_ping(self, request: Message) -> None:
        """Answer with the same data, and with where each watched log stands: what is quiet
        can so be told from what lags.
        """
        pong: dict[str, object] = {"type": MessageType.PONG}
        if request.id is not None:
            pong["id"] = request.id
        if request.raw:
            pong["data"] = msgspec.Raw(request.raw)
        pong["positions"] = {
            channel: {"epoch": s.log.epoch, "offset": s.log.head}
            for channel, s in self._peer.subscriptions.items()
        }
        pong["timestamp"] = clock.now()
        self._peer.outgoing.offer(encode_frame(encode_json(pong)))

    # Watching

    async def _on_subscribe(self, request: Message) -> None:
        channel = self._channel_of(request)
        wanted = decode_data(request, requests.SUBSCRIBE)
        wanted.check()
        await self._authorize(Action.SUBSCRIBE, channel)
        subscriptions = self._peer.subscriptions
        limit = self._services.limits.max_subscriptions
        if limit and len(subscriptions) >= limit and channel not in subscriptions:
            raise RequestError(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"{len(subscriptions)} channels are watched; the limit is {limit}",
            )
        log = await self._services.bus.open(channel)
        # No checkpoint from here on: what the ack says and where the cursor stands agree.
        cursor, gap = wanted.start(log)
        if channel in subscriptions:
            self._drop(channel)
        self._acknowledge(
            request,
            {
                "epoch": log.epoch,
                "offset": log.head,
                "earliest": log.earliest,
                "ended": msgspec.Raw(log.ended) if log.ended is not None else None,
            },
        )
        if gap is not None:
            self._peer.outgoing.offer(gap)
        subscriptions[channel] = self._services.hub.subscribe(
            self._peer.outgoing, log, cursor, wanted.on_lag
        )

    async def _on_unsubscribe(self, request: Message) -> None:
        channel = self._channel_of(request)
        if channel not in self._peer.subscriptions:
            raise RequestError(ErrorCode.NOT_SUBSCRIBED, f"{channel} is not watched here")
        self._drop(channel)
        self._acknowledge(request, {})

    async def _on_history(self, request: Message) -> None:
        channel = self._channel_of(request)
        wanted = decode_data(request, requests.HISTORY)
        await self._authorize(Action.SUBSCRIBE, channel)
        log = await self._services.bus.open(channel)
        first, last = wanted.bounds(log)
        texts = await self._services.bus.history(log, first, last, PAGE_BYTES)
        following = first + len(texts)
        self._acknowledge(
            request,
            {
                "epoch": log.epoch,
                "offset": log.head,
                "earliest": log.earliest,
                "messages": [msgspec.Raw(text) for text in texts],
                "next": following if following <= last else None,
            },
        )

    async def _on_presence(self, request: Message) -> None:
        channel = self._channel_of(request)
        await self._authorize(Action.PRESENCE, channel)
        present = self._services.hub.subscribers(channel)
        self._acknowledge(
            request,
            {
                "count": len(present),
                "connections": [p.describe() for p in present[:MAX_PRESENT]],
            },
        )

    def _drop(self, channel: str) -> None:
        self._services.hub.unsubscribe(self._peer.subscriptions.pop(channel))

    # Publishing

    async def _on_publish(self, request: Message) -> None:
        channel = self._channel_of(request)
        if request.type == MessageType.END:
            decode_data(request, requests.END)
        is_command = request.type == MessageType.COMMAND
        await self._authorize(Action.COMMAND if is_command else Action.PUBLISH, channel)
        identity = self._peer.identity
        assert identity is not None
        handled = is_command and request.type in self._services.application.handlers

        def done(outcome: Receipt | RequestError) -> None:
            try:
                if isinstance(outcome, RequestError):
                    raise outcome
                if handled and not outcome.duplicate:
                    self._hand_on(request, outcome.position)
                elif request.id is not None:
                    self._peer.outgoing.offer(encode_ack(request.id, channel, outcome.position))
            except RequestError as error:
                self._peer.outgoing.offer(encode_error(error, request))

        self._services.bus.submit(channel, request, identity.user, done)

    def _hand_on(self, request: Message, position: Position | None) -> None:
        """Give a message to the application's handler for its type."""
        assert self._peer.identity is not None
        wrapped = Request(request, self._peer.identity, self._peer.id, position)
        if not self._peer.hand_on(wrapped):
            raise RequestError(
                ErrorCode.UNAVAILABLE, "too many messages wait for the application here"
            )

    async def run_handler(self, request: Request) -> None:
        """Run the application's handler for `request`, and answer for it."""
        message = request.message
        try:
            result = await self._services.application.run(request)
            if message.id is not None:
                position = request.position
                self._acknowledge(
                    message,
                    result if position is None else {**attrs.asdict(position), "result": result},
                )
        except RequestError as error:
            self._peer.outgoing.offer(encode_error(error, message))

    # Answering

    def _channel_of(self, request: Message) -> str:
        if request.channel is None:
            raise RequestError(ErrorCode.BAD_REQUEST, f"`{request.type}` needs a `channel`")
        return check_channel(request.channel)

    async def _authorize(self, action: Action, channel: str) -> None:
        """Raises RequestError (`forbidden`) unless the client may."""
        assert self._peer.identity is not None
        await self._services.application.authorize(self._peer.identity, action, channel)

    def _acknowledge(self, request: Message, data: object) -> None:
        self._offer(MessageType.ACK, data, id=request.id, channel=request.channel)

    def _offer(
        self,
        type: MessageType,
        data: object,
        *,
        id: str | None = None,
        channel: str | None = None,
    ) -> None:
        self._peer.outgoing.offer(encode_push(type, data, id=id, channel=channel))


_ROUTES: Final[Mapping[str, Callable[[Session, Message], Awaitable[None]]]] = {
    MessageType.AUTH: Session._on_auth,
    MessageType.PING: Session._on_ping,
    MessageType.SUBSCRIBE: Session._on_subscribe,
    MessageType.UNSUBSCRIBE: Session._on_unsubscribe,
    MessageType.HISTORY: Session._on_history,
    MessageType.PRESENCE: Session._on_presence,
    MessageType.LOG: Session._on_publish,
    MessageType.STATUS: Session._on_publish,
    MessageType.EVENT: Session._on_publish,
    MessageType.COMMAND: Session._on_publish,
    MessageType.END: Session._on_publish,
}
