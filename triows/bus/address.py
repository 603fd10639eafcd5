"""The address of a Redis or of a cluster: what the setting `store` says, and what may be shown."""

from __future__ import annotations

from typing import Final, TypeAlias, final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from triows.config import hide_password
from triows.errors import ConfigError

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster")
_FORM: Final = "redis[s]://[user[:password]@]host[:port][/database][?prefix=…]"
_CLUSTER_FORM: Final = "redis[s]+cluster://[user[:password]@]host[:port][,host[:port]…][?prefix=…]"
_PORT: Final = 6379
_MAX_PREFIX: Final = 64  # characters

Place: TypeAlias = tuple[str, int]
"""Host and port of a Redis."""


@final
@attrs.frozen(kw_only=True)
class Address:
    """Where a Redis is, and who we are there.

    Attributes:
        places: of the server; of a cluster, of some of its nodes.
        database: its number; a cluster has one only.
        username, password: None if it asks for none.
        tls: whether the connection is encrypted, and its certificate checked.
        prefix: what the names of all keys and channels begin with.
        is_cluster: whether it is a cluster, of which the nodes say where the others are.
    """

    places: tuple[Place, ...]
    database: int = 0
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    tls: bool
    prefix: str
    is_cluster: bool = False

    def __str__(self) -> str:
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places
        )

    def at(self, place: Place) -> Address:
        """Return the address of one node of the cluster."""
        return attrs.evolve(self, places=(place,))

    def form(self, *, is_cluster: bool) -> str:
        """Return how its places would be written if it were one, or were none."""
        return f"redis{'s' * self.tls}{'+cluster' * is_cluster}://{self}"

    @classmethod
    def parse(cls, store: str) -> Address:
        """Read the setting `store`.

        Raises:
            ConfigError: what is wrong, without showing a password.
        """
        scheme, _, _ = store.partition(":")
        is_cluster = scheme.endswith("+cluster")
        form = _CLUSTER_FORM if is_cluster else _FORM
        try:
            url = urlsplit(store)
            credentials, _, hosts = url.netloc.rpartition("@")
            places = tuple(map(_place, hosts.split(",") if is_cluster else [hosts]))
            database = int(url.path.strip("/") or 0)
        except ValueError:
            raise ConfigError(
                f"store is {hide_password(store)!r}; expected is {form}, port and database numbers"
            ) from None
        if url.scheme not in SCHEMES or database < 0 or url.fragment or (is_cluster and database):
            raise ConfigError(f"store is {hide_password(store)!r}; expected is {form}")
        username, _, password = credentials.partition(":")
        return cls(
            places=places,
            database=database,
            username=unquote(username) or None,
            password=unquote(password) or None,
            tls=scheme.startswith("rediss"),
            prefix=_prefix(store, url),
            is_cluster=is_cluster,
        )


def _place(text: str) -> Place:
    """Read host and port.

    Raises:
        ValueError: it has no host, or the port is no number.
    """
    url = urlsplit(f"//{text}")
    if not url.hostname:
        raise ValueError(text)
    return url.hostname, url.port or _PORT


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
