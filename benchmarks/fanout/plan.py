"""The plan: nodes, memory, network and Redis for so many viewers, by multiplication alone."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from benchmarks.fanout.costs import Costs
from benchmarks.fanout.shape import Shape

TAKEOVER = 15.0  # assumed: seconds until a replica is the primary
RECONNECT = 2.0  # seconds between two attempts of a node, at most: `link._MOST_DELAY`
DRAINED = 200  # viewers a draining server sends back each second
TOTAL_BYTES = 512 * 2**20  # of a node's logs: `log.total_bytes`
FULL = 0.6  # part of its time a Redis should work at most: half, and some for what bursts
PER_NODE = 5000
PER_CHANNEL = 100


def preset(viewers: int, seconds: float = 3.0, nodes: int | None = None) -> Shape:
    """Return the usual system of that size: each channel has a message a second."""
    return Shape(
        viewers=viewers,
        nodes=nodes or max(1, viewers // PER_NODE),
        channels=viewers // PER_CHANNEL,
        rate=viewers / PER_CHANNEL,
        seconds=seconds,
    )


@attrs.frozen
class Plan:
    """What a system of one shape needs.

    Attributes:
        shape, costs: of what.
        listening: of all nodes, the channels each listens to, added up.
    """

    shape: Shape
    costs: Costs
    listening: int

    @classmethod
    def of(cls, shape: Shape, costs: Costs) -> Plan:
        """Count who listens."""
        lumps = (-(-count // shape.together) for count in shape.popularity())
        return cls(shape, costs, sum(min(shape.nodes, lump) for lump in lumps))

    @property
    def told(self) -> float:
        """Nodes that are told of a message, on the average."""
        return self.listening / self.shape.channels

    @property
    def copies(self) -> float:
        """Messages that Redis tells nodes, a second."""
        return self.shape.rate * self.told

    @property
    def looks(self) -> float:
        """Looks a second."""
        return self.listening / self.costs.look_interval

    @property
    def redis(self) -> float:
        """Processors' time of all Redis, a second."""
        costs = self.costs
        told = self.copies * costs.copy + self.looks * costs.look
        return self.shape.rate * costs.script + told

    @property
    def redis_bits(self) -> float:
        """Bits a second from Redis to the nodes."""
        return self.copies * self.costs.news * 8

    @property
    def deliveries(self) -> float:
        """Messages that viewers get, a second."""
        return self.shape.rate * self.shape.viewers / self.shape.channels

    @property
    def viewer_bits(self) -> float:
        """Bits a second to all viewers."""
        return self.deliveries * (self.costs.frame + self.costs.header) * 8

    @property
    def node(self) -> float:
        """Part of its time a node works, on the average."""
        costs, nodes = self.costs, self.shape.nodes
        heard = (self.copies + self.looks) * costs.hear + self.shape.rate * costs.publish
        return (self.deliveries * (costs.send + costs.message) + heard) / nodes

    @property
    def memory(self) -> float:
        """Bytes of all connections."""
        return self.shape.viewers * self.costs.idle * 1024

    @property
    def opening(self) -> float:
        """Seconds until everybody is there, if all come at once: openings, or looks."""
        openings = self.shape.viewers / self.shape.nodes * self.costs.opening
        return max(openings, self._all_looks)

    @property
    def _all_looks(self) -> float:
        """Seconds it takes Redis to say of each channel to each node how it stands."""
        return self.listening * self.costs.look / self.shape.redises

    @property
    def back(self) -> float:
        """Seconds until a dead node's viewers are back: who waits longest, then the openings."""
        lost = self.shape.viewers / self.shape.nodes
        return 1.0 + lost / (self.shape.nodes - 1) * self.costs.opening

    @property
    def failover(self) -> float:
        """Seconds from losing Redis until every node has caught up."""
        return TAKEOVER + RECONNECT + self._all_looks


ROWS: dict[str, Callable[[Plan], str]] = {
    "nodes (processes with a core each)": lambda plan: f"{plan.shape.nodes:,}",
    "channels, with a message a second each": lambda plan: f"{plan.shape.channels:,}",
    "deliveries/s": lambda plan: f"{plan.deliveries:,.0f}",
    "a node's core, on the average": lambda plan: f"{plan.node:.0%}",
    "memory of connections, GiB": lambda plan: f"{plan.memory / 2**30:,.1f}",
    "memory of logs at most, GiB": lambda plan: f"{plan.shape.nodes * TOTAL_BYTES / 2**30:,.1f}",
    "network to viewers, Gbit/s": lambda plan: f"{plan.viewer_bits / 1e9:,.2f}",
    "nodes told of a message": lambda plan: f"{plan.told:,.1f}",
    "messages told to nodes/s": lambda plan: f"{plan.copies:,.0f}",
    "network from Redis, Gbit/s": lambda plan: f"{plan.redis_bits / 1e9:,.2f}",
    "Redis: publishes/s": lambda plan: f"{plan.shape.rate:,.0f}",
    "Redis: looks/s": lambda plan: f"{plan.looks:,.0f}",
    "Redis: cores": lambda plan: f"{plan.redis:.2f}",
    f"Redis needed, each at {FULL:.0%}": lambda plan: f"{-(-plan.redis // FULL):.0f}",
    "everybody comes at once, s": lambda plan: f"{plan.opening:,.1f}",
    "a node dies: all back after, s": lambda plan: f"{plan.back:,.1f}",
    "a node drains: all gone after, s": lambda plan: (
        f"{plan.shape.viewers / plan.shape.nodes / DRAINED:,.1f}"
    ),
    "Redis is replaced: all caught up after, s": lambda plan: f"{plan.failover:,.1f}",
}


def rows(costs: Costs) -> list[list[str]]:
    """Return the plan: a line for each figure, a column for each size."""
    shapes = [preset(10_000, nodes=4), preset(100_000), preset(1_000_000)]
    shapes.append(attrs.evolve(shapes[-1], together=PER_CHANNEL))
    plans = [Plan.of(shape, costs) for shape in shapes]
    return [[title, *map(show, plans)] for title, show in ROWS.items()]


def limits(costs: Costs) -> list[list[str]]:
    """Return what gives out at how many viewers, and what they are with a remedy."""
    rarely = attrs.evolve(costs, look_interval=60.0)
    dear = attrs.evolve(costs, script=costs.script * 2, copy=costs.copy * 2, look=costs.look * 2)
    core, wire = (lambda plan: plan.redis), (lambda plan: plan.redis_bits / costs.redis_nic)
    kinds: list[tuple[str, Costs, int, Callable[[Plan], float]]] = [
        ("one Redis' core", costs, 1, core),
        ("one Redis' core, if all it does costs twice what is assumed", dear, 1, core),
        ("one Redis' core, with a look a minute", rarely, 1, core),
        ("one Redis' core, with 100 viewers of a channel on one node", costs, PER_CHANNEL, core),
        ("one Redis' core, with both", rarely, PER_CHANNEL, core),
        ("one Redis' network", costs, 1, wire),
    ]
    return [
        [name, *(f"{most(some, together, of, bound):,}" for bound in (FULL, 1.0))]
        for name, some, together, of in kinds
    ]


def most(costs: Costs, together: int, of: Callable[[Plan], float], bound: float) -> int:
    """Return with how many viewers a part is busy so much, to the nearest 10,000 below."""
    low, high = 1, 1000  # times 10,000
    while low < high:
        middle = (low + high + 1) // 2
        shape = attrs.evolve(preset(middle * 10_000), together=together)
        if of(Plan.of(shape, costs)) <= bound:
            low = middle
        else:
            high = middle - 1
    return low * 10_000
