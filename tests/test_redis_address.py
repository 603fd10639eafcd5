"""The address of a Redis: read, checked, and shown without its password."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext

import pytest
from coredis.exceptions import RedisError

from triows.bus.address import Address
from triows.bus.connecting import check
from triows.bus.engine import open_bus
from triows.config import LogLimits, Settings, hide_password
from triows.errors import ConfigError


def test_address() -> None:
    """Everything an address can say."""
    full = Address.parse("rediss://ann:p%40ss:w@redis.example:7000/3?prefix=mine")
    assert (full.places, full.database) == ((("redis.example", 7000),), 3)
    assert (full.username, full.password) == ("ann", "p@ss:w")
    assert (full.tls, full.prefix, str(full)) == (True, "mine", "redis.example:7000")
    assert "p@ss" not in repr(full)
    least = Address.parse("redis://[::1]")
    assert (str(least), least.database, least.tls) == ("[::1]:6379", 0, False)
    assert (least.username, least.password, least.prefix) == (None, None, "triows")


@pytest.mark.parametrize(
    "store",
    [
        "redis://",
        "redis:///0",
        "redis:host",
        "redis://ann:secret@host:port/0",
        "redis://ann:secret@host:70000/0",
        "redis://ann:secret@host/database",
        "redis://ann:secret@host/-1",
        "redis://ann:secret@host/0#part",
        "redis://ann:secret@host/0?password=secret",
        "redis://ann:secret@host/0?prefix=",
        "redis://ann:secret@host/0?prefix={a}",
        "redis://ann:secret@host/0?prefix=" + "a" * 65,
        "redis://:secret@[host/0",
    ],
)
def test_bad_address(store: str) -> None:
    """What is wrong is said, and no password with it."""
    with pytest.raises(ConfigError) as raised:
        Address.parse(store)
    assert "expected" in str(raised.value) or "no option" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("store", "mode", "version", "said"),
    [
        ("redis://host", "standalone", "6.2.0", ""),
        ("redis://host", "standalone", "7.10.1", ""),
        ("redis://host", "standalone", "6.0.16", "of version 6.0.16, and 6.2 or newer is needed"),
        ("redis+cluster://host", "cluster", "7.0.0", ""),
        ("redis+cluster://host", "cluster", "6.2.14", "6.2.14, and 7.0 or newer is needed"),
        ("redis+cluster://a,b:1", "standalone", "7.0.0", "no cluster; a single Redis is redis://a"),
        ("rediss://a:1/2", "cluster", "7.0.0", "part of a cluster, which is rediss+cluster://a:1"),
    ],
)
def test_versions(store: str, mode: str, version: str, said: str) -> None:
    """What Redis says of itself decides whether it will do."""
    hello = {b"mode": mode.encode(), b"version": version.encode()}
    address = Address.parse(store)
    expected = pytest.raises(RedisError, match=re.escape(said)) if said else nullcontext()
    with expected:
        check(hello, address)


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("memory://", "memory://"),
        ("sqlite:////var/lib/triows.db", "sqlite:////var/lib/triows.db"),
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://ann:secret@host", "redis://ann:…@host"),
        ("redis://:sec@ret@host", "redis://:…@host"),
        ("redis://secret@host", "redis://:…@host"),
        ("redis://host?prefix=a", "redis://host?…"),
        ("redis+cluster://ann:secret@a:1,b:2?prefix=c", "redis+cluster://ann:…@a:1,b:2?…"),
    ],
)
def test_hidden_password(store: str, shown: str) -> None:
    """An address can be shown; what is secret in it is not."""
    assert hide_password(store) == shown
    assert Settings(store=store).shown_store == shown


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without coredis the error says how to get it."""
    for name in [n for n in sys.modules if n.startswith(("coredis", "triows.bus.redis"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("link", "connecting", "channels", "follower", "nodes"):
        monkeypatch.delitem(sys.modules, f"triows.bus.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "coredis", None)
    with pytest.raises(ConfigError, match=r"pip install 'triows\[redis\]'") as raised:
        open_bus("redis://:secret@host", LogLimits(), lambda *_: None, lambda _: None)
    assert "secret" not in str(raised.value)
