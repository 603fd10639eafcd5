"""Tokens that expire in virtual time. JSON Web Tokens do not: PyJWT looks at the real clock."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterable
from typing import Final, final

import attrs
import msgspec

from triows.auth import Grants, Identity
from triows.errors import AuthError
from triows.messages import Patterns

_PREFIX: Final = "test."


class _Claims(msgspec.Struct):
    sub: str
    exp: float
    iat: float
    jti: str
    grants: dict[str, list[str]]
    admin: bool


@final
@attrs.frozen
class Tokens:
    """Makes tokens, and believes them: what `open_server` takes as `auth`. Nothing is signed."""

    _numbers: Iterable[int] = attrs.field(factory=itertools.count, init=False)

    def make(self, sub: str, *, ttl: float = 3600, admin: bool = False, **grants: list[str]) -> str:
        """Return a token.

        Args:
            sub: whose it is.
            ttl: seconds until it expires.
            admin: everything, administration included.
            grants: patterns by `subscribe`, `publish`, `command` and `presence`; without any,
                all four for all channels but the server's own.
        """
        if not grants:
            grants = {name: ["*"] for name in ("subscribe", "publish", "command", "presence")}
        now, number = time.time(), next(iter(self._numbers))
        claims = _Claims(sub, now + ttl, now, str(number), grants, admin)
        return _PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode()

    async def verify(self, token: str) -> Identity:
        """Return whose token it is.

        Raises:
            AuthError: it is none of these, or has expired.
        """
        try:
            text = base64.urlsafe_b64decode(token.removeprefix(_PREFIX))
            claims = msgspec.json.decode(text, type=_Claims)
        except (ValueError, msgspec.DecodeError):
            raise AuthError("not a token for tests") from None
        if claims.exp <= time.time():
            raise AuthError("the token has expired; ask for a new one")
        patterns = {name: Patterns.parse(tuple(some)) for name, some in claims.grants.items()}
        grants = Grants(**patterns, admin=claims.admin)
        return Identity(claims.sub, claims.exp, grants, claims.jti, claims.iat, {})
