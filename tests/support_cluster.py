"""What tests of the Redis engine on a cluster need: one of their own, that can be spoiled."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from _pytest.mark import ParameterSet

from tests.support_ports import free_port
from tests.support_redis import Redis, redis_running, valkey, wait_for
from tests.support_store import MEMORY
from triows.bus.keys import SLOTS, ClusterKeys, slot_of

NODE_TIMEOUT = 2000  # milliseconds after which a node counts as gone
SHARES = (range(5461), range(5461, 10923), range(10923, SLOTS))

_KEYS = ClusterKeys("triows")


def slot(channel: str) -> int:
    """Return the slot of a channel."""
    return slot_of(_KEYS.news(channel))


class RedisCluster:
    """A cluster of our own, on the loopback.

    Attributes:
        masters: three, each with a third of the slots.
        replicas: one of each master, or none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        replicas: bool = False,
        program: str = "redis-server",
        tls: tuple[str, ...] = (),
    ) -> None:
        self._program = program
        self._tls = tls
        self._ports: dict[int, tuple[int, int]] = {}  # for clients, by TLS if at all; for nodes
        self.masters = [self._node(directory / f"master{n}") for n in range(3)]
        self.replicas = [self._node(directory / f"replica{n}") for n in range(3 * replicas)]

    def _node(self, directory: Path) -> Redis:
        directory.mkdir()
        bus_port, port = free_port(), free_port()
        tls = ("--tls-cluster", "yes", "--tls-port", str(port), *self._tls) if self._tls else ()
        node = Redis(
            directory,
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT)),
            *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
            *("--cluster-port", str(bus_port), "--repl-diskless-sync-delay", "0"),
            *tls,
            program=self._program,
        )
        self._ports[node.port] = (port if self._tls else node.port, bus_port)
        return node

    @property
    def nodes(self) -> list[Redis]:
        """All nodes."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """What the setting `store` has to say."""
        places = ",".join(f"127.0.0.1:{self._ports[node.port][0]}" for node in self.masters)
        return f"redis{'s' if self._tls else ''}+cluster://{places}"

    def start(self) -> None:
        """Start it, and wait until it is one."""
        for node in self.nodes:
            node.start()
        for number, (node, share) in enumerate(zip(self.masters, SHARES, strict=True), 1):
            node.run("CLUSTER", "ADDSLOTSRANGE", share[0], share[-1])
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number)
        wait_for(self._have_met, "the nodes do not meet")
        for master, replica in zip(self.masters, self.replicas, strict=False):
            name = master.run("CLUSTER", "MYID")
            assert replica.run("CLUSTER", "REPLICATE", name) == "OK"
        wait_for(lambda: all(map(_is_ready, self.nodes)), "the cluster does not get ready")
        wait_for(
            lambda: all("link_status:up" in r.run("INFO") for r in self.replicas),
            "a replica has no copy",
        )

    def _have_met(self) -> bool:
        """Have the first node meet those it does not know: at first all, then those that it has
        given up. Return whether all have met all others.
        """
        known = self.masters[0].run("CLUSTER", "NODES")
        for port, bus_port in (self._ports[node.port] for node in self.nodes[1:]):
            if f":{port}@" not in known:
                self.masters[0].run("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        return all(self._has_met_all(node) for node in self.nodes)

    def _has_met_all(self, node: Redis) -> bool:
        known = node.run("CLUSTER", "NODES")  # some of them maybe not by their names yet
        return len(known.splitlines()) == len(self.nodes) and "handshake" not in known

    def kill(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.kill()

    def key(self, channel: str, what: str) -> str:
        """Return the name of a key of a channel."""
        return _KEYS._name(channel, what).decode()

    def index(self, channel: str) -> str:
        """Return the name of the index that a channel is in."""
        return _KEYS.all(channel)[-1].decode()

    def heard(self, channel: str) -> bool:
        """Whether anybody listens to a channel."""
        name = _KEYS.news(channel).decode()
        return self.master_of(channel).run("PUBSUB", "SHARDNUMSUB", name).endswith("1")

    def servers(self) -> int:
        """How many servers hear what is asked of all."""
        name = _KEYS.control.decode()
        said = self._owner(slot_of(_KEYS.control)).run("PUBSUB", "SHARDNUMSUB", name)
        return int(said.split()[-1])

    def is_overheard(self) -> bool:
        """Whether anybody listens to more than channels that are named."""
        name = "triows:{*}:news"
        return any(master.run("PUBSUB", "SHARDCHANNELS", name) for master in self.masters)

    def master_of(self, channel: str) -> Redis:
        """Return the master that has the slot of a channel, as far as the first one knows."""
        return self._owner(slot(channel))

    def _owner(self, wanted: int) -> Redis:
        for line in self.masters[0].run("CLUSTER", "NODES").splitlines():
            _, place, _, _, _, _, _, _, *shares = line.split(" ")
            for first, _, last in (s.partition("-") for s in shares if not s.startswith("[")):
                if int(first) <= wanted <= int(last or first):
                    port = int(place.partition("@")[0].rpartition(":")[2])
                    return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"no master has slot {wanted}")

    def run(self, *words: str | int) -> str:
        """Run one command where its key is, or on all masters if it has none."""
        if words[0] in ("FLUSHALL", "SCRIPT", "CLIENT"):
            return "\n".join(master.run(*words) for master in self.masters)
        return self.masters[0].run("-c", *words)

    def move(self, channel: str, target: Redis, *, keys: int = 10) -> None:
        """Move the slot of a channel to another master, as `redis-cli --cluster reshard` does."""
        source, number = self.master_of(channel), slot(channel)
        ids = [node.run("CLUSTER", "MYID") for node in (source, target)]
        target.run("CLUSTER", "SETSLOT", number, "IMPORTING", ids[0])
        source.run("CLUSTER", "SETSLOT", number, "MIGRATING", ids[1])
        while names := source.run("CLUSTER", "GETKEYSINSLOT", number, keys).split():
            source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
        for node in (target, source, *(m for m in self.masters if m not in (source, target))):
            node.run("CLUSTER", "SETSLOT", number, "NODE", ids[1])


AnyRedis: TypeAlias = Redis | RedisCluster


def _is_ready(node: Redis) -> bool:
    """Whether a node serves, and knows who has which slot."""
    said = node.run("CLUSTER", "INFO")
    return "cluster_state:ok" in said and f"cluster_slots_assigned:{SLOTS}" in said


@contextmanager
def started(**options: Any) -> Iterator[RedisCluster]:
    """Run a cluster. It does not wait for a disk: its files only have to survive a process."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        cluster = RedisCluster(Path(place), **options)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()


@pytest.fixture(scope="module")
def lasting_cluster() -> Iterator[RedisCluster]:
    """A cluster for several tests, none of which spoils it."""
    with started() as cluster:
        yield cluster


def _slow(name: str) -> ParameterSet:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(params=["redis", _slow("valkey"), _slow("cluster")])
def any_redis(request: pytest.FixtureRequest) -> Iterator[AnyRedis]:
    """All that the engine runs on, one after the other; empty."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("lasting_cluster")
        cluster.run("FLUSHALL")
        yield cluster
        return
    program = valkey() if request.param == "valkey" else "redis-server"
    with redis_running(program=program) as server:
        yield server


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    """A cluster that may be spoiled."""
    with started() as cluster:
        yield cluster


@pytest.fixture
def replicated() -> Iterator[RedisCluster]:
    """A cluster whose masters have a replica each."""
    with started(replicas=True) as cluster:
        yield cluster
