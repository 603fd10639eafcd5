"""Which plots there are, for those who draw them and those who show them."""

from __future__ import annotations

import attrs

from benchmarks.process import ROOT
from benchmarks.summary import Results

FOLDER = ROOT / "docs" / "images"


@attrs.frozen
class Picture:
    """A plot.

    Attributes:
        file: its name in `FOLDER`.
        title: what it shows, in words.
        needs: the workloads of which at least one has to be measured.
    """

    file: str
    title: str
    needs: tuple[str, ...]

    def drawn(self, results: Results) -> bool:
        """Whether there is anything to draw."""
        return any(results.get(name) for name in self.needs)


FANOUT = Picture(
    "fanout.svg",
    "Fan-out to 1000 subscribers, deliveries a second",
    ("fanout-1", "fanout-16", "fanout-64"),
)
PUBLISHING = Picture(
    "publishing.svg",
    "Acknowledged publishing over 100 connections, answers a second",
    ("publish-1", "publish-32"),
)
LATENCY = Picture(
    "latency.svg",
    "From publisher to 1000 viewers: p50, p99 and p99.9 in milliseconds",
    ("latency", "latency-common"),
)
SLOPES = Picture(
    "slopes.svg",
    "How a message's cost to the server grows",
    (
        "slope-subscribers",
        "slope-channels",
        "slope-log",
        "slope-subscriptions",
        "slope-idle",
    ),
)

PICTURES = (FANOUT, PUBLISHING, LATENCY, SLOPES)
