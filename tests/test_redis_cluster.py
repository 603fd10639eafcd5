"""The engine on a cluster: what is where, and what is where it was not a moment ago."""

from __future__ import annotations

import signal
from binascii import crc_hqx
from collections import Counter
from functools import partial

import pytest
import trio

import triows
from tests.support import Nursery, connect, memory_server
from tests.support_cluster import SHARES, RedisCluster, slot
from tests.support_cluster import cluster as cluster
from tests.support_cluster import lasting_cluster as lasting_cluster
from tests.support_cluster import replicated as replicated
from tests.support_redis import Node, Redis, running, until, wait_for
from tests.support_redis import redis as redis
from triows.bus import cluster as engine
from triows.bus import link
from triows.bus.address import Address
from triows.bus.cluster import Cluster
from triows.bus.keys import BUCKETS, SLOTS, ClusterKeys, slot_of, tags
from triows.bus.topology import OUR_SLOTS, Topology
from triows.errors import ConfigError, ErrorCode, RequestError
from triows.messages import Patterns, Receipt

slow = pytest.mark.slow

CHANNELS = [f"a:{number}" for number in range(12)]  # on all masters
FAILOVER = 60  # seconds for a replica to be elected, which may take several votes


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner than outside of tests."""
    monkeypatch.setattr(link, "_MOST_DELAY", 0.2)
    monkeypatch.setattr(engine, "START_TIMEOUT", 0.5)


class Publisher:
    """Publishes numbered messages to a channel through one node after the other, as a client does:
    with an id, until each is acknowledged.
    """

    def __init__(self, channel: str, nodes: list[Node]) -> None:
        self.channel = channel
        self.receipts: list[Receipt] = []
        self.refused = 0
        self.longest = 0.0  # seconds until an answer
        self.stop = False
        self._nodes = nodes

    async def run(self) -> None:
        """Publish until it is time to stop."""
        while not self.stop:
            number = len(self.receipts)
            began = trio.current_time()
            node = self._nodes[number % len(self._nodes)]
            outcome = await node.publish(self.channel, number, id=f"i{number}")
            self.longest = max(self.longest, trio.current_time() - began)
            if isinstance(outcome, Receipt):
                self.receipts.append(outcome)
                continue
            assert outcome.code is ErrorCode.UNAVAILABLE, outcome
            assert outcome.retry_after is not None
            self.refused += 1
            await trio.sleep(0.02)


async def check_all(publishers: list[Publisher], nodes: list[Node]) -> None:
    """Everything acknowledged is there, once, in its place, and every node was told of it once."""
    for publisher in publishers:
        channel, count = publisher.channel, len(publisher.receipts)
        assert [r.offset for r in publisher.receipts] == list(range(1, count + 1))
        assert len({r.epoch for r in publisher.receipts}) == 1
        for node in nodes:
            assert await node.kept(channel) == dict(enumerate(range(count), 1))
            await until(lambda: node.told.count((channel, count)))  # noqa: B023 at once
            heard = [head for name, head in node.told if name == channel]
            assert heard == list(range(1, count + 1))
    total = sum(len(p.receipts) for p in publishers)
    print(  # noqa: T201 how much was tried is worth knowing
        f"\n{total} messages acknowledged, {sum(p.refused for p in publishers)} refused, "
        f"{max(p.longest for p in publishers):.2f} s to an answer at most; lost 0, doubled 0"
    )


async def watch(nodes: list[Node]) -> None:
    """Have all channels watched on all nodes."""
    for node in nodes:
        for channel in CHANNELS:
            (await node.bus.open(channel)).watchers += 1


def test_address() -> None:
    """What the address of a cluster says; the names of its nodes are enough."""
    full = Address.parse("rediss+cluster://ann:p%40ss@one:7000,[::1]:7001,three?prefix=mine")
    assert full.places == (("one", 7000), ("::1", 7001), ("three", 6379))
    assert (full.username, full.password, full.prefix) == ("ann", "p@ss", "mine")
    assert (full.tls, full.is_cluster, str(full)) == (True, True, "one:7000,[::1]:7001,three:6379")
    assert "p@ss" not in repr(full)
    for wrong in ("redis+cluster://", "redis+cluster://a:1,,b", "redis+cluster://:secret@a:1/3"):
        with pytest.raises(ConfigError, match=r"host\[:port\]…") as raised:
            Address.parse(wrong)
        assert "secret" not in str(raised.value)


def test_buckets_are_dealt_evenly() -> None:
    """Each master has as many buckets as it has of the slots, and each bucket many channels."""
    assert [crc_hqx(tag.encode(), 0) % SLOTS for tag in tags()] == list(OUR_SLOTS)
    assert [sum(slot in share for slot in OUR_SLOTS) for share in SHARES] == [86, 85, 85]
    channels = Counter(slot(f"session:{number}") for number in range(100 * BUCKETS))
    assert len(channels) == BUCKETS
    assert max(channels.values()) < 160


def test_names() -> None:
    """All keys of a channel are in one slot, and what is told says of which channel."""
    keys = ClusterKeys("mine")
    names = [*keys.all("a:1"), keys.news("a:1"), keys.shared_news("a:1")]
    assert len(set(map(slot_of, names))) == 1
    assert len({*names, *keys.all("a:2")}) == len(names) + 5 - (slot("a:1") == slot("a:2"))
    assert keys.heard(keys.news("a:1"), b"x\ny") == ("a:1", b"x\ny")
    assert keys.heard(keys.shared_news("a:1"), b"a:1\nx\ny") == ("a:1", b"x\ny")
    assert keys.all_news(Patterns.parse(("a:1",))) == [keys.news("a:1")]
    assert len(keys.all_news(Patterns.parse(("a:*", "b:*")))) == BUCKETS


def test_topology() -> None:
    """What a node says of the others is read: slots one by one, in ranges, and on their way."""
    text = b"""\
1 :7000@17000 myself,master - 0 0 7 connected 0-99 640 [64->-2]
2 10.0.0.2:7001@17001,two.example,shard-id=x master - 0 0 8 connected 128-200
3 10.0.0.3:7002@17002 slave 1 0 0 7 connected
4 :0@0 master,noaddr - 0 0 2 disconnected 300
"""
    found = Topology.read(text, ("asked", 7000), tls=False)
    assert found.places == [("asked", 7000), ("10.0.0.2", 7001), ("10.0.0.3", 7002)]
    assert [(m.place[1], m.epoch, m.slots) for m in found.masters] == [
        (7000, 7, [0, 64, 640]),
        (7001, 8, [128, 192]),
    ]
    named = Topology.read(text, ("asked", 7000), tls=True)
    assert named.masters[1].place == ("two.example", 7001)
    with pytest.raises(ValueError, match="unpack"):
        Topology.read(b"OK", ("asked", 7000), tls=False)


@slow
async def test_every_master_has_its_part(lasting_cluster: RedisCluster) -> None:
    """Channels are spread, a tick's messages go to each master in one piece, and no node is told
    of what nobody there watches.
    """
    lasting_cluster.run("FLUSHALL")
    async with running(lasting_cluster.url) as one, running(lasting_cluster.url) as idle:
        await idle.bus.open("a:0")
        for number in range(600):
            one.submit(f"a:{number % 60}", number)
        await one.bus.settle()
        assert [data for data, _ in one.answers] == [str(n) for n in range(600)]
        assert all(int(m.run("DBSIZE")) > 20 for m in lasting_cluster.masters)
        assert one.bus.commands < 600 + 20
        assert isinstance(one.bus._link, Cluster)
        assert len(one.bus._link._links) == 3
        await until(lambda: len(idle.told) == 10)
        assert {name for name, _ in idle.told} == {"a:0"}


@slow
async def test_presence_and_revocations_are_shared(
    lasting_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All nodes meet at one master, so that it is known who has heard a question."""
    monkeypatch.setattr("triows.bus.nodes.ANSWER_TIMEOUT", 60.0)
    async with running(lasting_cluster.url) as one, running(lasting_cluster.url) as two:
        two.bus.present_here = lambda _: [{"connection": "theirs"}]
        await two.bus.channels("", "", 1)  # both are there
        assert (await one.bus.present("a:1")).count == 1


@slow
async def test_slots_move_under_load(cluster: RedisCluster) -> None:
    """Slots that move while messages are published to them: nothing is lost, nothing is doubled,
    everybody who watches hears everything once.
    """
    async with running(cluster.url) as one, running(cluster.url) as two:
        nodes = [one, two]
        await watch(nodes)
        publishers = [Publisher(channel, nodes) for channel in CHANNELS]
        async with trio.open_nursery() as nursery:
            for publisher in publishers:
                nursery.start_soon(publisher.run)
            for number, channel in enumerate(CHANNELS[:6]):
                wanted = len(publishers[number].receipts) + 20
                await until(lambda p=publishers[number], n=wanted: len(p.receipts) > n)  # type: ignore[misc]
                target = next(m for m in cluster.masters if m is not cluster.master_of(channel))
                await trio.to_thread.run_sync(partial(cluster.move, channel, target, keys=1))
                wanted = len(publishers[number].receipts) + 20
                await until(lambda p=publishers[number], n=wanted: len(p.receipts) > n)  # type: ignore[misc]
            for publisher in publishers:
                publisher.stop = True
        await check_all(publishers, nodes)
        assert max(p.longest for p in publishers) < 5.5


@slow
async def test_viewers_follow_a_slot(cluster: RedisCluster, nursery: Nursery) -> None:
    """Viewers notice nothing of a slot that moves: neither of its own channel, nor by a pattern."""
    url, moved = cluster.url, "session:1"
    async with memory_server(store=url) as one, memory_server(store=url) as two:
        viewer = await connect(two, nursery)
        await viewer.ask("subscribe", channel=moved, id="s")
        async with two.listen("session:*") as everything, two.listen(moved) as messages:
            for number in range(3):
                target = next(m for m in cluster.masters if m is not cluster.master_of(moved))
                await trio.to_thread.run_sync(cluster.move, moved, target)
                await until(lambda: cluster.heard(moved))
                await one.publish(moved, triows.log(number))
                assert (await viewer.hear())["data"] == number
                for heard in (everything, messages):
                    assert (await anext(heard)).data == number
        nursery.cancel_scope.cancel()


@slow
async def test_slot_on_its_way(cluster: RedisCluster) -> None:
    """While a slot is half here and half there its channels are refused and not torn, all others
    go on; what is heard when it has arrived is all of it.
    """
    async with running(cluster.url) as one, running(cluster.url) as two:
        log = await two.bus.open("a:1")
        assert isinstance(await one.publish("a:1", 1, id="i1"), Receipt)
        source = cluster.master_of("a:1")
        target = next(m for m in cluster.masters if m is not source)
        ids = [node.run("CLUSTER", "MYID") for node in (source, target)]
        target.run("CLUSTER", "SETSLOT", slot("a:1"), "IMPORTING", ids[0])
        source.run("CLUSTER", "SETSLOT", slot("a:1"), "MIGRATING", ids[1])
        key = cluster.key("a:1", "stream")
        source.run("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        refused = await one.publish("a:1", 2, id="i2")
        assert isinstance(refused, RequestError)
        assert refused.code is ErrorCode.UNAVAILABLE
        assert isinstance(await one.publish("a:2", 1), Receipt)
        cluster.move("a:1", target)
        outcome = await one.publish("a:1", 2, id="i2")
        assert isinstance(outcome, Receipt)
        assert outcome.offset == 2
        await until(lambda: log.head == 2)
        assert await two.kept("a:1") == {1: 1, 2: 2}
        assert (one.renewed, two.renewed) == ([], [])


@slow
async def test_master_is_killed(replicated: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica takes the place of a master that is killed: what it had was not lost, viewers go
    on by themselves, and the channels of others were never refused.
    """
    monkeypatch.setattr(engine, "LOOK_INTERVAL", 1.0)
    async with running(replicated.url) as one, running(replicated.url) as two:
        nodes = [one, two]
        await watch(nodes)
        victim = replicated.master_of(CHANNELS[0])
        replica = replicated.replicas[replicated.masters.index(victim)]
        hit = [c for c in CHANNELS if replicated.master_of(c) is victim]
        publishers = [Publisher(channel, nodes) for channel in CHANNELS]
        async with trio.open_nursery() as nursery:
            for publisher in publishers:
                nursery.start_soon(publisher.run)
            await until(lambda: all(len(p.receipts) > 20 for p in publishers))
            victim.run("WAIT", 1, 5000)
            # Until it is killed: what it acknowledges the replica has.
            victim.run("CLIENT", "PAUSE", 60_000, "WRITE")
            await until(lambda: _offset(victim) == _offset(replica))
            victim.kill()
            for publisher in publishers:
                count = len(publisher.receipts) + 20
                await until(lambda p=publisher, n=count: len(p.receipts) > n, seconds=FAILOVER)  # type: ignore[misc]
                publisher.stop = True
        await check_all(publishers, nodes)
        assert max(p.longest for p in publishers) < 5.5
        assert all(p.refused > 0 for p in publishers if p.channel in hit)
        assert [p.refused for p in publishers if p.channel not in hit] == [0] * (12 - len(hit))
        assert (one.renewed, two.renewed) == ([], [])
        assert one.bus.failure is None


@slow
async def test_replica_lacks_some(replicated: RedisCluster) -> None:
    """What the replica that takes over does not have is lost, and that is not kept quiet."""
    async with running(replicated.url) as one, running(replicated.url) as two:
        log = await two.bus.open("a:1")
        victim = replicated.master_of("a:1")
        replica = replicated.replicas[replicated.masters.index(victim)]
        for number in range(5):
            await one.publish("a:1", number)
        victim.run("WAIT", 1, 5000)
        await until(lambda: _offset(victim) == _offset(replica))
        replica.send(signal.SIGSTOP)
        victim.run("CLIENT", "KILL", "TYPE", "replica")
        assert isinstance(await one.publish("a:1", "lost"), Receipt)
        await until(lambda: log.head == 6)
        victim.kill()
        replica.send(signal.SIGCONT)
        publisher = Publisher("a:1", [one])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            await until(lambda: publisher.receipts, seconds=FAILOVER)
            await until(lambda: two.renewed)  # who may be late to see what is lost, and to tell
            await until(lambda: log.epoch == publisher.receipts[-1].epoch)
            publisher.stop = True
        assert list((await two.kept("a:1")).values())[:6] == [*range(5), 0]


@slow
async def test_master_hangs(cluster: RedisCluster) -> None:
    """A master that hangs holds all up once, as answers keep their order; then it alone is refused,
    at once, and is used again when it goes on.
    """
    async with running(cluster.url) as one:
        victim = cluster.master_of(CHANNELS[0])
        other = next(c for c in CHANNELS if cluster.master_of(c) is not victim)
        await one.publish(CHANNELS[0])
        await one.publish(other)
        victim.send(signal.SIGSTOP)
        try:
            began = trio.current_time()
            outcomes = [one.submit(CHANNELS[0], 1, id="i"), one.submit(other, 2)]
            await until(lambda: all(outcomes))
            assert trio.current_time() - began < 5.5
            assert isinstance(outcomes[0][0], RequestError)
            assert isinstance(outcomes[1][0], Receipt)
            began = trio.current_time()
            assert isinstance(await one.publish(CHANNELS[0], 1, id="i"), RequestError)
            assert isinstance(await one.publish(other), Receipt)
            assert trio.current_time() - began < 1
        finally:
            victim.send(signal.SIGCONT)
        publisher = Publisher(CHANNELS[0], [one])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            await until(lambda: publisher.receipts)
            publisher.stop = True


def _offset(node: Redis) -> str:
    """Return up to where a node has what its master said."""
    return next(
        line for line in node.run("INFO", "replication").split() if "master_repl_offset" in line
    )


@slow
async def test_master_without_replica_is_away(cluster: RedisCluster) -> None:
    """Without a replica its channels are refused until it is back, and those of others are not."""
    async with running(cluster.url) as one, running(cluster.url) as two:
        await watch([one, two])
        victim = cluster.master_of(CHANNELS[0])
        hit = {channel for channel in CHANNELS if cluster.master_of(channel) is victim}
        other = next(channel for channel in CHANNELS if channel not in hit)
        victim.kill()
        refused = [await one.publish(CHANNELS[0], n, id=f"i{n}") for n in range(3)]
        assert all(isinstance(outcome, RequestError) and outcome.retry for outcome in refused)
        assert isinstance(await one.publish(other, "goes on"), Receipt)
        assert one.bus.failure is None
        victim.start()
        publisher = Publisher(CHANNELS[0], [one, two])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            await until(lambda: len(publisher.receipts) > 5)
            publisher.stop = True
        log = await two.bus.open(CHANNELS[0])
        await until(lambda: log.head == len(publisher.receipts))
        await until(lambda: hit.issubset(two.renewed))
        assert set(two.renewed) == hit  # it had nothing on disk


@slow
async def test_start_without_cluster(redis: Redis, lasting_cluster: RedisCluster) -> None:
    """What is no cluster, what is one, and what is not there: said, with what to do."""
    place = f"127.0.0.1:{redis.port}"
    member = lasting_cluster.url.removeprefix("redis+cluster://").split(",")[0]
    for store, said in (
        (f"redis+cluster://{place}", f"it is no cluster; a single Redis is redis://{place}"),
        (f"redis://{member}", f"it is part of a cluster, which is redis+cluster://{member}"),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2", "Redis at 127.0.0.1:2 cannot be used"),
    ):
        with trio.fail_after(30), pytest.raises(ConfigError) as raised:
            async with running(store):
                raise AssertionError
        assert said in str(raised.value)
        assert "set store to another" in str(raised.value)
    async with running(f"redis+cluster://127.0.0.1:1,{member}") as node:
        assert isinstance(await node.publish("a:1"), Receipt)


@slow
async def test_start_with_a_cluster_that_is_not_complete(cluster: RedisCluster) -> None:
    """A cluster of which slots are missing is none to start with."""
    masters = (cluster.masters[1], cluster.masters[0], cluster.masters[2])  # whose it was first

    def had_none() -> bool:
        said = [master.run("CLUSTER", "DELSLOTS", 5504) for master in masters]
        return all("already unassigned" in answer for answer in said)

    wait_for(had_none, "a master is told of the slot")  # by what was said before it was taken away
    with trio.fail_after(30), pytest.raises(ConfigError, match="no master has slot 5504"):
        async with running(cluster.url.replace(str(cluster.masters[0].port), "1")):
            raise AssertionError
