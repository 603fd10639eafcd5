"""The vocabulary: messages, their types, positions, and the names of channels."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from triows.errors import ErrorCode, RequestError

MAX_ID: Final = 64  # characters; a UUID has 36
MAX_CHANNEL: Final = 255  # characters, the limit of Centrifugo too
SYSTEM: Final = "system"
"""The broadcast channel: all may listen, only the server (or a token that names it) speaks."""

LIFECYCLE: Final = "system:connections"
"""Where the server publishes that connections opened and closed; for administrators."""


class MessageType(StrEnum):
    """Every `type` that triows itself understands; an application may add its own."""

    AUTH = "auth"
    PING = "ping"
    PONG = "pong"
    ERROR = "error"
    ACK = "ack"
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    HISTORY = "history"
    PRESENCE = "presence"
    GAP = "gap"
    RECONNECT = "reconnect"
    LOG = "log"
    STATUS = "status"
    EVENT = "event"
    COMMAND = "command"
    END = "end"


PUBLISHED: Final = frozenset({"log", "status", "event", "command", "end"})
"""The types that are kept in a channel's log."""


_RESERVED: Final = frozenset(str(type_) for type_ in MessageType) - PUBLISHED


@attrs.frozen
class Position:
    """A place in a channel's log.

    Attributes:
        epoch: which incarnation of the log; offsets of different epochs cannot be compared.
        offset: how many messages the log had been given, this one included; 0 is before all.
    """

    epoch: str
    offset: int


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What an engine says of a message it has kept.

    Attributes:
        epoch, offset: where it stands.
        duplicate: whether it stood there already, published before with the same id.
    """

    epoch: str
    offset: int
    duplicate: bool = False

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.epoch, self.offset)


Outcome: TypeAlias = Receipt | RequestError
"""Where a message stands that was to be published, or why it was refused."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message, as published or as received.

    Attributes:
        type: one of `MessageType`, or an application's own word.
        raw: `data` as JSON text, exactly the publisher's bytes; empty when there was none.
        channel: where it was published, or None.
        id: the sender's own id: of a request, and of a published message its idempotency key.
        offset: its place in the channel's log (first is 1), or None if it has none.
        timestamp: RFC 3339, UTC, microseconds, stamped by the server; or None.
    """

    type: str
    raw: bytes = b""
    channel: str | None = None
    id: str | None = None
    offset: int | None = None
    timestamp: str | None = None

    @property
    def data(self) -> Any:
        """`raw`, decoded (anew at each access); None when there is none.

        A number too large for its kind is infinite. Raises RecursionError for what is nested
        more deeply than the interpreter can follow from here.
        """
        if not self.raw:
            return None
        try:
            return msgspec.json.decode(self.raw)
        except msgspec.ValidationError:  # 1e999 and its like are JSON, but not to msgspec
            return json.loads(self.raw, parse_int=_parse_int)


def _parse_int(digits: str) -> float:
    """Read an integer; Python itself refuses those of more than 4300 digits."""
    return int(digits) if len(digits) < 4300 else float(digits)


def message(type: str, data: object = None, *, id: str | None = None) -> Message:
    """Make a message to publish; `data` is anything that has a JSON form."""
    return Message(type, raw=msgspec.json.encode(data), id=id)


def log(data: object, *, id: str | None = None) -> Message:
    """Make a `log` message: a line of output, or anything else that happened."""
    return message(MessageType.LOG, data, id=id)


def status(data: object, *, id: str | None = None) -> Message:
    """Make a `status` message: the state that something is in now."""
    return message(MessageType.STATUS, data, id=id)


def event(data: object, *, id: str | None = None) -> Message:
    """Make an `event` message: something that the application wants known."""
    return message(MessageType.EVENT, data, id=id)


def command(data: object, *, id: str | None = None) -> Message:
    """Make a `command` message: something that the watched side is asked to do."""
    return message(MessageType.COMMAND, data, id=id)


def end(*, exit_code: int | None = None, reason: str | None = None) -> Message:
    """Make an `end` message: the last one its channel's log will ever take."""
    data = {"exit_code": exit_code, "reason": reason}
    return message(
        MessageType.END, {key: value for key, value in data.items() if value is not None}
    )


def check_message(message: Message) -> None:
    """Raises RequestError (`bad_request`) for what cannot be published."""
    if message.type in _RESERVED:
        reason = f"a message of type {message.type!r} cannot be published"
    elif message.id is not None and len(message.id) > MAX_ID:
        reason = f"`id` has {len(message.id)} characters; the limit is {MAX_ID}"
    else:
        return
    raise RequestError(ErrorCode.BAD_REQUEST, reason)


CHANNEL = re.compile(r"[a-z][a-z0-9_-]{0,31}:[A-Za-z0-9._~/-]{1,253}", re.ASCII)


def check_channel(name: str) -> str:
    """Return `name` if it names a channel: `system`, or `<kind>:<id>`.

    Raises:
        RequestError: `bad_channel`, with what was expected.
    """
    if name == SYSTEM or (len(name) <= MAX_CHANNEL and CHANNEL.fullmatch(name)):
        return name
    shown = name if len(name) <= 80 else name[:80] + "…"
    raise RequestError(
        ErrorCode.BAD_CHANNEL,
        f"{shown!r} is not a channel: expected 'system' or 'kind:id', at most {MAX_CHANNEL} "
        "characters, the id of A-Z a-z 0-9 . _ ~ / -",
    )


def is_system(channel: str) -> bool:
    """Whether `channel` belongs to the server itself."""
    return channel == SYSTEM or channel.startswith("system:")


@attrs.frozen
class Patterns:
    """A set of channel names: exact ones, and all that begin as `prefix*` says."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    @lru_cache(maxsize=1024)  # a thousand connections may come with tokens of the same grants
    def parse(cls, patterns: tuple[str, ...]) -> Patterns:
        """Read patterns such as `session:42`, `session:w1/*` or `*`.

        Raises:
            ValueError: a `*` stands anywhere but at the end.
        """
        for pattern in patterns:
            if "*" in pattern[:-1]:
                raise ValueError(f"pattern {pattern[:80]!r}: '*' may stand at its end only")
            if not pattern.isascii():
                raise ValueError(f"pattern {pattern[:80]!r}: no channel has such characters")
        return cls(
            frozenset(p for p in patterns if not p.endswith("*")),
            tuple(p[:-1] for p in patterns if p.endswith("*")),
        )

    def match(self, channel: str) -> bool:
        """Whether `channel` is in the set.

        A bare `*` does not cover the server's own channels: those want to be named.
        """
        if channel in self.exact:
            return True
        if is_system(channel):
            return any(p.startswith(SYSTEM) and channel.startswith(p) for p in self.prefixes)
        return channel.startswith(self.prefixes)
