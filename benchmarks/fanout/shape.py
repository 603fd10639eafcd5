"""What is modelled: how many of everything, and who watches what where."""

from __future__ import annotations

import random
from typing import TypeAlias

import attrs

Groups: TypeAlias = list[dict[int, int]]
"""For each node, how many watch each channel there."""


@attrs.frozen(kw_only=True)
class Shape:
    """A system under load.

    Attributes:
        viewers, nodes, channels: how many; each viewer watches one channel.
        rate: messages a second, of all channels together.
        zipf: exponent of the channels' popularity: 0, all have as many viewers.
        together: so many viewers of a channel are put on one node before the next gets some.
        redises: channels are dealt to so many, the masters of a cluster.
        seconds: for which messages are published.
        fail_at: when nodes die; None, they do not.
        failing: how many nodes die.
    """

    viewers: int
    nodes: int
    channels: int
    rate: float
    zipf: float = 1.0
    together: int = 1
    redises: int = 1
    seconds: float = 3.0
    fail_at: float | None = None
    failing: int = 1

    def __attrs_post_init__(self) -> None:
        for name in ("viewers", "nodes", "channels", "rate", "together", "redises", "seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name):g}")
        if self.fail_at is not None and not 0 <= self.failing < self.nodes:
            raise ValueError(f"{self.failing} of {self.nodes} nodes cannot die: some must be left")

    def popularity(self) -> list[int]:
        """Return how many watch each channel, the most popular first."""
        weights = [1 / rank**self.zipf for rank in range(1, self.channels + 1)]
        scale = self.viewers / sum(weights)
        counts, given, due = [], 0, 0.0
        for weight in weights:
            due += weight * scale
            counts.append(round(due) - given)
            given += counts[-1]
        counts[0] += self.viewers - given
        return counts

    def deal(self) -> Groups:
        """Put the viewers on the nodes, one node after the other: as evenly as a balancer can."""
        groups: Groups = [{} for _ in range(self.nodes)]
        place = 0
        for channel, count in enumerate(self.popularity()):
            left = count
            if self.together == 1 and count >= self.nodes:
                for node in range(self.nodes):
                    groups[node][channel] = count // self.nodes
                left = count % self.nodes
            while left:
                lump = min(left, self.together - place % self.together)
                group = groups[place // self.together % self.nodes]
                group[channel] = group.get(channel, 0) + lump
                place += lump
                left -= lump
        return groups

    def messages(self, chance: random.Random) -> list[tuple[float, int]]:
        """Return when which channel gets a message: at random times, all channels alike."""
        found, at = [], chance.expovariate(self.rate)
        while at < self.seconds:
            found.append((at, chance.randrange(self.channels)))
            at += chance.expovariate(self.rate)
        return found
