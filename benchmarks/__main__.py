"""`python -m benchmarks`: triows and its rivals on the same work, in the same run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import ceiling, report
from benchmarks.candidates import CANDIDATES, Candidate
from benchmarks.load import LoadError
from benchmarks.plan import QUICK, Effort, Workload
from benchmarks.process import prepare
from benchmarks.workloads import WORKLOADS


def main() -> int:
    """Measure, print the table; 1 if a run failed."""
    arguments = _arguments()
    workloads = [w for w in WORKLOADS if not arguments.only or w.name in arguments.only]
    effort = QUICK if arguments.quick else Effort()
    candidates = _installed()
    prepare()
    facts = report.environment(candidates)
    print(report.describe_environment(facts), flush=True)
    limits = ceiling.measure(effort)
    print(report.describe_ceiling(limits), flush=True)
    results: report.Results = {}
    failures: list[str] = []
    for workload in workloads:
        _measure(workload, candidates, effort, arguments.rounds, results, failures)
    print(f"\nMedians of up to {arguments.rounds} rounds (least–most):\n")
    print(report.table(workloads, candidates, results))
    for failure in failures:
        print(f"\nFAILED {_shorten(failure)}")
    if arguments.json:
        report.write_json(
            arguments.json,
            environment=facts,
            rounds=arguments.rounds,
            quick=arguments.quick,
            ceiling=limits,
            results=results,
            failures=failures,
        )
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--only", action="append", choices=names, help="a workload; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload")
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser.parse_args()


def _installed() -> list[Candidate]:
    for candidate in CANDIDATES:
        if not candidate.installed:
            print(f"{candidate.name} is not installed: left out", file=sys.stderr)
    return [candidate for candidate in CANDIDATES if candidate.installed]


def _measure(
    workload: Workload,
    candidates: list[Candidate],
    effort: Effort,
    rounds: int,
    results: report.Results,
    failures: list[str],
) -> None:
    """Run every round of one workload; each round begins with another candidate."""
    taking_part = candidates if workload.rivals else candidates[:1]
    found = results.setdefault(workload.name, {})
    for number in range(min(rounds, workload.rounds)):
        first = number % len(taking_part)
        for candidate in taking_part[first:] + taking_part[:first]:
            began = time.perf_counter()
            try:
                figures = workload.run(candidate, effort)
            except (LoadError, OSError) as error:
                failures.append(f"{workload.name} of {candidate.name}: {error}")
                _progress(f"{workload.name} {candidate.name}: FAILED")
                continue
            found.setdefault(candidate.name, []).append(figures)
            spent = time.perf_counter() - began
            _progress(f"{workload.name} {candidate.name}: {figures['value']:,.2f} ({spent:.1f} s)")


def _shorten(failure: str) -> str:
    """The beginning and the end of it; all of it is in the JSON."""
    first, *others = failure.splitlines()
    return "\n".join((first, *others[-5:]))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
