"""Every message, declared: what a client may say and what the server does.

What requests carry in their `data` are the very structs that `requests` reads with. The rest is
declared for the schema only; the test vectors in docs/protocol hold it against the server.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from triows import messages
from triows.errors import ErrorCode
from triows.messages import MAX_CHANNEL, MAX_ID, SYSTEM, MessageType, Position
from triows.requests import AuthData, EndData, HistoryData, SubscribeData

_NAME: Final = f"^(?:{SYSTEM}|{messages.CHANNEL.pattern})$"

Id = Annotated[str, Meta(max_length=MAX_ID)]
Channel = Annotated[str, Meta(pattern=_NAME, max_length=MAX_CHANNEL)]
Offset = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, description="0 is no limit.")]
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
OwnType = Annotated[str, Meta(extra_json_schema={"not": {"enum": sorted(MessageType)}})]


# What a client says


class Envelope(msgspec.Struct, kw_only=True):
    """What every message of a client may hold; the last two mean nothing to the server."""

    id: Id | None = None
    timestamp: str | None = None
    offset: int | None = None


class Request(Envelope, tag_field="type", kw_only=True):
    """A request that may name a channel for no purpose."""

    channel: str | None = None


class ChannelRequest(Envelope, tag_field="type", kw_only=True):
    """A request about a channel."""

    channel: Channel


class AuthRequest(Request, tag="auth", kw_only=True):
    """The first message of who brought no token, or a new token."""

    data: AuthData


class PingRequest(Request, tag="ping", kw_only=True):
    """Asks for a `pong` with the same data."""

    data: Any = UNSET


class SubscribeRequest(ChannelRequest, tag="subscribe", kw_only=True):
    """Watch a channel: from where on, and what to do about lag."""

    data: SubscribeData | UnsetType = UNSET


class UnsubscribeRequest(ChannelRequest, tag="unsubscribe", kw_only=True):
    """Watch a channel no longer."""

    data: Any = UNSET


class HistoryRequest(ChannelRequest, tag="history", kw_only=True):
    """Read a range of a channel's log."""

    data: HistoryData | UnsetType = UNSET


class PresenceRequest(ChannelRequest, tag="presence", kw_only=True):
    """Ask who watches a channel."""

    data: Any = UNSET


class PublishRequest(Envelope, kw_only=True):
    """Publish a message; with an `id` it is acknowledged, and published once however often it
    is sent.
    """

    type: Literal["log", "status", "event", "command"]
    channel: Channel
    data: Any = UNSET


class EndRequest(ChannelRequest, tag="end", kw_only=True):
    """Publish the last message that a channel will ever take."""

    data: EndData | UnsetType = UNSET


class OwnRequest(Envelope, kw_only=True):
    """A message of the application's own type, for its handler."""

    type: OwnType
    channel: Channel | None = None
    data: Any = UNSET


# What the server says


class Said(msgspec.Struct, tag_field="type", kw_only=True):
    """What every message of the server holds."""

    timestamp: Timestamp


class Answer(Said, kw_only=True):
    """What every answer may hold: the request's own `id`."""

    id: Id | UnsetType = UNSET


class ChannelAck(Answer, kw_only=True):
    """The answer to a request about a channel."""

    channel: Channel


class Heartbeat(msgspec.Struct):
    """When the server pings, and when it gives up; seconds."""

    ping_interval: Seconds
    pong_timeout: Seconds
    idle_timeout: Seconds


class ClientLimits(msgspec.Struct):
    """What a client has to stay within."""

    max_message_bytes: Annotated[int, Meta(ge=1)]
    max_subscriptions: Annotated[int, Meta(ge=0, description="0 is no limit.")]
    messages_per_second: Rate
    messages_burst: Annotated[int, Meta(ge=0, description="0 is no limit.")]
    bytes_per_second: Rate


class ServerAbout(msgspec.Struct):
    """Who serves."""

    name: str
    version: str
    protocol: Literal["triows.v1"]


class GreetingData(msgspec.Struct):
    """Who the client is to the server, and what it should know."""

    connection: str
    user: str
    expires_at: Annotated[float, Meta(description="Seconds since 1970.")]
    heartbeat: Heartbeat
    limits: ClientLimits
    server: ServerAbout


class Greeting(Answer, tag="auth", kw_only=True):
    """The first message of the server, and its answer to `auth`."""

    data: GreetingData


class Pong(Answer, tag="pong", kw_only=True):
    """The answer to `ping`, with where each watched log stands."""

    data: Any = UNSET
    positions: dict[str, Position]


class SubscribeAckData(msgspec.Struct):
    """Where the log stands: its newest offset, the oldest that is kept, and what `end` said."""

    epoch: str
    offset: Offset
    earliest: Annotated[int, Meta(ge=1)]
    ended: EndData | None


class SubscribeAck(ChannelAck, tag="ack", kw_only=True):
    """The answer to `subscribe`."""

    data: SubscribeAckData


class UnsubscribeAckData(msgspec.Struct):
    """Nothing."""


class UnsubscribeAck(ChannelAck, tag="ack", kw_only=True):
    """The answer to `unsubscribe`: no message of the channel follows."""

    data: UnsubscribeAckData


class Published(msgspec.Struct, kw_only=True):
    """A message of a channel, at its place in the channel's log."""

    type: Literal["log", "status", "event", "command", "end"]
    id: Id | UnsetType = UNSET
    channel: Channel
    offset: Annotated[int, Meta(ge=1)]
    timestamp: Timestamp
    data: Any = UNSET


class HistoryAckData(msgspec.Struct):
    """A page of the log; `next` is the offset to go on from, or null at the end of the range."""

    epoch: str
    offset: Offset
    earliest: Annotated[int, Meta(ge=1)]
    messages: list[Published]
    next: int | None


class HistoryAck(ChannelAck, tag="ack", kw_only=True):
    """The answer to `history`."""

    data: HistoryAckData


class Viewer(msgspec.Struct):
    """A connection that watches; `since` is when it opened, in seconds since 1970."""

    connection: str
    user: str
    since: float


class PresenceAckData(msgspec.Struct):
    """How many watch, and at most 1000 of them."""

    count: Annotated[int, Meta(ge=0)]
    connections: list[Viewer]


class PresenceAck(ChannelAck, tag="ack", kw_only=True):
    """The answer to `presence`."""

    data: PresenceAckData


class PublishAckData(msgspec.Struct):
    """Where the message stands; `result` is what the handler of a `command` answered."""

    epoch: str
    offset: Annotated[int, Meta(ge=1)]
    result: Any = UNSET


class PublishAck(ChannelAck, tag="ack", kw_only=True):
    """The answer to a published message that has an `id`."""

    data: PublishAckData


class OwnAck(Answer, tag="ack", kw_only=True):
    """The answer to a message of the application's own type: what its handler returned."""

    channel: Channel | UnsetType = UNSET
    data: Any


class GapData(msgspec.Struct, rename={"from_": "from"}):
    """The offsets from `from` to `to` of this epoch will not come."""

    epoch: str
    from_: Annotated[int, Meta(ge=1)]
    to: Offset
    count: Annotated[int, Meta(ge=0)]
    reason: Literal["lag", "retention", "epoch"]


class Gap(Said, tag="gap", kw_only=True):
    """Some messages of a watched channel will not come."""

    channel: Channel
    data: GapData


class ErrorData(msgspec.Struct):
    """Why; `retry` says whether the same request may succeed, `retry_after` in how many seconds."""

    code: ErrorCode
    message: str
    retry: bool
    retry_after: Seconds | UnsetType = UNSET


class Error(Answer, tag="error", kw_only=True):
    """A request was refused; or, without an `id`, a subscription was ended."""

    channel: str | UnsetType = UNSET
    data: ErrorData


class ReconnectData(msgspec.Struct):
    """After how many seconds to come back."""

    after: Seconds
    reason: str


class Reconnect(Said, tag="reconnect", kw_only=True):
    """The server will close soon."""

    data: ReconnectData


ANSWERS: Final[dict[str, tuple[type, type]]] = {
    "auth": (AuthRequest, Greeting),
    "ping": (PingRequest, Pong),
    "subscribe": (SubscribeRequest, SubscribeAck),
    "unsubscribe": (UnsubscribeRequest, UnsubscribeAck),
    "history": (HistoryRequest, HistoryAck),
    "presence": (PresenceRequest, PresenceAck),
    "publish": (PublishRequest, PublishAck),
    "end": (EndRequest, PublishAck),
    "own": (OwnRequest, OwnAck),
}
"""What can be asked: each request, and what answers it if no `Error` does."""

PUSHES: Final[dict[str, type]] = {
    "greet": Greeting,
    "deliver": Published,
    "tellGap": Gap,
    "endSubscription": Error,
    "askToReconnect": Reconnect,
}
"""What the server says unasked."""
