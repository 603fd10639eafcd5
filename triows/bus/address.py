"""The address of a Redis: what the setting `store` says, and what may be shown of it."""

from __future__ import annotations

from typing import Final, final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from triows.config import hide_password
from triows.errors import ConfigError

SCHEMES: Final = ("redis", "rediss")
_FORM: Final = "redis[s]://[user[:password]@]host[:port][/database][?prefix=…]"
_PORT: Final = 6379
_MAX_PREFIX: Final = 64  # characters


@final
@attrs.frozen(kw_only=True)
class Address:
    """Where a Redis is, and who we are there.

    Attributes:
        host, port, database: of the server.
        username, password: None if it asks for none.
        tls: whether the connection is encrypted, and its certificate checked.
        prefix: what the names of all keys and channels begin with.
    """

    host: str
    port: int
    database: int
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    tls: bool
    prefix: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, store: str) -> Address:
        """Read the setting `store`.

        Raises:
            ConfigError: what is wrong, without showing a password.
        """
        try:
            url = urlsplit(store)
            port = url.port or _PORT
            database = int(url.path.strip("/") or 0)
        except ValueError:
            raise ConfigError(
                f"store is {hide_password(store)!r}; expected is {_FORM}, port and database numbers"
            ) from None
        if url.scheme not in SCHEMES or not url.hostname or database < 0 or url.fragment:
            raise ConfigError(f"store is {hide_password(store)!r}; expected is {_FORM}")
        return cls(
            host=url.hostname,
            port=port,
            database=database,
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            tls=url.scheme == "rediss",
            prefix=_prefix(store, url),
        )


def _prefix(store: str, url: SplitResult) -> str:
    """Return the one option there is."""
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    prefix = options.pop("prefix", "triows")
    if options:
        raise ConfigError(
            f"store is {hide_password(store)!r}; {min(options)!r} is no option of it, 'prefix' is"
        )
    if not prefix or len(prefix) > _MAX_PREFIX or set(prefix) & set("{}*?[]\\ \n"):
        raise ConfigError(
            f"the prefix of the store is {prefix[:80]!r}; expected are 1 to {_MAX_PREFIX} "
            "characters without braces, brackets, wildcards and spaces"
        )
    return prefix
