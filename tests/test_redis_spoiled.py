"""What others have written into our keys: refused, told of in the log, and nobody else is hurt."""

from __future__ import annotations

import pytest

from tests.support_cluster import AnyRedis
from tests.support_cluster import any_redis as any_redis
from tests.support_cluster import lasting_cluster as lasting_cluster
from tests.support_redis import Node, Redis, running, until
from tests.support_redis import redis as redis
from triows.errors import ErrorCode, RequestError
from triows.messages import Patterns, Receipt


async def goes_on(node: Node) -> bool:
    """Whether a node still serves another channel."""
    return isinstance(await node.publish("other:1"), Receipt) and bool(await node.kept("other:1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("opened", "xyz"),
        ("head", "xyz"),
        ("earliest", "x"),
        ("bytes", ""),
        ("epoch", b"\xff\xfe".decode(errors="surrogateescape")),
    ],
)
async def test_spoiled_state(any_redis: AnyRedis, field: str, value: str) -> None:
    """A channel of which it is not known how it stands is refused, and left out of the list."""
    async with running(any_redis.url) as one, running(any_redis.url) as two:
        await one.publish("a:1")
        any_redis.run("HSET", any_redis.key("a:1", "meta"), field, value)
        with pytest.raises(RequestError) as caught:
            await two.bus.open("a:1")
        assert caught.value.code is ErrorCode.UNAVAILABLE
        await one.publish("a:1")
        await one.publish("b:1")
        for node in (one, two):
            assert await goes_on(node)
            names = [state.channel for state in await node.bus.channels("", "", 10)]
            assert names == ["b:1", "other:1"] or field == "head"
        any_redis.run("DEL", any_redis.key("a:1", "meta"))
        assert isinstance(await two.publish("a:1"), Receipt)


async def test_spoiled_revocation(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """One that is not understood is left out: at the start, and on a new connection."""
    redis.run("HSET", "triows:revocations", "token:x", "soon", "token:y", "1")
    async with running(redis.url) as node:
        assert [revocation.token_id for revocation in node.revoked] == ["y"]
        await node.publish("a:1")
        redis.run("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: len(node.revoked) >= 3)
        assert await goes_on(node)
    assert "a revocation in Redis is damaged" in caplog.text


async def test_news_of_no_channel(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """News with a name that no channel has, which a pattern lets in, are left out."""
    async with running(redis.url) as node:
        node.bus.attend(Patterns.parse(("a:*",)))
        await node.publish("a:1")
        for name in (b"\xff".decode(errors="surrogateescape"), "b c"):
            assert redis.run("PUBLISH", f"triows:{{a:{name}}}:news:0", "{}") == "1"
        await until(lambda: caplog.text.count("which is no channel") == 2)
        assert await goes_on(node)


@pytest.mark.parametrize("id", ["*", "2-0", "1-1"])
async def test_foreign_entry(any_redis: AnyRedis, id: str) -> None:
    """What others append to a stream does not keep messages out of it for ever."""
    async with running(any_redis.url) as one, running(any_redis.url) as two:
        await one.publish("a:1", "first")
        any_redis.run("XADD", any_redis.key("a:1", "stream"), id, "m", "garbage")
        for data in ("second", "third"):
            assert isinstance(await one.publish("a:1", data), Receipt)
        assert await two.kept("a:1") == {1: "first", 2: "second", 3: "third"}
        assert (one.renewed, two.renewed) == ([], [])
