"""`python -m benchmarks`: triows and its rivals on the same work, in the same run."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import attrs

from benchmarks import ceiling, report
from benchmarks.candidates import Candidate
from benchmarks.choice import NAMES, among, choose
from benchmarks.load import LoadError, Unable
from benchmarks.pictures import FOLDER
from benchmarks.plan import QUICK, Effort, Workload
from benchmarks.process import ROOT, prepare
from benchmarks.summary import Results, show, summarize
from benchmarks.tables import FIGURES, both
from benchmarks.workloads import WORKLOADS


def main() -> int:
    """Measure, print the table; 1 if a run failed."""
    arguments = _arguments()
    workloads = [w for w in WORKLOADS if not arguments.only or w.name in arguments.only]
    effort = QUICK if arguments.quick else Effort()
    if arguments.seconds:
        effort = attrs.evolve(effort, seconds=arguments.seconds)
    candidates, left_out = choose(arguments.rival)
    for line in left_out:
        _progress(line)
    prepare()
    facts = report.environment(candidates)
    print(report.describe_environment(facts), flush=True)
    limits = ceiling.measure(workloads, effort)
    print(report.describe_ceiling(workloads, limits), flush=True)
    run = Run(effort, arguments.rounds)
    for workload in workloads:
        run.measure(workload, among(workload.name, candidates, arguments.rival))
    print(f"\nMedians of up to {arguments.rounds} rounds (least–most):\n")
    print(both(workloads, run.results, limits))
    for line in [*run.skipped, *(f"FAILED {_shorten(failure)}" for failure in run.failures)]:
        print(f"\n{line}")
    if arguments.record:
        arguments.json = FIGURES
    if arguments.json:
        report.write_json(
            arguments.json,
            environment=facts,
            rounds=arguments.rounds,
            quick=arguments.quick,
            effort=attrs.asdict(effort),
            ceiling=limits,
            summary=summarize(workloads, run.results),
            results=run.results,
            skipped=run.skipped,
            failures=run.failures,
        )
    if arguments.record:
        record()
    return 1 if run.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--only", action="append", choices=names, help="a workload; repeatable")
    parser.add_argument(
        "--rival",
        action="append",
        choices=NAMES,
        default=[],
        help="against this one, in all work; repeatable",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload")
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--seconds", type=float, help="measured in each, where that is a choice")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    parser.add_argument(
        "--record", action="store_true", help="write the JSON, tables and plots of the documents"
    )
    arguments = parser.parse_args()
    if arguments.seconds is not None and arguments.seconds <= 0:
        parser.error(f"--seconds must be more than 0, not {arguments.seconds:g}")
    if arguments.record and arguments.json:
        parser.error(f"--record writes {FIGURES.relative_to(ROOT)}: leave --json out")
    if arguments.record and find_spec("matplotlib") is None:
        parser.error("--record needs the extra bench: pip install -e '.[bench]'")
    return arguments


def record() -> None:
    """Write tables and plots of the JSON."""
    from benchmarks import plots, tables  # plots needs an extra

    tables.write(FIGURES)
    plots.write(FIGURES, FOLDER)


class Run:
    """All that is measured, and what came of it.

    Attributes:
        results: what each run found, by workload and candidate.
        skipped: who could not do what, and why.
        failures: what went wrong.
    """

    def __init__(self, effort: Effort, rounds: int) -> None:
        self.results: Results = {}
        self.skipped: list[str] = []
        self.failures: list[str] = []
        self._effort = effort
        self._rounds = rounds

    def measure(self, workload: Workload, candidates: list[Candidate]) -> None:
        """Run every round of one workload; each round begins with another candidate."""
        taking_part = candidates if workload.rivals else candidates[:1]
        unable: set[str] = set()
        self.results[workload.name] = {}
        for number in range(min(self._rounds, workload.rounds)):
            first = number % len(taking_part)
            for candidate in taking_part[first:] + taking_part[:first]:
                if candidate.name not in unable and not self._run(workload, candidate):
                    unable.add(candidate.name)

    def _run(self, workload: Workload, candidate: Candidate) -> bool:
        """Run it once; return whether it is worth trying again."""
        began = time.perf_counter()
        work = f"{workload.name} of {candidate.name}"
        try:
            figures = workload.run(candidate, self._effort)
        except Unable as why:
            self.skipped.append(f"{work} is left out: {why}")
            _progress(self.skipped[-1])
            return False
        except (LoadError, OSError) as error:
            self.failures.append(f"{work}: {error}")
            _progress(f"{work}: FAILED")
            return True
        self.results[workload.name].setdefault(candidate.name, []).append(figures)
        shown = ", ".join(f"{show(figures[row.figure])} {row.unit}" for row in workload.rows)
        _progress(f"{work}: {shown} ({time.perf_counter() - began:.1f} s)")
        return True


def _shorten(failure: str) -> str:
    """The beginning and the end of it; all of it is in the JSON."""
    first, *others = failure.splitlines()
    return "\n".join((first, *others[-5:]))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
