"""Settings: frozen values, each with its unit, its default and what it protects.

In every rate and count 0 means unlimited. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import math
from ipaddress import ip_network
from typing import Any

import attrs

from triows.errors import ConfigError

MIB = 1024 * 1024
MAX_WORKERS = 256  # more is a slip of the finger
_SECTIONS = {"Limits": "limits", "LogLimits": "log"}


def _count(default: int) -> Any:
    return _limit(default, 0)


def _limit(default: float, minimum: float) -> Any:
    def check(instance: object, attribute: Any, value: float) -> None:
        if not minimum <= value < math.inf:
            path = f"{_SECTIONS[type(instance).__name__]}.{attribute.name}"
            raise ConfigError(f"{path} is {value}; it must be {minimum} or more, and finite")

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class Limits:
    """What one peer, and all together, may take."""

    max_connections: int = _count(1000)
    """Connections open at once; the next is refused with 503."""
    max_connections_per_user: int = _count(100)
    """Connections of one `sub`; the newest wins, the oldest is closed with 4504. Also its requests
    over HTTP that are under way; the next gets 429."""
    max_message_bytes: int = _limit(MIB, 128)
    """Bytes of one message (1 MiB, as Centrifugo and NATS); more closes with 1009."""
    max_fragments: int = _count(1024)
    """Frames of one message: tiny ones cost more memory than they carry."""
    messages_per_second: float = _limit(100, 0)
    """Messages a connection may send, in the long run."""
    messages_burst: int = _count(200)
    """Messages it may send at once before the rate counts."""
    bytes_per_second: float = _limit(10 * MIB, 0)
    """Bytes of messages a connection may send, in the long run; a second's worth at once."""
    max_subscriptions: int = _count(128)
    """Channels one connection may watch (as Centrifugo)."""
    handshake_timeout: float = _limit(5, 0.001)
    """For the head of the opening request, and then again for the `auth` message; who does not
    take the answer has `write_timeout`."""
    handshakes_per_second_per_address: float = _limit(100, 0)
    """Openings from one network address; ten seconds' worth at once. The same, counted apart, of
    HTTP requests without a token that is believed."""
    write_timeout: float = _limit(10, 0.001)
    """How long a socket may accept nothing before it is cut, whatever its pongs say."""
    idle_timeout: float = _limit(300, 0.001)
    """How long a connection may pass no message either way; pings do not count."""
    ping_interval: float = _limit(30, 0.001)
    """Between a pong and the next ping."""
    pong_timeout: float = _limit(10, 0.001)
    """From a ping to its pong, or to any other byte."""
    drain_timeout: float = _limit(30, 0)
    """How long leaving waits for viewers to get what is theirs."""
    close_timeout: float = _limit(1, 0.001)
    """From our close frame to the peer's; then the socket is closed by force."""
    max_http_connections: int = _count(1000)
    """HTTP connections open at once, event streams apart: those count in `max_connections`. Of
    too many the one idle for longest is closed, or one that takes nothing of its answer; without
    such, the next is refused with 503."""
    handler_timeout: float = _limit(30, 0.001)
    """How long an application's handler or authorizer may take for one message."""

    def for_clients(self) -> dict[str, dict[str, float]]:
        """Return what a client should know to stay within."""
        return {
            "heartbeat": {
                "ping_interval": self.ping_interval,
                "pong_timeout": self.pong_timeout,
                "idle_timeout": self.idle_timeout,
            },
            "limits": {
                "max_message_bytes": self.max_message_bytes,
                "max_subscriptions": self.max_subscriptions,
                "messages_per_second": self.messages_per_second,
                "messages_burst": self.messages_burst,
                "bytes_per_second": self.bytes_per_second,
            },
        }


@attrs.frozen(kw_only=True)
class LogLimits:
    """What is kept of what was published; the oldest goes first."""

    max_messages: int = _count(10_000)
    """Messages of one channel."""
    max_bytes: int = _count(16 * MIB)
    """Bytes of one channel; its newest message is kept whatever its size."""
    max_age: float = _limit(86_400, 0)
    """Seconds a message is kept; 0 keeps it until a size decides."""
    total_bytes: int = _limit(512 * MIB, 0)
    """Bytes of all channels together in memory; the channel quiet for longest gives way first."""
    tail_bytes: int = _limit(MIB, 0)
    """Bytes of one channel in memory, with a store on disk: older messages are read from it."""
    idempotency_window: float = _limit(300, 0)
    """Seconds for which the same `id` of the same user is not published twice."""


@attrs.frozen(kw_only=True)
class AuthSettings:
    """Whose tokens are believed; see `triows.JWTAuth`."""

    secret_file: str = ""
    """File with the HMAC secret, at least 32 bytes."""
    public_key_file: str = ""
    """PEM file with one public key (RSA, EC or Ed25519)."""
    jwks_url: str = ""
    """Address of a JSON Web Key Set; fetched again when an unknown key id appears."""
    algorithms: tuple[str, ...] = ()
    """Allowed algorithms, one family; empty means the usual one of the key's kind."""
    issuer: str = ""
    """Required `iss`; empty means not checked."""
    audience: str = ""
    """Required `aud`; empty means not checked."""


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where and to whom the server listens."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: is every one of this machine."""
    port: int = attrs.field(default=8080)
    """TCP port; 0 picks a free one."""
    workers: int = attrs.field(default=1)
    """Processes on that port, each of which uses one core. More than one needs a store that they
    share; `triows serve` starts them."""
    worker_port: int = attrs.field(default=0)
    """First of the ports that belong to one worker each, beside the one they share, so that each
    can be asked for its own metrics; 0 is none."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may connect, beside the server's own; `*` is every one."""
    trusted_proxies: tuple[str, ...] = attrs.field(default=())
    """Addresses and networks (`10.0.0.0/8`) of reverse proxies whose `X-Forwarded-For` is
    believed: else all clients behind one share its limits."""
    tls_cert: str = ""
    """PEM file with the certificate chain; with `tls_key`, the port speaks TLS."""
    tls_key: str = attrs.field(default="")
    """PEM file with the certificate's private key."""
    token_in_query: bool = False
    """Accept `?token=` in the address: it ends up in logs of proxies, so think twice."""

    @port.validator
    def _check_port(self, attribute: object, value: int) -> None:
        if not 0 <= value <= 65535:
            raise ConfigError(f"server.port is {value}; it must be from 0 to 65535")

    @workers.validator
    def _check_workers(self, attribute: object, value: int) -> None:
        if not 1 <= value <= MAX_WORKERS:
            raise ConfigError(f"server.workers is {value}; it must be from 1 to {MAX_WORKERS}")

    @worker_port.validator
    def _check_worker_port(self, attribute: object, value: int) -> None:
        most = 65536 - self.workers
        if not 0 <= value <= most:
            told = f"it must be from 0 to {most} with server.workers {self.workers}"
            raise ConfigError(f"server.worker_port is {value}; {told}")

    @trusted_proxies.validator
    def _check_proxies(self, attribute: object, value: tuple[str, ...]) -> None:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ConfigError(f"server.trusted_proxies: {error}") from None

    @tls_key.validator
    def _check_tls(self, attribute: object, value: str) -> None:
        if bool(value) != bool(self.tls_cert):
            raise ConfigError(
                "server.tls_key and server.tls_cert go together: one of them is missing"
            )


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set, in the sections of the TOML file."""

    server: ServerSettings = attrs.field(factory=ServerSettings)
    limits: Limits = attrs.field(factory=Limits)
    log: LogLimits = attrs.field(factory=LogLimits)
    auth: AuthSettings = attrs.field(factory=AuthSettings)
    store: str = "memory://"
    """Where channels are kept: `memory://`, `sqlite:///relative/file`, `sqlite:////absolute`, or
    `redis://user:password@host:port/database` or `redis+cluster://user:password@host:port,host:port`
    (`rediss` with TLS), shared by many servers."""

    @property
    def shown_store(self) -> str:
        """`store` as it may be shown: without a password."""
        return hide_password(self.store)


def hide_password(store: str) -> str:
    """Return the setting `store` as it may be shown."""
    scheme, found, rest = store.partition("://")
    place, query, _ = rest.partition("?")
    credentials, at, place = place.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user if colon else ''}:…@" if at else ""
    return f"{scheme}{found}{shown}{place}{'?…' if query else ''}"
