"""Redis as a server with a queue: publishing, telling the nodes, looks; then its network."""

from __future__ import annotations

from typing import final

from benchmarks.fanout.costs import Costs


@final
class Redis:
    """One Redis: commands in the order they come, then what it tells, over its network.

    Looks are work that flows in steadily: they are many and cheap.

    Args:
        costs: of commands and copies.
        looks: a second.

    Attributes:
        busy: seconds of processor time, steady looks included.
        told: messages told to nodes.
    """

    def __init__(self, costs: Costs, looks: float) -> None:
        self._costs = costs
        self._flow = looks * costs.look
        self._at = 0.0
        self._work = 0.0  # seconds of it that wait
        self._sending = 0.0  # the same, of the network
        self.busy = 0.0
        self.told = 0

    def run(self, at: float, work: float, sent: float = 0.0) -> float:
        """Do work that comes at `at`; return when it is done.

        Args:
            at: not before that of the last call.
            work: seconds of processor time.
            sent: bytes.
        """
        passed, self._at = at - self._at, at
        self.busy += passed * self._flow + work
        self._work = max(0.0, self._work + passed * (self._flow - 1)) + work
        self._sending = max(0.0, self._sending - passed) + sent * 8 / self._costs.redis_nic
        # While one is written the next is worked on: the slower of both decides.
        return at + max(self._work, self._sending)

    def publish(self, at: float, nodes: int) -> float:
        """Append one message and tell it to so many nodes; return when all are told."""
        self.told += nodes
        costs = self._costs
        return self.run(at, costs.script + nodes * costs.copy, nodes * costs.news)

    def look(self, at: float) -> float:
        """Say how a log stands, to a node that begins to listen and looks again now and then;
        return when that is done.
        """
        self._flow += self._costs.look / self._costs.look_interval
        return self.run(at, self._costs.look)
