"""`python -m benchmarks.floor`: how much of its figures Python, Trio and the kernel leave triows.

The same work is done by a server on Trio that does nothing: no frames, no heads, no tokens, no
JSON; `benchmarks/servers/floor_server.py`. What it takes, no server of this shape can save.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import attrs

from benchmarks.candidates import Bare, Candidate, Triows
from benchmarks.plan import Effort, Workload
from benchmarks.process import prepare
from benchmarks.summary import show
from benchmarks.workloads import WORKLOADS

WORK = ("fanout-1", "fanout-16", "fanout-64", "publish-1", "publish-32", "storm", "idle-memory")


class Floor(Bare):
    """The server that does nothing, on Trio."""

    name = "floor"
    packages: tuple[str, ...] = ("trio",)
    module = "floor_server"


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each workload")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured in each")
    arguments = parser.parse_args()
    prepare()
    effort = attrs.evolve(Effort(), seconds=arguments.seconds)
    print(
        "| workload | unit | the floor | triows | as a part |\n| --- | --- | ---: | ---: | ---: |"
    )
    for workload in WORKLOADS:
        if workload.name in WORK:
            print(compare(workload, effort, arguments.rounds), flush=True)
    return 0


def compare(workload: Workload, effort: Effort, rounds: int) -> str:
    """Return the line of a workload: medians of several rounds, in turns."""
    candidates: tuple[Candidate, Candidate] = (Floor(), Triows())
    row, found = workload.rows[0], {candidate.name: list[float]() for candidate in candidates}
    for number in range(rounds):
        for candidate in candidates[:: -1 if number % 2 else 1]:
            found[candidate.name].append(workload.run(candidate, effort)[row.figure])
    floor, ours = median(found["floor"]), median(found["triows"])
    part = floor / ours if row.less else ours / floor
    return f"| {row.name} | {row.unit} | {show(floor)} | {show(ours)} | {part:.2f} |"


if __name__ == "__main__":
    sys.exit(main())
