"""The whole: messages through Redis to the nodes, and viewers who come back from dead ones.

No node waits for another, and when viewers come back is their own choice. So Redis is modelled
first, then one node after the other: no queue of events for all of them is needed.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

import attrs

from benchmarks.fanout.costs import Costs
from benchmarks.fanout.histogram import Histogram
from benchmarks.fanout.node import News, Node, Opening
from benchmarks.fanout.shape import Groups, Shape
from benchmarks.fanout.store import Redis
from triows.outbox import BACKOFF_MIN


@attrs.frozen
class Outcome:
    """What came of it.

    Attributes:
        messages: published.
        expected: deliveries that there should be: viewers of each message, added up.
        latencies: from publishing to a viewer's network, of each delivery to who is connected.
        recovered: of what viewers missed, and got when they were back.
        redis: part of its time the busiest Redis worked; 1 and more is too much.
        commands: a second, of all Redis, looks included.
        looks: the same, looks only.
        copies: messages told to nodes, a second.
        processor, network: the same of the busiest nodes that lived.
        lost: viewers whose node died.
        returned: those of them that were served again.
        back: seconds from the death until the last one was served again.
    """

    messages: int
    expected: int
    latencies: Histogram
    recovered: Histogram
    redis: float
    commands: float
    looks: float
    copies: float
    processor: float
    network: float
    lost: int
    returned: int
    back: float


class _Return(NamedTuple):
    """A viewer that comes back: when it tries, at which node, for what, and where it was."""

    at: float
    node: int
    channel: int
    origin: int


class Model:
    """One run.

    Args:
        costs: of everything.
        shape: what is modelled.
        seed: the same gives the same.
    """

    def __init__(self, costs: Costs, shape: Shape, seed: int = 1) -> None:
        self._costs = costs
        self._shape = shape
        self._chance = random.Random(seed)
        self._groups: Groups = shape.deal()
        self._messages = shape.messages(self._chance)
        self._published: dict[int, list[float]] = defaultdict(list)
        for at, channel in self._messages:
            self._published[channel].append(at)
        self._dead = range(shape.failing if shape.fail_at is not None else 0)
        self._latencies, self._recovered = Histogram(), Histogram()
        self._returns = sorted(self._choose())
        self._looks = sum(map(len, self._groups)) / costs.look_interval
        flow = self._looks / shape.redises
        self._redises = [Redis(costs, flow) for _ in range(shape.redises)]
        self._news: list[list[News]] = [[] for _ in self._groups]
        self._looked: dict[tuple[int, int], tuple[int, float]] = {}

    def _choose(self) -> Iterator[_Return]:
        """Have the viewers of dead nodes choose when and where they come back."""
        shape, chance = self._shape, self._chance
        for origin in self._dead:
            for channel, count in self._groups[origin].items():
                for _ in range(count):
                    wait = BACKOFF_MIN + chance.uniform(0, BACKOFF_MIN)  # the first attempt
                    node = chance.randrange(shape.failing, shape.nodes)
                    assert shape.fail_at is not None
                    yield _Return(shape.fail_at + wait, node, channel, origin)

    def run(self) -> Outcome:
        """Run it; once."""
        self._tell()
        nodes = [
            Node(self._costs, group, self._published, self._latencies, self._recovered)
            for group in self._groups
        ]
        for number in self._dead:
            nodes[number].run(self._news[number], until=self._shape.fail_at or 0.0)
        openings = self._openings([nodes[number].flushed for number in self._dead])
        living = range(len(self._dead), len(nodes))
        for number in living:
            nodes[number].run(self._news[number], sorted(openings[number]))
        return self._conclude([nodes[number] for number in living])

    def _tell(self) -> None:
        """Have Redis tell every message to the nodes that listen just then."""
        listeners: dict[int, list[int]] = defaultdict(list)
        for node, group in enumerate(self._groups):
            for channel in group:
                listeners[channel].append(node)
        returns = deque(self._returns)
        alive, counts = not self._dead, dict[int, int]()
        delay = self._costs.publish + 2 * self._costs.hop
        for at, channel in self._messages:
            if not alive and at > (self._shape.fail_at or 0.0):
                alive = True  # those that are left
                for nodes in listeners.values():
                    nodes[:] = [node for node in nodes if node not in self._dead]
            while returns and returns[0].at <= at:
                self._look(returns.popleft(), listeners, counts)
            nodes = listeners[channel]
            done = self._redis(channel).publish(at, len(nodes)) + delay
            number = counts[channel] = counts.get(channel, -1) + 1
            news = News(done, channel, number)
            for node in nodes:
                self._news[node].append(news)
        for found in returns:
            self._look(found, listeners, counts)
        if len(self._redises) > 1:
            for told in self._news:
                told.sort()

    def _look(
        self, found: _Return, listeners: dict[int, list[int]], counts: dict[int, int]
    ) -> None:
        """Have a node begin to listen, if it does not already."""
        _, node, channel, _ = found
        if channel in self._groups[node] or (node, channel) in self._looked:
            return
        done = self._redis(channel).look(found.at) + 2 * self._costs.hop
        self._looked[node, channel] = counts.get(channel, -1), done
        listeners[channel].append(node)

    def _redis(self, channel: int) -> Redis:
        return self._redises[channel % len(self._redises)]

    def _openings(self, flushed: list[dict[int, int]]) -> list[list[Opening]]:
        """Return for each node who comes, and what they lack."""
        openings: list[list[Opening]] = [[] for _ in self._groups]
        for at, node, channel, origin in self._returns:
            known, done = self._looked.get((node, channel), (-1, at))
            lacks = flushed[origin].get(channel, -1) + 1
            openings[node].append(Opening(max(at, done), channel, lacks, known))
        return openings

    def _conclude(self, nodes: list[Node]) -> Outcome:
        shape, costs = self._shape, self._costs
        popularity = shape.popularity()
        seconds = shape.seconds
        # What costs every node the same is added here: it is not what queues are made of.
        shared = len(self._messages) * costs.publish / shape.nodes / seconds
        shared += self._looks / shape.nodes * costs.hear
        return Outcome(
            messages=len(self._messages),
            expected=sum(popularity[channel] for _, channel in self._messages),
            latencies=self._latencies,
            recovered=self._recovered,
            redis=max(redis.busy for redis in self._redises) / seconds,
            commands=len(self._messages) / seconds + self._looks,
            looks=self._looks,
            copies=sum(redis.told for redis in self._redises) / seconds,
            processor=max(node.busy for node in nodes) / seconds + shared,
            network=max(node.sent for node in nodes) * 8 / costs.nic / seconds,
            lost=len(self._returns),
            returned=sum(node.opened for node in nodes),
            back=max(0.0, max(node.back for node in nodes) - (shape.fail_at or 0.0)),
        )
