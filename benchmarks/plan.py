"""What a benchmark is made of: workloads, their rows and targets, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from benchmarks.candidates import Candidate

Figures: TypeAlias = dict[str, float]
"""What one run found, by name."""

OTHERS = "every other"
"""As a target's rival: the best of those that no other target of its row names."""


@attrs.frozen
class Effort:
    """How long a run takes.

    Attributes:
        seconds: measured, of the workloads that run for a time.
        messages: published, of those that run for a number.
        hold: seconds for which idle connections are held.
        connections: opened in a storm.
    """

    seconds: float = 2.5
    messages: int = 2000
    hold: float = 20.0
    connections: int = 5000


QUICK = Effort(seconds=1.0, messages=500, hold=5.0, connections=1000)


Run: TypeAlias = Callable[[Candidate, Effort], Figures]
"""Measures one candidate, freshly started; raises `Unable` for one that cannot."""


@attrs.frozen
class Target:
    """What the median has to reach.

    Attributes:
        at_least, at_most: the bound, one of them.
        rival: compare the ratio to this candidate, or to the best of `OTHERS`;
            empty compares the figure itself.
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
class Row:
    """One line of the report: a figure of a workload.

    Attributes:
        name: as in the report, and in the ceiling.
        unit: of the figure.
        targets: for the first candidate.
        title: what was done, in words.
        figure: its name among those of a run.
        less: whether less is better.
    """

    name: str
    unit: str
    targets: tuple[Target, ...] = ()
    title: str = ""
    figure: str = "value"
    less: bool = False


@attrs.frozen
class Workload:
    """One kind of work.

    Attributes:
        name: as on the command line.
        run: the work.
        rows: what is reported of it.
        rounds: at most so many.
        rivals: False has only the first candidate do it.
    """

    name: str
    run: Run
    rows: tuple[Row, ...]
    rounds: int = 100
    rivals: bool = True


def single(
    name: str,
    unit: str,
    run: Run,
    *targets: Target,
    title: str,
    less: bool = False,
    rounds: int = 100,
    rivals: bool = True,
) -> Workload:
    """Return a workload of one row, its figure `value`."""
    row = Row(name, unit, targets, title=title, less=less)
    return Workload(name, run, (row,), rounds, rivals)
