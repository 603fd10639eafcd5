"""Redis killed, paused, flushed, full, or out of reach: what is refused, and what is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support_redis import Node, Outcome, Proxy, Redis, proxied, running, until
from tests.support_redis import durable_redis as durable_redis
from tests.support_redis import redis as redis
from triows.bus import link
from triows.bus import redis as engine
from triows.errors import ConfigError, ErrorCode, RequestError
from triows.logs import Log
from triows.messages import Receipt

pytestmark = pytest.mark.slow

DEADLINE = 5.5  # seconds within which a publisher has its answer, whatever Redis does


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner than outside of tests."""
    monkeypatch.setattr(link, "_MOST_DELAY", 0.2)


def is_refused(outcome: Outcome) -> bool:
    """Whether a publisher was told to try again, in so many words."""
    return (
        isinstance(outcome, RequestError)
        and outcome.code is ErrorCode.UNAVAILABLE
        and outcome.retry
        and outcome.retry_after is not None
        and "Redis at 127.0.0.1" in outcome.message
    )


async def publish_until_kept(node: Node, channel: str, data: object, id: str) -> Receipt:
    """Publish with an id until it is acknowledged, as a client does."""
    with trio.fail_after(60):
        while True:
            outcome = await node.publish(channel, data, id=id)
            if isinstance(outcome, Receipt):
                return outcome
            assert is_refused(outcome)
            await trio.sleep(0.02)


def data_of(log: Log) -> list[object]:
    """Return the data of what is in memory of a log."""
    return [json.loads(text)["data"] for text in log.read(1, log.head, 10**9)]


async def test_hole_is_repaired(redis: Redis) -> None:
    """What a node was not told is noticed and read, and told in order, each once."""
    async with running(redis.url) as one, running(redis.url) as two:
        log = await two.bus.open("a:1")
        push, count = two.link._push, 0

        def drop_two_of_three(name: bytes, text: bytes) -> None:
            nonlocal count
            count += 1
            if count % 3 == 0:
                push(name, text)

        two.link._push = drop_two_of_three
        for number in range(300):
            one.submit("a:1", number)
            if number % 10 == 0:
                await trio.sleep(0.001)
        await until(lambda: log.head == 300)
        assert data_of(log) == list(range(300))
        assert two.told == [("a:1", n) for n in range(1, 301)]


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"epoch":"e","earliest":1}', b'{"a'])
async def test_news_that_is_not_understood(
    redis: Redis, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no message is logged and counts as a hole: nothing is lost, nothing falls."""
    async with running(redis.url) as one:
        log = await one.bus.open("a:1")
        one.bus._follower.hear(b"triows:{a:1}:news:0", text)
        one.bus._follower.hear(b"triows:{b:1}:news:0", text)
        await one.publish("a:1", "x")
        await until(lambda: log.head == 1)
        assert "not understood" in caplog.text


async def test_damaged_message(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A message that somebody spoiled is missing; those before and after it are not."""
    async with running(redis.url) as one:
        for number in range(1, 6):
            await one.publish("a:1", number)
        redis.run("XDEL", "triows:{a:1}:stream", "3-0")
    async with running(redis.url) as two:
        log = await two.bus.open("a:1")
        assert (log.head, log.held, log.earliest) == (5, 4, 1)
        assert len(await two.bus.history(log, 1, 5, 10**6)) == 2
        with pytest.raises(RequestError):
            await two.bus.fetch(log, 2, 10**6)
        assert log.earliest == 4  # so viewers are told by `gap`


async def test_connection_is_killed(redis: Redis) -> None:
    """A lost connection is made again, and what was published meanwhile is read."""
    async with running(redis.url) as one, running(redis.url) as two:
        log = await two.bus.open("a:1")
        for number in range(50):
            if number % 10 == 5:
                redis.run("CLIENT", "KILL", "TYPE", "pubsub")
            await publish_until_kept(one, "a:1", number, f"i{number}")
        await until(lambda: log.head == 50)
        assert data_of(log) == list(range(50))
        assert (one.renewed, two.renewed) == ([], [])


async def test_killed_and_restarted(durable_redis: Redis) -> None:
    """A Redis that has what it acknowledged on disk comes back with all of it."""
    redis = durable_redis
    async with running(redis.url) as one, running(redis.url) as two:
        log = await two.bus.open("a:1")
        for number in range(20):
            if number % 5 == 3:
                redis.kill()
                refused = await one.publish("a:1", "never")
                assert is_refused(refused)
                assert data_of(log) == list(range(number))  # from memory
                redis.start()
            await publish_until_kept(one, "a:1", number, f"i{number}")
            await until(lambda head=number + 1: log.head == head)  # type: ignore[misc]
        assert data_of(log) == list(range(20))
        assert (one.renewed, two.renewed) == ([], [])


@pytest.mark.parametrize("how", ["killed", "flushed"])
async def test_all_is_lost(redis: Redis, how: str) -> None:
    """A log that Redis has forgotten begins anew, with another epoch, on every node."""
    async with running(redis.url) as one, running(redis.url) as two:
        log, epoch = await two.bus.open("a:1"), (await two.bus.open("a:1")).epoch
        for number in range(5):
            await one.publish("a:1", number)
        await until(lambda: log.head == 5)
        if how == "killed":
            redis.kill()
            redis.start()
        else:
            redis.run("FLUSHALL")
        receipt = await publish_until_kept(one, "a:1", "anew", "i")
        await until(lambda: log.epoch == receipt.epoch and log.head == 1)
        assert (receipt.offset, two.renewed) == (1, ["a:1"])
        assert receipt.epoch != epoch
        assert data_of(log) == ["anew"]


async def test_some_is_lost(redis: Redis) -> None:
    """A Redis that comes back with an older copy has another log, whatever it was told since."""
    async with running(redis.url) as one, running(redis.url) as two:
        log = await two.bus.open("a:1")
        for number in range(5):
            await one.publish("a:1", number)
        redis.run("SAVE")
        for number in range(5, 8):
            await one.publish("a:1", number)
        await until(lambda: log.head == 8)
        epoch = log.epoch
        redis.kill()
        redis.start()
        async with running(redis.url) as other:  # it has not seen the old ones
            for number in range(4):
                await other.publish("a:1", f"new {number}")
            await until(lambda: log.epoch != epoch and log.head == 9)
            wanted = [*range(5), *(f"new {n}" for n in range(4))]
            assert data_of(log) == wanted
            assert two.renewed == ["a:1"]
            receipt = await other.publish("a:1", "last")
            assert isinstance(receipt, Receipt)
            await until(lambda: log.head == 10)
            assert receipt.epoch == log.epoch


async def test_paused(redis: Redis) -> None:
    """A Redis that hangs: refused in time, at once from then on; watched again by itself."""
    async with running(redis.url) as one, running(redis.url) as two:
        log = await two.bus.open("a:1")
        await one.publish("a:1", 0)
        redis.send(signal.SIGSTOP)
        try:
            began = trio.current_time()
            outcomes = [one.submit("a:1", n, id=f"i{n}") for n in range(1, 4)]
            await trio.sleep(0.5)
            outcomes.append(one.submit("a:1", 4, id="i4"))
            await until(lambda: all(outcomes))
            assert trio.current_time() - began < DEADLINE
            assert all(is_refused(outcome) for (outcome,) in outcomes)
            assert [id for id, _ in one.answers[1:]] == ["i1", "i2", "i3", "i4"]
            began = trio.current_time()
            assert is_refused(await one.publish("a:1", 5, id="i5"))
            assert trio.current_time() - began < 1  # it was not waited for again
            assert data_of(log) == [0]
        finally:
            redis.send(signal.SIGCONT)
        for number in range(1, 6):
            await publish_until_kept(one, "a:1", number, f"i{number}")
        await until(lambda: log.head == 6)
        assert data_of(log) == list(range(6))


async def test_out_of_reach(redis: Redis) -> None:
    """A network that takes everything and gives nothing back, or cuts, or is not there."""
    async with proxied(redis) as proxy, running(proxy.url) as near, running(redis.url) as far:
        log = await near.bus.open("a:1")
        failures: list[Callable[[Proxy], object]] = [Proxy.hang, Proxy.cut, _close]
        for number, fail in enumerate(failures):
            fail(proxy)
            began = trio.current_time()
            outcome = await near.publish("a:1", number, id=f"i{number}")
            assert trio.current_time() - began < DEADLINE
            assert is_refused(outcome) or fail is Proxy.cut
            await far.publish("a:1", f"far {number}")
            proxy.is_closed = False
            proxy.release()
            await publish_until_kept(near, "a:1", number, f"i{number}")
            await until(lambda heads=2 * number + 2: log.head == heads)  # type: ignore[misc]
        assert sorted(map(str, data_of(log))) == ["0", "1", "2", "far 0", "far 1", "far 2"]
        assert near.told == [("a:1", n) for n in range(1, 7)]


def _close(proxy: Proxy) -> None:
    proxy.is_closed = True
    proxy.cut()


async def test_full(redis: Redis) -> None:
    """A Redis that is full refuses: nothing is acknowledged that is not kept, reading goes on."""
    async with running(redis.url) as one:
        log = await one.bus.open("a:1")
        await one.publish("a:1", "x")
        redis.run("CONFIG", "SET", "maxmemory", "1")
        assert is_refused(refused := await one.publish("a:1", "y", id="i"))
        assert "OOM" in str(refused)
        assert is_refused(await one.publish("a:new", "y", id="i"))
        with pytest.raises(RequestError, match="OOM"):
            await one.bus.open("a:other")
        assert await one.kept("a:1") == {1: "x"}
        redis.run("CONFIG", "SET", "maxmemory", "0")
        await publish_until_kept(one, "a:1", "y", "i")
        assert data_of(log) == ["x", "y"]


async def test_replica(redis: Redis) -> None:
    """A Redis that has become a replica refuses, and is used again when it is none."""
    async with running(redis.url) as one:
        await one.publish("a:1", "x")
        log = await one.bus.open("a:1")
        redis.run("REPLICAOF", "127.0.0.1", "1")
        assert is_refused(refused := await one.publish("a:1", "y", id="i"))
        assert "READONLY" in str(refused) or "read only" in str(refused)
        assert data_of(log) == ["x"]
        redis.run("REPLICAOF", "NO", "ONE")
        await publish_until_kept(one, "a:1", "y", "i")
        await until(lambda: log.head == 2)


async def test_scripts_are_gone(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Scripts that somebody removed are loaded again."""
    async with running(redis.url) as one:
        log = await one.bus.open("a:1")
        redis.run("SCRIPT", "FLUSH")
        await publish_until_kept(one, "a:1", "x", "i")
        await until(lambda: log.head == 1)
        assert "its scripts are gone" in caplog.text


async def test_reply_of_another_command(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """An error that belongs to no command takes no reply's place: all are asked again."""
    async with running(redis.url) as one:
        receipts: list[Receipt] = []
        while "did not match" not in caplog.text:  # it may come before the commands are sent
            if (connection := one.link._connection) is not None and connection.usable:
                connection.send_command(b"SUBSCRIBE")  # wrong: an error, as a command would have
            ids = [f"i{len(receipts) + n}" for n in range(4)]
            outcomes = [one.submit("a:1", id, id=id) for id in ids]
            await until(partial(all, outcomes))
            receipts += [await publish_until_kept(one, "a:1", id, id) for id in ids]
        assert [r.offset for r in receipts] == list(range(1, len(receipts) + 1))
        kept = await one.kept("a:1")
        assert list(kept.values()) == [f"i{n}" for n in range(len(receipts))]


async def test_queue_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may wait is refused at once, with a time to come back."""
    monkeypatch.setattr(engine, "QUEUE_BYTES", 4_100_000)
    async with running(redis.url) as one:
        await one.publish("a:1", 0)
        big = "x" * 1_000_000
        outcomes = [one.submit("a:1", big) for _ in range(9)]
        refused = [o for (o,) in filter(None, outcomes)]
        assert refused
        assert all(is_refused(outcome) for outcome in refused)
        assert "does not keep up" in str(refused[0])
        await until(lambda: all(outcomes))
        assert len(outcomes) - len(refused) == 4


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@127.0.0.1:1/0", "127.0.0.1:1 cannot be used"),
        ("redis://ann:secret@127.0.0.1:{port}/0", "invalid username-password"),
        ("redis://127.0.0.1:{port}/99", "out of range"),
        ("rediss://127.0.0.1:{port}/0", "cannot be used"),
        ("redis://no.such.host.invalid/0", "no.such.host.invalid:6379 cannot be used"),
    ],
)
async def test_start_without_redis(redis: Redis, url: str, said: str) -> None:
    """A server does not start without: it says where Redis should be, and no password."""
    with trio.fail_after(30), pytest.raises(ConfigError) as raised:
        async with running(url.format(port=redis.port)):
            raise AssertionError
    assert said in str(raised.value)
    assert "set store to another" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_start_with_a_redis_that_hangs(redis: Redis, tmp_path: Path) -> None:
    """A server gives up waiting for a Redis that takes the connection and says nothing."""
    redis.send(signal.SIGSTOP)
    with trio.fail_after(30), pytest.raises(ConfigError, match="cannot be used"):
        async with running(redis.url):
            raise AssertionError
    redis.send(signal.SIGCONT)
