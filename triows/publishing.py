"""What a client publishes: checked, submitted, handed to the application, answered."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Final, final

import attrs
import trio

from triows import requests
from triows.application import Request
from triows.auth import Action
from triows.codec import decode_data, encode_error, encode_outcomes
from triows.errors import ErrorCode, RequestError
from triows.messages import Message, MessageType, Outcome, Position
from triows.peer import Peer, Services, acknowledge, authorize, channel_of

_COMMAND: Final = str(MessageType.COMMAND)
MAX_ALLOWED: Final = 128  # channels of which it is remembered what was allowed


@final
class Publisher:
    """The publishing side of one connection.

    Attributes:
        unanswered: messages that are to be acknowledged and are not yet.
    """

    __slots__ = ("_allowed", "_concluded", "_peer", "_services", "_under_way", "unanswered")

    def __init__(self, peer: Peer, services: Services) -> None:
        self._peer = peer
        self._services = services
        self.unanswered = 0
        self._under_way = 0  # messages of which the engine has not said yet how they fared
        self._concluded: trio.Event | None = None  # set when none is, if somebody waits for that
        # By channel, the types that the token was seen to allow: nearly all messages repeat it.
        self._allowed: dict[str | None, set[str]] = {}

    def forget(self) -> None:
        """Check anew what the client may: it has another token."""
        self._allowed.clear()

    def publish_again(self, request: Message, now: float) -> bool:
        """Publish a message of a kind that was allowed before; false if it was not."""
        if request.type not in self._allowed.get(request.channel, ()):
            return False
        self._submit(request, now)
        return True

    def joinable(self, channel: str | None) -> Set[str]:
        """Return the types of messages that can be published together in a channel: those that
        were allowed before, and have no handler.
        """
        types = self._allowed.get(channel, set())
        if _COMMAND in types and _COMMAND in self._services.application.handlers:
            return types - {_COMMAND}
        return types

    def publish_all(self, channel: str, requests: list[Message], now: float) -> None:
        """Publish messages that can be published together; see `joinable`."""
        identity = self._peer.identity
        assert identity is not None
        self._under_way += len(requests)
        self.unanswered += len([request for request in requests if request.id is not None])
        self._services.bus.submit_all(channel, requests, identity.user, now, self._done_all)

    async def publish(self, request: Message) -> None:
        """Publish a message if the client may; waits only for an authorizer.

        Raises:
            RequestError: it may not, or the message is wrong.
        """
        channel = channel_of(request)
        is_command = request.type == MessageType.COMMAND
        await authorize(
            self._services, self._peer, Action.COMMAND if is_command else Action.PUBLISH, channel
        )
        if request.type == MessageType.END:
            decode_data(request, requests.END)
        elif self._services.application.authorizer is None:
            if len(self._allowed) >= MAX_ALLOWED:
                self._allowed.clear()
            self._allowed.setdefault(channel, set()).add(request.type)
        self._submit(request, trio.current_time())

    def _submit(self, request: Message, now: float) -> None:
        """Submit a message that may be published; it is answered when the engine has kept it.

        Raises:
            RequestError: it is for a handler, and too many wait for theirs.
        """
        services, identity = self._services, self._peer.identity
        assert identity is not None
        assert request.channel is not None
        done = self._done
        if request.type == _COMMAND and _COMMAND in services.application.handlers:
            self._reserve()  # before it is published: a refused request has done nothing
            done = self._done_for_handler
        self._under_way += 1
        if request.id is not None:
            self.unanswered += 1
        services.bus.submit(request.channel, request, identity.user, now, done)

    @property
    def is_busy(self) -> bool:
        """Whether the engine has still to say of some message how it fared."""
        return self._under_way > 0

    async def wait_concluded(self) -> None:
        """Wait until the engine has said how all messages submitted so far have fared."""
        while self._under_way:
            if self._concluded is None:
                self._concluded = trio.Event()
            await self._concluded.wait()

    def _conclude(self, requests: Sequence[Message]) -> None:
        """Take note that the engine has said how messages fared."""
        self._under_way -= len(requests)
        self.unanswered -= len([request for request in requests if request.id is not None])
        if self._concluded is not None and not self._under_way:
            self._concluded.set()
            self._concluded = None

    def _done(self, request: Message, outcome: Outcome) -> None:
        self._done_all((request,), (outcome,))

    def _done_all(self, requests: Sequence[Message], outcomes: Sequence[Outcome]) -> None:
        """Answer for messages, now that the engine has kept them or refused to."""
        self._conclude(requests)
        answers = encode_outcomes(requests, outcomes)
        if answers:
            self._peer.outgoing.offer(b"".join(answers))

    def _done_for_handler(self, request: Message, outcome: Outcome) -> None:
        """Give a message that was kept to its handler, who answers; once only."""
        if isinstance(outcome, RequestError) or outcome.duplicate:
            self._peer.release()
            self._done(request, outcome)
        else:
            self._conclude((request,))
            self._hand_on(request, outcome.position)

    def hand_on(self, request: Message) -> None:
        """Give a message of an application's own type to its handler.

        Raises:
            RequestError: too many wait for theirs.
        """
        self._reserve()
        self._hand_on(request, None)

    def _reserve(self) -> None:
        if not self._peer.reserve():
            raise RequestError(
                ErrorCode.UNAVAILABLE, "too many messages wait for the application here"
            )

    def _hand_on(self, request: Message, position: Position | None) -> None:
        assert self._peer.identity is not None
        self._peer.hand_on(Request(request, self._peer.identity, self._peer.id, position))

    async def run_handler(self, request: Request) -> None:
        """Run the application's handler for `request`, and answer for it."""
        message = request.message
        try:
            result = await self._services.application.run(request)
            if message.id is not None:
                position = request.position
                acknowledge(
                    self._peer,
                    message,
                    result if position is None else {**attrs.asdict(position), "result": result},
                )
        except RequestError as error:
            self._peer.outgoing.offer(encode_error(error, message))
