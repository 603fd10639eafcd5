"""A Redis that asks who is there, and one that is spoken to over TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.support_cluster import started
from tests.support_ports import free_port
from tests.support_redis import Redis, redis_running, running, until
from tests.support_redis import redis as redis
from triows.errors import ConfigError

pytestmark = pytest.mark.slow


async def test_password(redis: Redis) -> None:
    """User and password come from the address; without, the server does not start."""
    rules = ("resetchannels", "~mine:*", "&mine:*", "+@all")
    redis.run("ACL", "SETUSER", "ann", "on", ">p@ss", *rules)
    redis.run("ACL", "SETUSER", "default", "off")
    url = f"redis://ann:p%40ss@127.0.0.1:{redis.port}/0?prefix=mine"
    async with running(url) as one, running(url) as two:
        await one.publish("a:1", "x")
        assert await two.kept("a:1") == {1: "x"}
    with pytest.raises(ConfigError, match=r"NOAUTH|[Aa]uthenticat|invalid username"):
        async with running(redis.url):
            raise AssertionError


@pytest.mark.parametrize("allowed", [("~mine:*", "&mine:*"), ("~*", "&mine:*"), ("~mine:*", "&*")])
async def test_other_prefix_is_not_allowed(redis: Redis, allowed: tuple[str, str]) -> None:
    """A user who may not use these keys or channels is refused at the start."""
    redis.run("ACL", "SETUSER", "ann", "on", ">secret", "resetchannels", *allowed, "+@all")
    with pytest.raises(ConfigError, match="permission") as raised:
        async with running(f"redis://ann:secret@127.0.0.1:{redis.port}/0"):
            raise AssertionError
    assert "secret" not in str(raised.value)


async def test_prefixes_do_not_meet(redis: Redis) -> None:
    """Two applications share a Redis, and nothing in it."""
    async with running(redis.url) as one, running(redis.url + "?prefix=other") as two:
        log = await two.bus.open("a:1")
        await one.publish("a:1", "x", id="i")
        await two.publish("a:1", "y", id="i")
        assert await one.kept("a:1") == {1: "x"}
        assert await two.kept("a:1") == {1: "y"}
        assert log.head == 1
        assert [state.channel for state in await two.bus.channels("", "", 9)] == ["a:1"]


def certify(directory: Path, name: str) -> tuple[str, ...]:
    """Return the options of a Redis with a certificate; the last is that of the authority."""
    authority = trustme.CA()
    certificate = authority.issue_cert(name)
    paths = [str(directory / what) for what in ("key", "cert", "ca")]
    certificate.private_key_pem.write_to_path(paths[0])
    certificate.cert_chain_pems[0].write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    keys = ("--tls-key-file", paths[0], "--tls-cert-file", paths[1])
    return (*keys, "--tls-auth-clients", "no", "--tls-ca-cert-file", paths[2])


async def test_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster over TLS, and a user who may do no more than what is needed: on all nodes."""
    options = certify(tmp_path, "127.0.0.1")
    with started(tls=options) as cluster:
        with pytest.raises(ConfigError, match="CERTIFICATE_VERIFY_FAILED"):
            async with running(cluster.url):
                raise AssertionError
        monkeypatch.setenv("SSL_CERT_FILE", options[-1])
        for master in cluster.masters:
            rules = ("~mine:*", "&mine:*", "+@all", "-@dangerous", "+cluster|nodes")
            master.run("ACL", "SETUSER", "ann", "on", ">p@ss", "resetchannels", *rules)
        url = cluster.url.replace("//", "//ann:p%40ss@") + "?prefix=mine"
        async with running(url) as one, running(url) as two:
            logs = [await two.bus.open(f"a:{number}") for number in range(9)]
            for log in logs:
                await one.publish(log.channel, "x")
            await until(lambda: all(log.head == 1 for log in logs))
            assert len(await two.bus.channels("", "", 20)) == 9
            assert (await one.bus.present("a:1")).count == 0
        with pytest.raises(ConfigError, match="permission"):
            async with running(url.replace("mine", "other")):
                raise AssertionError


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rediss://` is encrypted, and the certificate has to be of that host."""
    options, port = certify(tmp_path, "127.0.0.1"), free_port()
    with redis_running("--tls-port", str(port), *options):
        with pytest.raises(ConfigError, match="CERTIFICATE_VERIFY_FAILED"):
            async with running(f"rediss://127.0.0.1:{port}"):
                raise AssertionError
        monkeypatch.setenv("SSL_CERT_FILE", options[-1])
        async with running(f"rediss://127.0.0.1:{port}") as one:
            await one.publish("a:1", "x")
            assert await one.kept("a:1") == {1: "x"}
        with pytest.raises(ConfigError, match="localhost"):
            async with running(f"rediss://localhost:{port}"):
                raise AssertionError
