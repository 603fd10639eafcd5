"""Servers that share a Redis: viewers and publishers are on any of them, and cannot tell."""

from __future__ import annotations

import pytest
import trio

import triows
from tests.support import Nursery, connect, memory_server, token
from tests.support_cluster import AnyRedis
from tests.support_cluster import any_redis as any_redis
from tests.support_cluster import lasting_cluster as lasting_cluster
from tests.support_http import ADMIN, Caller
from tests.support_redis import Redis, until
from tests.support_redis import redis as redis
from triows.bus import nodes
from triows.bus.cluster import Cluster
from triows.bus.link import Link
from triows.bus.redis import RedisBus
from triows.errors import HandshakeRefused

PATIENCE = 60.0  # seconds that servers here wait for the answers of the others


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until all have answered, also where that takes long."""
    monkeypatch.setattr(nodes, "ANSWER_TIMEOUT", PATIENCE)


async def test_publish_on_one_watch_on_the_other(any_redis: AnyRedis, nursery: Nursery) -> None:
    """A viewer gets what was published before, and what is, on whichever server."""
    url = any_redis.url
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        await one.publish("session:1", triows.log("first"))
        viewer = await connect(two, nursery)
        ack = await viewer.ask("subscribe", channel="session:1", data={"from": "start"}, id="s")
        assert ack["data"]["offset"] == 1
        assert (await viewer.hear())["data"] == "first"
        await one.publish("session:1", triows.log("second"))
        assert (await viewer.hear())["data"] == "second"
        await viewer.say("log", channel="session:1", data="third", id="m")
        heard = [await viewer.hear(), await viewer.hear()]
        assert {m["type"] for m in heard} == {"ack", "log"}
        nursery.cancel_scope.cancel()


async def test_moving_to_another_server(any_redis: AnyRedis, nursery: Nursery) -> None:
    """A cursor is good on every server, also on one that has heard of none of it yet."""
    url = any_redis.url
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        for number in range(5):
            position = await one.publish("session:1", triows.log(number))
        viewer = await connect(two, nursery)
        await viewer.ask("subscribe", channel="session:1", id="s")
        _deafen(two)
        await one.publish("session:1", triows.log(5))
        position = await one.publish("session:1", triows.log(6))
        other = await connect(two, nursery)
        since = {"epoch": position.epoch, "offset": 6}
        ack = await other.ask("subscribe", channel="session:1", data={"since": since}, id="s")
        assert (ack["type"], ack["data"]["offset"]) == ("ack", 7)
        assert (await other.hear())["data"] == 6
        assert [(await viewer.hear())["data"] for _ in range(2)] == [5, 6]
        any_redis.run("FLUSHALL")
        position = await one.publish("session:1", triows.log("anew"))
        range_ = {"epoch": position.epoch, "from": 1}
        third = await connect(two, nursery)
        ack = await third.ask("history", channel="session:1", data=range_, id="h")
        assert [ack["data"]["epoch"], ack["data"]["offset"]] == [position.epoch, 1]
        nursery.cancel_scope.cancel()


def _deafen(server: triows.Server) -> None:
    """Have a server hear nothing more by itself."""
    assert isinstance(server._bus, RedisBus)
    links = server._bus._link
    for link in links._links.values() if isinstance(links, Cluster) else [links]:
        assert isinstance(link, Link)
        link._push = lambda name, text: None


async def test_presence_is_shared(
    any_redis: AnyRedis, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches on any server is present on each, and gone with its server at once."""
    async with memory_server(store=any_redis.url) as one:
        viewer = await connect(one, nursery, token("ann"))
        await viewer.ask("subscribe", channel="session:1", id="s")
        async with memory_server(store=any_redis.url) as two:
            other = await connect(two, nursery, token("bob"))
            await other.ask("subscribe", channel="session:1", id="s")
            await until(lambda: any_redis.servers() == 2)
            for asking in (viewer, other):
                ack = await asking.ask("presence", channel="session:1", id="p")
                assert ack["data"]["count"] == 2
                assert {c["user"] for c in ack["data"]["connections"]} == {"ann", "bob"}
            assert isinstance(two._bus, RedisBus)
            two._bus._nodes._answer = lambda question: None  # type: ignore[method-assign]
            with monkeypatch.context() as impatient, trio.fail_after(PATIENCE / 2):
                impatient.setattr(nodes, "ANSWER_TIMEOUT", 1.0)
                ack = await viewer.ask("presence", channel="session:1", id="p")
            assert [c["user"] for c in ack["data"]["connections"]] == ["ann"]
            await trio.aclose_forcefully(other.stream)
        await until(lambda: any_redis.servers() == 1)
        with trio.fail_after(PATIENCE / 2):
            ack = await viewer.ask("presence", channel="session:1", id="p")
        assert ack["data"]["count"] == 1
        nursery.cancel_scope.cancel()


async def test_why_on_another_server(any_redis: AnyRedis, nursery: Nursery) -> None:
    """Each server says of a connection of any other how it is doing, and why it ended."""
    url = any_redis.url
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        peer = await connect(one, nursery)
        (mine,) = one.connections()
        caller = Caller(two, nursery)
        await until(lambda: any_redis.servers() == 2)
        path = f"/api/connections/{mine.id}"
        answer = (await caller.ask("GET", path, bearer=ADMIN)).body
        assert (answer["id"], answer["state"]) == (mine.id, "open")
        one.disconnect(mine.id, "enough")
        assert await peer.close_code() == 4503
        await until(lambda: one.closed_connections())
        answer = (await caller.ask("GET", path, bearer=ADMIN)).body
        assert (answer["code"], answer["reason"], answer["advice"]) == (4503, "enough", "stay away")
        unknown = await caller.ask("GET", "/api/connections/nobody", bearer=ADMIN)
        assert unknown.status == 404
        nursery.cancel_scope.cancel()


async def test_watchers_of_a_log_that_begins_anew(any_redis: AnyRedis, nursery: Nursery) -> None:
    """When Redis has lost everything, each viewer is told by `gap` and goes on in the new epoch."""
    url = any_redis.url
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        viewer = await connect(two, nursery)
        await viewer.ask("subscribe", channel="session:1", id="s")
        async with two.listen("session:*") as elsewhere:
            old = await one.publish("session:1", triows.log("old"))
            assert (await viewer.hear())["data"] == "old"
            assert (await anext(elsewhere)).data == "old"
            any_redis.run("FLUSHALL")
            new = await one.publish("session:1", triows.log("new"))
            gap = await viewer.hear()
            assert (gap["type"], gap["data"]["epoch"]) == ("gap", new.epoch)
            assert gap["data"]["reason"] == "epoch"
            assert (gap["data"]["to"], gap["data"]["count"], new.offset) == (0, 0, 1)
            message = await viewer.hear()
            assert (message["data"], message["offset"]) == ("new", 1)
            assert old.epoch != new.epoch
            assert [(await anext(elsewhere)).type for _ in range(2)] == ["gap", "log"]
        nursery.cancel_scope.cancel()


async def test_readiness(redis: Redis) -> None:
    """A server that cannot reach Redis says that it is not ready, and is again when it can."""
    async with memory_server(store=redis.url) as one:
        await one.publish("session:1", triows.log(1))
        assert one._readiness() == {"status": "ready"}
        redis.kill()
        with pytest.raises(triows.RequestError):
            while True:
                await one.publish("session:1", triows.log(1))
        with pytest.raises(HandshakeRefused, match="cannot be used"):
            one._readiness()
        redis.start()
        await until(lambda: one._bus.failure is None)
        assert one._readiness() == {"status": "ready"}


async def test_listening_inside_a_server(any_redis: AnyRedis, nursery: Nursery) -> None:
    """An application hears what is published on any server, from now on, watched here or not."""
    url = any_redis.url
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        await one.publish("session:1", triows.log("before"))
        async with two.listen("session:*") as messages, two.listen("session:2") as others:
            await two.publish("session:2", triows.log("own"))
            for number in range(3):
                await one.publish("session:1", triows.log(number))
            await one.publish("other:1", triows.log("other"))
            with trio.fail_after(30):
                heard = [await anext(messages) for _ in range(4)]
                assert (await anext(others)).data == "own"
            assert [m.data for m in heard if m.channel == "session:1"] == [0, 1, 2]
            assert [m.data for m in heard if m.channel == "session:2"] == ["own"]
            assert any_redis.is_overheard()
        await until(lambda: not any_redis.is_overheard())
        nursery.cancel_scope.cancel()
