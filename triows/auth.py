"""Who somebody is, what they may do, and whose word is taken back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol, final

import attrs

from triows.errors import AuthError, ConfigError
from triows.messages import SYSTEM, Patterns


class Action(StrEnum):
    """What an identity may ask to do with a channel."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    COMMAND = "command"
    PRESENCE = "presence"


@attrs.frozen
class Grants:
    """What a token allows: for each action the channels, by name or pattern.

    Attributes:
        admin: everything, the server's own channels and its administration included.
    """

    subscribe: Patterns = Patterns()
    publish: Patterns = Patterns()
    command: Patterns = Patterns()
    presence: Patterns = Patterns()
    admin: bool = False

    def allow(self, action: Action, channel: str) -> bool:
        """Whether `action` on `channel` is covered. Everybody may listen to `system`."""
        if self.admin or (action is Action.SUBSCRIBE and channel == SYSTEM):
            return True
        patterns: Patterns = getattr(self, action)
        return patterns.match(channel)


@attrs.frozen
class Identity:
    """Somebody whose token was verified.

    Attributes:
        user: the token's `sub`.
        expires_at: the token's `exp`, seconds since 1970.
        grants: what it allows.
        token_id: its `jti`, or None.
        issued_at: its `iat`, seconds since 1970, or None.
        claims: the claims that triows does not know, for the application.
    """

    user: str
    expires_at: float
    grants: Grants = Grants()
    token_id: str | None = None
    issued_at: float | None = None
    claims: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


class Authenticator(Protocol):
    """Turns a token into an identity."""

    async def verify(self, token: str) -> Identity:
        """Return whose token it is.

        Raises:
            AuthError: it is not to be believed; the message says why.
        """


Authorizer = Callable[[Identity, Action, str], Awaitable[bool]]
"""Decides, instead of the grants, whether an identity may do something with a channel.

An exception, or no answer within `limits.handler_timeout`, is a no.
"""


@attrs.frozen(kw_only=True)
class Revocation:
    """A token that is believed no more, or all tokens of a user that were issued until then.

    Attributes:
        token_id: the token's `jti`; or None, and then
        user: whose tokens.
        at: seconds since 1970.
    """

    token_id: str | None = None
    user: str | None = None
    at: float = attrs.field(factory=lambda: time.time())  # looked up then: tests set the clock

    def __attrs_post_init__(self) -> None:
        if (self.token_id is None) == (self.user is None):
            raise ConfigError("revoke: name either a token_id or a user")


@final
class Revocations:
    """Whose tokens are no longer believed, although they are genuine.

    Kept for as long as the process lives: an entry is a few hundred bytes, and to forget one
    early would let its token in again. The engine may keep them longer.
    """

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._users: dict[str, float] = {}

    def add(self, revocation: Revocation) -> None:
        """Believe no more what a revocation names, be it told once or several times.

        Of a user: no token issued until then; one without `iat` counts as such. `iat` is in whole
        seconds for most issuers: a token issued within the second of the revocation counts as
        issued before it.
        """
        if revocation.token_id is not None:
            self._tokens.add(revocation.token_id)
        if revocation.user is not None:
            at = self._users.get(revocation.user, 0.0)
            self._users[revocation.user] = max(at, revocation.at)

    def check(self, identity: Identity) -> None:
        """Raises AuthError if the identity's token was revoked."""
        if identity.token_id is not None and identity.token_id in self._tokens:
            raise AuthError("the token was revoked")
        revoked_at = self._users.get(identity.user)
        if revoked_at is not None and (identity.issued_at or 0) <= revoked_at:
            raise AuthError(
                "all tokens of this user issued until now were revoked; ask for a new one"
            )


@final
@attrs.frozen
class Revocable:
    """An authenticator that also refuses what was revoked."""

    authenticator: Authenticator
    revocations: Revocations

    async def verify(self, token: str) -> Identity:
        """As `Authenticator.verify`; no checkpoint lies between the last check and the return,
        so that nobody is let in while a revocation is under way.
        """
        identity = await self.authenticator.verify(token)
        self.revocations.check(identity)
        return identity
