"""What can go wrong, named once: exceptions, error codes and close codes, each with its advice.

TriowsError
├── ConfigError         a setting is missing or wrong (ours to mend)
├── HandshakeRefused    an opening handshake was answered with an HTTP status
│   └── AuthError       … because of its token (401)
├── RequestError        one request was refused; its sender gets an `error`
└── ConnectionClosed    the connection is over, with its close code
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

import attrs


class TriowsError(Exception):
    """The root of every error that triows raises on purpose."""


class ConfigError(TriowsError):
    """A setting is missing or wrong; the message names it and what to do."""


class ErrorCode(StrEnum):
    """The `code` of an `error` message, and of the JSON body of a refused handshake."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    BAD_CHANNEL = "bad_channel"
    BAD_POSITION = "bad_position"
    UNKNOWN_TYPE = "unknown_type"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UPGRADE_REQUIRED = "upgrade_required"
    HEAD_TOO_LARGE = "head_too_large"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    LENGTH_REQUIRED = "length_required"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BAD_CURSOR = "bad_cursor"
    INTERNAL = "internal"
    NOT_INSTALLED = "not_installed"
    ENDED = "ended"
    NOT_SUBSCRIBED = "not_subscribed"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    HANDLER_FAILED = "handler_failed"


RETRYABLE: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.UNAVAILABLE})
"""Codes after which the same request, sent again, may succeed."""


class CloseCode(IntEnum):
    """Why a connection ended (RFC 6455 section 7.4; 4000-4999 are ours).

    The range of our own codes carries the advice, so that an old client obeys a new code:
    4000-4499 reconnect, 4500-4999 do not.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TOKEN_EXPIRED = 4000
    IDLE = 4001
    NO_PONG = 4002
    LAGGING = 4003
    NO_WRITE_PROGRESS = 4004
    RATE_LIMIT = 4005
    UNAUTHORIZED = 4500
    BAD_REQUESTS = 4502
    DISCONNECTED = 4503
    TOO_MANY_CONNECTIONS = 4504


TERMINAL: Final = frozenset({1002, 1003, 1007, 1009})
"""Standard codes that say "your bytes are wrong": reconnecting would only repeat them."""


def may_reconnect(code: int) -> bool:
    """Whether the owner of a connection that ended with `code` should connect again."""
    return code not in TERMINAL and not 4500 <= code <= 4999


class RequestError(TriowsError):
    """One request was refused; nothing it asked for has happened.

    Attributes:
        code: what kind of refusal.
        retry_after: seconds after which the same request may succeed, or None.
    """

    def __init__(self, code: ErrorCode, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def retry(self) -> bool:
        """Whether sending the same request again may succeed."""
        return self.code in RETRYABLE


class HandshakeRefused(TriowsError):
    """An opening handshake (or any HTTP request) is answered with an error status.

    Attributes:
        status: the HTTP status, 4xx or 5xx.
        retry_after: whole seconds for the `Retry-After` header, or None.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"refused with {self.status}: {self.message}"


class AuthError(HandshakeRefused):
    """A token was refused; the message says which check failed, never the token."""

    def __init__(self, message: str) -> None:
        super().__init__(401, ErrorCode.UNAUTHORIZED, message)


class ConnectionClosed(TriowsError):
    """The connection is over.

    Attributes:
        code: the close code (1006 when the peer vanished without one).
        reason: the words that came with it, at most 123 bytes on the wire.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code}" + (f" ({reason})" if reason else ""))
        self.code = code
        self.reason = reason


@attrs.frozen
class Close:
    """Which close code a connection ends with, and why, in words for a person."""

    code: CloseCode
    reason: str = ""
