"""Settings: defaults that were promised, and values that are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from triows import (
    AuthSettings,
    ConfigError,
    JWTAuth,
    Limits,
    LogLimits,
    ServerSettings,
    Settings,
    make_token,
)

SECRET = "not-a-real-secret-just-32-bytes!"
RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
DSA = dsa.generate_private_key(1024)
X25519 = x25519.X25519PrivateKey.generate()
PRIVATE_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


_TINY = 0.001
_MINIMA: dict[type, dict[str, float]] = {
    Limits: {
        "max_connections": 0,
        "max_connections_per_user": 0,
        "max_message_bytes": 128,
        "max_fragments": 0,
        "messages_per_second": 0,
        "messages_burst": 0,
        "bytes_per_second": 0,
        "max_subscriptions": 0,
        "handshake_timeout": _TINY,
        "handshakes_per_second_per_address": 0,
        "write_timeout": _TINY,
        "idle_timeout": _TINY,
        "ping_interval": _TINY,
        "pong_timeout": _TINY,
        "drain_timeout": 0,
        "close_timeout": _TINY,
        "handler_timeout": _TINY,
        "max_http_connections": 0,
    },
    LogLimits: {
        "max_messages": 0,
        "max_bytes": 0,
        "max_age": 0,
        "total_bytes": 0,
        "tail_bytes": 0,
        "idempotency_window": 0,
    },
}
_SECTIONS: dict[type, str] = {Limits: "limits", LogLimits: "log"}
_CASES = [(cls, name, low) for cls, names in _MINIMA.items() for name, low in names.items()]


@pytest.mark.parametrize("cls", [Limits, LogLimits])
def test_limits_are_all_covered_here(cls: Any) -> None:
    """Every limit has its minimum in the table of these tests."""
    assert {field.name for field in attrs.fields(cls)} == set(_MINIMA[cls])


@pytest.mark.parametrize(("cls", "name", "minimum"), _CASES)
@pytest.mark.parametrize("how", ["below", "negative", "nan"])
def test_limit_refuses_what_is_below_its_minimum(
    cls: type, name: str, minimum: float, how: str
) -> None:
    """A value below the minimum, or no number at all, is an error that names section and limit."""
    below = minimum - 1 if isinstance(minimum, int) else minimum / 2
    value = {"below": below, "negative": -1, "nan": math.nan}[how]
    path = rf"{_SECTIONS[cls]}\.{name}"
    with pytest.raises(ConfigError, match=rf"^{path} is {value}; it must be {minimum} or more"):
        cls(**{name: value})


@pytest.mark.parametrize(("cls", "name", "minimum"), _CASES)
def test_limit_takes_its_minimum(cls: type, name: str, minimum: float) -> None:
    """The minimum itself is allowed."""
    assert getattr(cls(**{name: minimum}), name) == minimum


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", 1000),
        ("max_message_bytes", 1_048_576),
        ("messages_per_second", 100),
        ("handshake_timeout", 5),
        ("write_timeout", 10),
        ("idle_timeout", 300),
        ("ping_interval", 30),
        ("pong_timeout", 10),
        ("drain_timeout", 30),
    ],
)
def test_limits_default_to_what_is_promised(name: str, value: float) -> None:
    """The defaults are those of the requirement."""
    assert getattr(Limits(), name) == value
    assert getattr(Settings().limits, name) == value


@pytest.mark.parametrize("port", [-1, 65536, 1_000_000])
def test_port_out_of_range_is_refused(port: int) -> None:
    """A port that TCP does not have is an error that names it."""
    with pytest.raises(ConfigError, match=rf"^server\.port is {port};"):
        ServerSettings(port=port)


@pytest.mark.parametrize("port", [0, 1, 65535])
def test_port_in_range_is_taken(port: int) -> None:
    """Every port of TCP is allowed, and 0 for a free one."""
    assert ServerSettings(port=port).port == port


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_tls_needs_both_files(name: str) -> None:
    """A certificate without its key, or the reverse, is an error that names both."""
    with pytest.raises(ConfigError, match=r"^server\.tls_key and server\.tls_cert"):
        ServerSettings(**{name: "file.pem"})  # type: ignore[arg-type]  # both are strings


def test_defaults_are_safe() -> None:
    """Out of the box: loopback only, no foreign pages, no token in addresses."""
    server = Settings().server
    assert (server.host, server.allowed_origins, server.token_in_query) == ("127.0.0.1", (), False)


@pytest.mark.parametrize("section", [Settings(), Settings().limits, Settings().log])
def test_settings_cannot_be_changed(section: object) -> None:
    """Settings are frozen: a running server's limits do not move under it."""
    name = attrs.fields(type(section))[0].name  # type: ignore[arg-type]  # an attrs class
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(section, name, 1)


async def test_auth_settings_name_a_file(tmp_path: Path) -> None:
    """The secret comes from its file, without the line's end."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    auth = JWTAuth.from_settings(AuthSettings(secret_file=str(path)))
    assert (await auth.verify(make_token(SECRET, "ann"))).user == "ann"


@pytest.mark.parametrize("name", ["secret_file", "public_key_file"])
def test_auth_settings_refuse_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    """A missing file is an error that names the setting and the file."""
    path = str(tmp_path / "none")
    with pytest.raises(ConfigError, match=rf"auth\.{name}: cannot read {path}"):
        JWTAuth.from_settings(AuthSettings(**{name: path}))  # type: ignore[arg-type]  # a string


def test_auth_settings_need_a_key() -> None:
    """With nothing configured nobody is let in: it is an error that says what to set."""
    with pytest.raises(ConfigError, match=r"auth\.jwks_url"):
        JWTAuth.from_settings(AuthSettings())


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"secret": SECRET, "public_key": _pem(RSA)},
        {"secret": SECRET, "jwks_url": "https://example.com/keys"},
        *({"secret": bad} for bad in ("", "x" * 31, _pem(RSA), _pem(EC), "ssh-rsa " + "A" * 64)),
        *({"public_key": bad} for bad in ("", "x" * 64, _pem(DSA), _pem(X25519), PRIVATE_PEM)),
        {"public_key": _pem(WEAK_RSA)},
        *({"public_key": _pem(EC), "algorithms": [bad]} for bad in ("ES384", "ES512")),
        *({"public_key": _pem(EC_384), "algorithms": a} for a in (None, ["ES384", "ES256"])),
        *({"secret": "x" * n, "algorithms": [a]} for n, a in ((63, "HS512"), (47, "HS384"))),
        *({"jwks_url": bad} for bad in ("", "file:///keys.json", "/keys.json", "https://")),
        *({"jwks_url": f"https://a{bad}/keys"} for bad in (":x", ":99999", ":-1", "\u00e9", " b")),
        *({"secret": SECRET, "algorithms": bad} for bad in (["none"], ["HS256", "RS256"])),
        *({"public_key": _pem(RSA), "algorithms": bad} for bad in (["HS256"], ["RS256", "ES256"])),
        *({"jwks_url": "https://a/", "algorithms": bad} for bad in (["HS256"], ["RS256", "ES256"])),
    ],
    ids=lambda kwargs: str(list(kwargs)),
)
def test_auth_refuses_an_unfit_configuration(kwargs: dict[str, Any]) -> None:
    """No key, two keys, one too weak or not of its algorithms' kind, a bad address."""
    with pytest.raises(ConfigError):
        JWTAuth(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"public_key": _pem(EC_384), "algorithms": ["ES384"]},
        {"secret": "x" * 64, "algorithms": ["HS256", "HS384", "HS512"]},
        {"secret": "x" * 48, "algorithms": ["HS384"]},
        {"jwks_url": "http://[::1]:8080/keys"},
    ],
    ids=lambda kwargs: str(list(kwargs)),
)
def test_auth_takes_what_is_just_enough(kwargs: dict[str, Any]) -> None:
    """The curve of its algorithm, and as many bytes as the hash has, will do."""
    JWTAuth(**kwargs)
