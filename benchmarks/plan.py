"""What a benchmark is made of: workloads, their targets, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from benchmarks.candidates import Candidate

Figures: TypeAlias = dict[str, float]
"""What one run found; `value` is what is compared."""


@attrs.frozen
class Effort:
    """How long a run takes.

    Attributes:
        seconds: measured, of the workloads that run for a time.
        messages: published, of those that run for a number.
        hold: seconds for which idle connections are held.
        connections: opened in a storm.
    """

    seconds: float = 3.0
    messages: int = 2000
    hold: float = 20.0
    connections: int = 5000


QUICK = Effort(seconds=1.0, messages=500, hold=5.0, connections=1000)


@attrs.frozen
class Target:
    """What the median has to reach.

    Attributes:
        at_least, at_most: the bound, one of them.
        rival: compare the ratio to this candidate; empty compares the figure itself.
    """

    at_least: float | None = None
    at_most: float | None = None
    rival: str = ""

    def met(self, figure: float) -> bool:
        """Whether `figure` is good enough."""
        if self.at_least is not None and figure < self.at_least:
            return False
        return self.at_most is None or figure <= self.at_most


@attrs.frozen
class Workload:
    """One kind of work.

    Attributes:
        name: as in the report.
        unit: of the figure.
        run: measures one candidate, freshly started.
        target: for the first candidate.
        rounds: at most so many.
        rivals: False has only the first candidate do it.
    """

    name: str
    unit: str
    run: Callable[[Candidate, Effort], Figures]
    target: Target | None = None
    rounds: int = 100
    rivals: bool = True
