"""Figures that nobody measured, of all workloads and many candidates."""

from __future__ import annotations

from typing import Any

from benchmarks.plan import Figures, Row
from benchmarks.summary import Results
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.growth import point_name

CANDIDATES = ("triows", "websockets", "websockets-trio", "ws", "bun", "socket.io", "nats", "nchan")


def made_up(candidates: tuple[str, ...] = CANDIDATES, rounds: int = 3) -> dict[str, Any]:
    """Return what the JSON of a run would hold; each candidate is a third slower than the last."""
    results: Results = {}
    for workload in WORKLOADS:
        names = candidates if workload.rivals else candidates[:1]
        results[workload.name] = {
            name: [_figures(workload.rows, place, number) for number in range(rounds)]
            for place, name in enumerate(names)
        }
    return {
        "environment": {
            "at": "2026-01-02T03:04:05Z",
            "processor": "Abacus",
            "cores": 2,
            "system": "Linux",
            "python": "3.11.7",
            "versions": {"triows": "0.1.0"},
            "commit": "0123456789abcdef",
            "changed": False,
        },
        "rounds": rounds,
        "ceiling": {"fanout-1": 400_000.0},
        "results": results,
        "skipped": ["recovery of ws is left out: it keeps no messages to resume from"],
    }


def _figures(rows: tuple[Row, ...], place: int, number: int) -> Figures:
    """Return the figures of one round; later rounds are a little worse."""
    worse = 1.5**place * (1 + number / 20)
    slow = {"p50": 6.0, "p99": 14.0, "p99.9": 20.0}
    figures: Figures = {"generator_busy": 0.5}
    for row in rows:
        if row.unit == "slope":
            figures[row.figure] = 0.1
            for power in range(4):
                figures[point_name("processor", 10**power)] = 50 * 10 ** (
                    power * len(row.name) / 20
                )
        else:
            figures[row.figure] = slow.get(row.figure, 2.0) * worse if row.less else 300_000 / worse
    return figures
