"""What all rounds say together: medians with their spread, and whether the targets are met."""

from __future__ import annotations

from statistics import median
from typing import Any, TypeAlias

import attrs

from benchmarks.plan import OTHERS, Figures, Row, Target, Workload

Results: TypeAlias = dict[str, dict[str, list[Figures]]]
"""What each run found, by workload and candidate."""


@attrs.frozen
class Spread:
    """The figures of all rounds.

    Attributes:
        median: what is compared.
        least, most: between these all were.
    """

    median: float
    least: float
    most: float


@attrs.frozen
class Verdict:
    """What became of a target.

    Attributes:
        target: the target.
        reached: the figure or ratio, None if it was not measured.
    """

    target: Target
    reached: float | None

    @property
    def met(self) -> bool:
        """Whether it was measured, and is good enough."""
        return self.reached is not None and self.target.met(self.reached)


def spreads(workload: Workload, row: Row, results: Results) -> dict[str, Spread]:
    """Return the figures of a row by candidate, those that were measured."""
    found = results.get(workload.name, {})
    values = {
        name: [run[row.figure] for run in runs if row.figure in run] for name, runs in found.items()
    }
    return {
        name: Spread(median(several), min(several), max(several))
        for name, several in values.items()
        if several
    }


def judge(row: Row, ours: str, found: dict[str, Spread]) -> list[Verdict]:
    """Return what became of the targets of a row.

    Args:
        ours: name of the candidate they are for.
        found: the figures by candidate.
    """
    return [Verdict(target, _reached(row, target, ours, found)) for target in row.targets]


def _reached(row: Row, target: Target, ours: str, found: dict[str, Spread]) -> float | None:
    if ours not in found:
        return None
    figure = found[ours].median
    if not target.rival:
        return figure
    rival = _rival(row, target, ours, found)
    return figure / rival if rival else None


def _rival(row: Row, target: Target, ours: str, found: dict[str, Spread]) -> float | None:
    """Return what the figure is compared with."""
    if target.rival != OTHERS:
        return found[target.rival].median if target.rival in found else None
    named = {ours, *(other.rival for other in row.targets)}
    others = [spread.median for name, spread in found.items() if name not in named]
    return (min if row.less else max)(others, default=None)


def summarize(workloads: list[Workload], results: Results) -> dict[str, Any]:
    """Return medians and spreads by row and candidate, for the JSON."""
    return {
        row.name: {
            name: attrs.asdict(spread) for name, spread in spreads(workload, row, results).items()
        }
        for workload in workloads
        for row in workload.rows
        if workload.name in results
    }


def show(value: float) -> str:
    """Return a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
