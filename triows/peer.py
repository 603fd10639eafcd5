"""What the protocol works with: the services of a server, and the connection it speaks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from triows.application import Application, Request
from triows.auth import Action, Authenticator, Identity
from triows.bus import Bus
from triows.codec import encode_push
from triows.config import Limits
from triows.counters import Counts
from triows.errors import Close, ErrorCode, RequestError
from triows.hub import Hub
from triows.messages import Message, MessageType, check_channel
from triows.topics import Subscriber, Subscription


@attrs.frozen
class Services:
    """What all sessions of a server share."""

    limits: Limits
    authenticator: Authenticator
    application: Application
    bus: Bus
    hub: Hub
    counts: Counts
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

    def reserve(self) -> bool:
        """Take a place in the queue for the application's handlers; false if it is full."""

    def release(self) -> None:
        """Give a reserved place back."""

    def hand_on(self, request: Request) -> None:
        """Have `run_handler` called apart from the reader, at the reserved place."""


def channel_of(request: Message) -> str:
    """Return the channel a request names.

    Raises:
        RequestError: it names none, or what is none.
    """
    if request.channel is None:
        raise RequestError(ErrorCode.BAD_REQUEST, f"`{request.type}` needs a `channel`")
    return check_channel(request.channel)


async def authorize(services: Services, peer: Peer, action: Action, channel: str) -> None:
    """Return if the client may; waits only for an authorizer of the application.

    Raises:
        RequestError: `forbidden`.
    """
    assert peer.identity is not None
    await services.application.authorize(peer.identity, action, channel)


def acknowledge(peer: Peer, request: Message, data: object) -> None:
    """Answer a request."""
    peer.outgoing.offer(encode_push(MessageType.ACK, data, id=request.id, channel=request.channel))
