"""The protocol of one connection: a message in, what follows from it out.

A session knows no socket and no task. Every request gets exactly one answer, an `ack` or an
`error` (messages to publish only when they carry an `id`), and a refused request has done
nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Final, final

import msgspec
import trio

from triows import requests
from triows.auth import Action
from triows.bus import MAX_PRESENT
from triows.codec import clock, decode, decode_data, encode_error, encode_json, encode_push
from triows.errors import AuthError, Close, CloseCode, ErrorCode, HandshakeRefused, RequestError
from triows.frames import TEXT, Frame, encode_frame
from triows.limits import Budget
from triows.messages import PUBLISHED, Message, MessageType, check_channel
from triows.peer import Peer, Services, acknowledge, authorize, channel_of
from triows.publishing import Publisher

PAGE_BYTES: Final = 256 * 1024  # of messages in one answer to `history`
TOGETHER: Final = 128  # messages published together: bounds their answers


@final
class Session:
    """Decides what each message of one client means."""

    __slots__ = ("_ahead", "_budget", "_peer", "_services", "publisher")

    def __init__(self, peer: Peer, services: Services, now: float) -> None:
        self._peer = peer
        self._services = services
        self._budget = Budget(services.limits, now)
        self._ahead: tuple[bytes, Message] | None = None  # a message that was read, not taken yet
        self.publisher = Publisher(peer, services)

    def receive(self, payload: bytes, now: float) -> Awaitable[None] | None:
        """Take one text message. Returns what has to be awaited before the next, if anything:
        most messages are published at once.
        """
        request: Message | None = None
        try:
            request = self._decode(payload)
            self._budget.take(len(payload), now)
            if self.publisher.publish_again(request, now):
                return None
        except RequestError as error:
            if self.publisher.is_busy:
                return self._refuse_in_turn(error, request, now)
            self._refuse(error, request, now)
            return None
        return self._answer(request, now)

    def publish_together(self, frames: Sequence[Frame], at: int, now: float) -> int:
        """Publish the messages that follow `at` in `frames`, as far as they are for one channel, of
        a kind that was allowed before, and within the budget; return how many those were.

        So half of what publishing costs is saved, where a publisher does not wait for each answer.
        """
        if len(frames) - at < 2:
            return 0
        requests: list[Message] = []
        channel, size = None, 0
        types: Set[str] = frozenset()
        most, room = self._budget.room(now)
        for number in range(at, min(len(frames), at + min(TOGETHER, most))):
            kind, payload = frames[number]
            try:
                request = self._decode(payload) if kind == TEXT else None
            except RequestError:
                break  # `receive` will say why
            if request is None:
                break
            size += len(payload)
            if not requests:
                channel = request.channel
                types = self.publisher.joinable(channel)
            if size > room or request.channel != channel or request.type not in types:
                self._ahead = payload, request
                size -= len(payload)
                break
            requests.append(request)
        if requests:
            assert channel is not None
            self._budget.take(size, now, len(requests))
            self.publisher.publish_all(channel, requests, now)
        return len(requests)

    def _decode(self, payload: bytes) -> Message:
        """Read a message, unless that has been done already."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] is payload else decode(payload)

    async def _answer(self, request: Message, now: float) -> None:
        """Do what is asked. Waits for the engine, since answers come in the order of requests,
        and for an application's own authorizer or a key set.
        """
        try:
            if request.type not in PUBLISHED:
                await self.publisher.wait_concluded()
            await self._route(request)
        except RequestError as error:
            await self._refuse_in_turn(error, request, now)

    async def _refuse_in_turn(
        self, error: RequestError, request: Message | None, now: float
    ) -> None:
        """Refuse a request after all that were made before it have been answered."""
        await self.publisher.wait_concluded()
        self._refuse(error, request, now)

    def _refuse(self, error: RequestError, request: Message | None, now: float) -> None:
        self._peer.outgoing.offer(encode_error(error, request))
        self._services.counts.errors[error.code] += 1
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
            if request.channel is not None:
                check_channel(request.channel)
            self.publisher.hand_on(request)
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
        except HandshakeRefused as error:
            if old is None:
                self._peer.request_close(Close(CloseCode.UNAUTHORIZED, error.message))
            raise RequestError(ErrorCode.UNAUTHORIZED, error.message) from None
        self.publisher.forget()
        self._peer.authenticated(identity)
        await self._recheck_subscriptions()
        self._peer.outgoing.offer(self.greeting(request.id))

    def greeting(self, request_id: str | None = None) -> bytes:
        """Return the frame that says who the server takes the client for, and what it expects."""
        peer = self._peer
        assert peer.identity is not None
        data = {
            "connection": peer.id,
            "user": peer.identity.user,
            "expires_at": peer.identity.expires_at,
            **self._services.greeting,
        }
        return encode_push(MessageType.AUTH, data, id=request_id)

    async def _recheck_subscriptions(self) -> None:
        for channel, subscription in list(self._peer.subscriptions.items()):
            try:
                await authorize(self._services, self._peer, Action.SUBSCRIBE, channel)
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
        pong["timestamp"] = clock.now().decode()
        self._peer.outgoing.offer(encode_frame(encode_json(pong)))

    # Watching

    async def _on_subscribe(self, request: Message) -> None:
        channel = channel_of(request)
        wanted = decode_data(request, requests.SUBSCRIBE)
        wanted.check()
        await authorize(self._services, self._peer, Action.SUBSCRIBE, channel)
        self._check_room_for(channel)
        log = await self._services.bus.open(channel, wanted.position)
        await _stop_if_closing()
        # No checkpoint from here on: what the ack says and where the cursor stands agree.
        cursor, gap = wanted.start(log)
        if channel in self._peer.subscriptions:
            self._drop(channel)
        acknowledge(
            self._peer,
            request,
            {
                "epoch": log.epoch,
                "offset": log.head,
                "earliest": log.earliest,
                "ended": msgspec.Raw(log.ended) if log.ended is not None else None,
            },
        )
        if gap is not None:
            self._services.hub.gaps += 1
            self._peer.outgoing.offer(gap)
        self._peer.subscriptions[channel] = self._services.hub.subscribe(
            self._peer.outgoing, log, cursor, wanted.on_lag
        )

    def _check_room_for(self, channel: str) -> None:
        watched = self._peer.subscriptions
        limit = self._services.limits.max_subscriptions
        if limit and len(watched) >= limit and channel not in watched:
            raise RequestError(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"{len(watched)} channels are watched; the limit is {limit}",
            )

    async def _on_unsubscribe(self, request: Message) -> None:
        channel = channel_of(request)
        if channel not in self._peer.subscriptions:
            raise RequestError(ErrorCode.NOT_SUBSCRIBED, f"{channel} is not watched here")
        self._drop(channel)
        acknowledge(self._peer, request, {})

    async def _on_history(self, request: Message) -> None:
        channel = channel_of(request)
        wanted = decode_data(request, requests.HISTORY)
        await authorize(self._services, self._peer, Action.SUBSCRIBE, channel)
        log = await self._services.bus.open(channel, wanted.position)
        first, last, end = wanted.bounds(log)
        texts = await self._services.bus.history(log, first, last, PAGE_BYTES)
        await _stop_if_closing()
        following = first + len(texts)
        acknowledge(
            self._peer,
            request,
            {
                "epoch": log.epoch,
                "offset": log.head,
                "earliest": log.earliest,
                "messages": [msgspec.Raw(text) for text in texts],
                "next": following if following <= end else None,
            },
        )

    async def _on_presence(self, request: Message) -> None:
        channel = channel_of(request)
        await authorize(self._services, self._peer, Action.PRESENCE, channel)
        present = await self._services.bus.present(channel)
        await _stop_if_closing()
        acknowledge(
            self._peer,
            request,
            {
                "count": present.count,
                "connections": present.connections[:MAX_PRESENT],
            },
        )

    def _drop(self, channel: str) -> None:
        self._services.hub.unsubscribe(self._peer.subscriptions.pop(channel))


async def _stop_if_closing() -> None:
    """Go no further when the connection is to be closed, for a revocation perhaps: an engine
    finishes what it has begun, cancelled or not, so that nobody has noticed yet.
    """
    await trio.lowlevel.checkpoint_if_cancelled()


async def _publish(session: Session, request: Message) -> None:
    await session.publisher.publish(request)


_ROUTES: Final[Mapping[str, Callable[[Session, Message], Awaitable[None]]]] = {
    MessageType.AUTH: Session._on_auth,
    MessageType.PING: Session._on_ping,
    MessageType.SUBSCRIBE: Session._on_subscribe,
    MessageType.UNSUBSCRIBE: Session._on_unsubscribe,
    MessageType.HISTORY: Session._on_history,
    MessageType.PRESENCE: Session._on_presence,
    MessageType.LOG: _publish,
    MessageType.STATUS: _publish,
    MessageType.EVENT: _publish,
    MessageType.COMMAND: _publish,
    MessageType.END: _publish,
}
