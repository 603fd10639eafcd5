"""The engine on Redis: what an acknowledgement means, in which order, and what nodes share."""

from __future__ import annotations

import json
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support_cluster import AnyRedis
from tests.support_cluster import any_redis as any_redis
from tests.support_cluster import lasting_cluster as lasting_cluster
from tests.support_redis import Redis, proxied, running, until
from tests.support_redis import redis as redis
from triows.auth import Revocation
from triows.bus import follower
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.messages import Receipt


async def test_everything_is_shared(any_redis: AnyRedis) -> None:
    """Messages, epochs, offsets, ends and ids are the same on every node."""
    async with running(any_redis.url) as one, running(any_redis.url) as two:
        first = await one.publish("a:1", "one", id="i")
        second = await two.publish("a:1", {"two": "…"})
        assert isinstance(first, Receipt)
        assert second == Receipt(first.epoch, 2)
        assert await one.kept("a:1") == await two.kept("a:1") == {1: "one", 2: {"two": "…"}}
        assert await two.publish("a:1", "x", id="i") == Receipt(first.epoch, 1, duplicate=True)
        assert await two.publish("a:1", "bob's", id="i", user="bob") == Receipt(first.epoch, 3)
        end = await one.publish("a:2", {"exit_code": 3}, type="end", id="e")
        assert isinstance(end, Receipt)
        assert await two.publish("a:2", id="e") == Receipt(end.epoch, 1, duplicate=True)
        refused = await two.publish("a:2")
        assert isinstance(refused, RequestError)
        assert refused.code is ErrorCode.ENDED
        log = await two.bus.find("a:2")
        assert log is not None
        assert (log.ended, log.head, log.epoch) == (b'{"exit_code": 3}', 1, end.epoch)
        assert await two.bus.find("a:3") is None


async def test_watched_on_any_node(any_redis: AnyRedis) -> None:
    """What is published on any node grows the log on each that has it live, byte for byte."""
    url = any_redis.url
    async with running(url) as one, running(url) as two, running(url) as idle:
        logs = [await node.bus.open("a:1") for node in (one, two)]
        assert logs[0].epoch == logs[1].epoch
        for number in range(100):
            (one, two, idle)[number % 3].submit("a:1", number, id=f"i{number}")
        await until(lambda: all(log.head == 100 for log in logs))
        texts = [log.read(1, 100, 10**6) for log in logs]
        assert texts[0] == texts[1]
        assert sorted(json.loads(t)["data"] for t in texts[0]) == list(range(100))
        assert one.told == two.told == [("a:1", n) for n in range(1, 101)]
        assert (idle.told, list(idle.bus.logs())) == ([], [])
        page = await two.bus.fetch(logs[1], 98, 10**6)
        assert page.last == 100
        assert frame_payload(page.data[: len(page.data) // 2]).startswith(b'{"type":"log"')


async def test_order_of_submission(any_redis: AnyRedis) -> None:
    """Answers come in the order of submission, and offsets with them, in every channel."""
    async with running(any_redis.url) as one:
        for number in range(2000):
            one.submit(f"a:{number % 7}", number)
        await one.bus.settle()
        assert [data for data, _ in one.answers] == [str(n) for n in range(2000)]
        offsets = [o.offset for _, o in one.answers if isinstance(o, Receipt)]
        assert offsets == [n // 7 + 1 for n in range(2000)]
        assert one.bus.commands < 2000 + 20


async def test_channels_are_listed(any_redis: AnyRedis) -> None:
    """Every node lists what is kept in Redis, in pages by name, and not what is kept no more."""
    async with running(any_redis.url) as one, running(any_redis.url) as two:
        for number in range(600):
            one.submit(f"a:{number:03}", number)
        await one.publish("b:1", {"exit_code": 0}, type="end")
        await two.bus.open("a:only-asked-for")
        names = [f"a:{n:03}" for n in range(600)]
        found = await two.bus.channels("", "", 1000)
        assert [state.channel for state in found] == [*names, "b:1"]
        assert found[-1].ended == b'{"exit_code": 0}'
        assert all((s.head, s.earliest) == (1, 1) and s.bytes > 64 for s in found)
        assert abs(found[0].touched_at - time.time()) < 60
        assert await two.bus.channels("", "", 2) == found[:2]
        assert await two.bus.channels("a:5", "a:550", 1000) == found[551:600]
        assert await two.bus.channels("b:", "a:550", 1000) == found[600:]
        assert await two.bus.channels("c:", "", 1000) == []
        any_redis.run("DEL", any_redis.key("b:1", "meta"))
        assert await one.bus.channels("b:", "", 10) == []
        assert any_redis.run("ZSCORE", any_redis.index("b:1"), "b:1") == ""


async def test_revocations_are_shared(redis: Redis) -> None:
    """A revocation is told to all nodes, to those that were away and to those that start later."""
    token = Revocation(token_id="t", at=5.0)
    async with (
        running(redis.url) as one,
        proxied(redis) as proxy,
        running(proxy.url) as two,
    ):
        await two.publish("a:1")
        await one.bus.revoke(token)
        await until(lambda: token in one.revoked and token in two.revoked)
        proxy.is_closed = True
        proxy.cut()
        user = Revocation(user="ann", at=7.5)
        await one.bus.revoke(user)
        await one.bus.revoke(Revocation(user="ann", at=6.0))  # told late
        assert user not in two.revoked
        proxy.is_closed = False
        await until(lambda: user in two.revoked)
        async with running(redis.url) as three:
            assert set(three.revoked) == {token, user}
        with pytest.raises(RequestError, match="cannot be stored"):
            await one.bus.revoke(Revocation(user="\ud800"))


async def test_databases_are_apart(redis: Redis) -> None:
    """What servers tell each other is not heard by those of another database."""
    async with running(redis.url) as one, running(redis.url[:-1] + "1") as other:
        log = await other.bus.open("a:1")
        epoch, other.bus.present_here = log.epoch, lambda _: [{"connection": "theirs"}]
        assert (await one.bus.present("a:1")).count == 0
        await one.bus.revoke(Revocation(token_id=None, user="ann", at=time.time()))
        await one.publish("a:1")
        commands = other.bus.commands
        await other.publish("b:1")
        await wait_all_tasks_blocked()
        assert other.bus.commands <= commands + 2  # no look at `a:1`
        assert (log.epoch, log.head, other.revoked) == (epoch, 0, [])


async def test_pages_come_from_redis(any_redis: AnyRedis) -> None:
    """Of a long log the end is in memory; what is older is read in pages, without a hole."""
    async with running(any_redis.url) as one, running(any_redis.url, tail_bytes=4000) as two:
        for number in range(500):
            one.submit("a:1", number)
        await one.bus.settle()
        log = await two.bus.open("a:1")
        assert (log.head, log.earliest) == (500, 1)
        assert 450 < log.held <= 500
        assert log.size < 6000
        assert list((await two.kept("a:1")).values()) == list(range(500))
        cursor, frames = 0, b""
        while cursor < log.head:
            page = await two.bus.fetch(log, cursor, 3000)
            assert len(page.data) <= 3000
            cursor, frames = page.last, frames + page.data
        assert frames.count(b'"offset"') == 500
        for number in range(500, 600):
            await one.publish("a:1", number)
        await until(lambda: log.head == 600)
        assert list((await two.kept("a:1")).values()) == list(range(600))


@pytest.mark.parametrize(
    ("limits", "size", "least", "most"),
    [({"max_messages": 100}, 10, 100, 107), ({"max_bytes": 20_000}, 900, 19, 23)],
)
async def test_the_oldest_is_given_up(
    any_redis: AnyRedis, limits: dict[str, int], size: int, least: int, most: int
) -> None:
    """More than is to be kept is not kept, and every node knows from where on it is."""
    async with running(any_redis.url, **limits) as one, running(any_redis.url, **limits) as two:
        log = await two.bus.open("a:1")
        for _ in range(300):
            one.submit("a:1", "x" * size)
        await until(lambda: log.head == 300)
        assert least <= 300 - log.earliest + 1 <= most
        assert log.held == log.earliest
        stream = any_redis.key("a:1", "stream")
        assert int(any_redis.run("XLEN", stream)) == 300 - log.earliest + 1
        assert len(await one.kept("a:1")) == 300 - log.earliest + 1


async def test_what_is_too_old_is_given_up(any_redis: AnyRedis) -> None:
    """Messages older than they may be go with the next; a channel that is quiet expires whole."""
    async with running(any_redis.url, max_age=5) as one:
        old = await one.publish("a:1", "old")
        await one.publish("a:2", "x", id="i")
        over = trio.current_time() + 5.1
        while trio.current_time() < over:  # often enough that the channel does not expire
            await trio.sleep(0.4)
            await one.publish("a:1", "between")
        for _ in range(3):
            last = await one.publish("a:1", "new")
        kept = list((await one.kept("a:1")).values())
        assert kept[-3:] == ["new"] * 3
        assert set(kept[:-3]) <= {"between"}
        assert isinstance(old, Receipt)
        assert isinstance(last, Receipt)
        assert last.epoch == old.epoch
        assert last.offset > len(kept)
        assert 0 < int(any_redis.run("PTTL", any_redis.key("a:1", "meta"))) <= 5000
        assert any_redis.run("EXISTS", any_redis.key("a:2", "meta")) == "0"
        again = await one.publish("a:2", "x", id="i")
        assert isinstance(again, Receipt)
        assert (again.offset, again.duplicate) == (1, False)


async def test_so_many_ids_are_remembered(
    any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than so many ids are, and the newest of them."""
    monkeypatch.setattr("triows.bus.redis.MAX_IDS", 20)
    async with running(any_redis.url, idempotency_window=600) as one:
        for number in range(50):
            one.submit("a:1", number, id=f"i{number}")
        await one.bus.settle()
        assert int(any_redis.run("LLEN", any_redis.key("a:1", "order"))) == 20
        assert int(any_redis.run("HLEN", any_redis.key("a:1", "ids"))) == 20
        for number, offset, is_known in ((30, 31, True), (49, 50, True), (29, 51, False)):
            outcome = await one.publish("a:1", id=f"i{number}")
            assert isinstance(outcome, Receipt)
            assert (outcome.offset, outcome.duplicate) == (offset, is_known)


async def test_ids_are_forgotten(any_redis: AnyRedis) -> None:
    """An id is remembered for its window."""
    async with running(any_redis.url, idempotency_window=0.5) as one:
        await one.publish("a:1", id="i")
        await trio.sleep(0.6)
        again = await one.publish("a:1", id="i")
        assert isinstance(again, Receipt)
        assert (again.offset, again.duplicate) == (2, False)


async def test_quiet_logs_are_let_go(any_redis: AnyRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that nobody watches or asks for is listened to no more; one that is watched is."""
    monkeypatch.setattr(follower, "LOOK_INTERVAL", 0.1)
    async with running(any_redis.url) as one:
        watched = await one.bus.open("a:1")
        watched.watchers = 1
        await one.bus.open("a:2")
        assert any_redis.heard("a:2")
        monkeypatch.setattr(follower, "QUIET", 0.3)  # only now: to get here may take longer
        await until(lambda: [log.channel for log in one.bus.logs()] == ["a:1"])
        await until(lambda: not any_redis.heard("a:2"))
        await one.publish("a:1", "still")
        await until(lambda: watched.head == 1)


async def test_memory_is_bounded(any_redis: AnyRedis) -> None:
    """Logs that nobody watches leave memory when there is no room, and come back from Redis."""
    async with running(any_redis.url, total_bytes=60_000) as one:
        for number in range(200):
            channel = f"a:{number}"
            await one.publish(channel, "x" * 1000)
            await one.bus.open(channel)
            assert one.bus.size <= 62_000
        assert len(list(one.bus.logs())) < 40
        assert await one.kept("a:0") == {1: "x" * 1000}


async def test_much_at_once(any_redis: AnyRedis, caplog: pytest.LogCaptureFixture) -> None:
    """More than Redis would let wait for one client is asked for in portions."""
    async with running(any_redis.url) as one, running(any_redis.url, tail_bytes=2**24) as two:
        for number in range(48):
            for _ in range(2):
                await one.publish(f"a:{number}", "x" * 500_000)
        async with trio.open_nursery() as nursery:
            for number in range(48):
                nursery.start_soon(two.bus.open, f"a:{number}")
        logs = list(two.bus.logs())
        assert [(log.head, log.held) for log in logs] == [(2, 1)] * 48
        assert "connecting again" not in caplog.text
