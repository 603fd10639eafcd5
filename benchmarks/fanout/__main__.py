"""`python -m benchmarks.fanout`: a plan for a million viewers, and a model of its fan-out.

Everything follows from the committed figures of docs/benchmarks.json and from assumptions that
are listed with them. Nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from benchmarks.fanout import check, costs, plan
from benchmarks.fanout.model import Model, Outcome
from benchmarks.fanout.shape import Shape
from benchmarks.process import ROOT
from benchmarks.tables import FIGURES, markdown

DOCUMENT = ROOT / "docs" / "scale.md"
END = "<!-- end of the table -->"
SIZES = ["10,000 viewers", "100,000", "1,000,000", "the same, 100 of a channel on one node"]
COLUMNS = [
    "viewers, nodes",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "Redis",
    "busiest node",
    "its network",
    "all back, s",
    "missed, p99, s",
]


def scenarios() -> list[tuple[str, Shape]]:
    """Return what is modelled, each with its name."""
    small = plan.preset(10_000, 12.0, nodes=4)
    middle, large = plan.preset(100_000, 3.0), plan.preset(1_000_000, 1.2)
    sharded = attrs.evolve(large, redises=4)
    together = attrs.evolve(large, together=plan.PER_CHANNEL)
    return [
        ("10,000 on 4", small),
        ("a node dies", attrs.evolve(small, fail_at=1.0)),
        ("100,000 on 20", middle),
        ("a node dies", attrs.evolve(middle, fail_at=0.5)),
        ("1,000,000 on 200", large),
        ("the same over a cluster of 4 masters", sharded),
        ("a node dies", attrs.evolve(sharded, fail_at=0.2)),
        ("1,000,000 on 200, 100 of a channel on one", together),
        ("40 nodes die", attrs.evolve(together, fail_at=0.2, failing=40)),
    ]


def row(name: str, outcome: Outcome) -> list[str]:
    """Return an outcome as a line."""
    times = [f"{outcome.latencies.percentile(p) * 1e3:,.1f}" for p in (50, 99, 99.9)]
    back = f"{outcome.back:.1f}" if outcome.lost else "–"
    missed = f"{outcome.recovered.percentile(99):.1f}" if outcome.recovered.count else "–"
    parts = [f"{outcome.redis:.0%}", f"{outcome.processor:.0%}", f"{outcome.network:.1%}"]
    return [name, *times, *parts, back, missed]


def _table(head: list[str], rows: list[list[str]], words: int = 1) -> str:
    """Return a table; all but the first `words` columns are figures."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return markdown([head, rule, *rows])


def tables(seed: int) -> dict[str, Callable[[], str]]:
    """Return what makes each table, by name."""
    measured = costs.Measured.read()
    known = measured.costs()
    checked = ["work", "measured", "model", "error", "known to the model"]

    def simulate() -> str:
        found = [row(name, Model(known, shape, seed).run()) for name, shape in scenarios()]
        return _table(COLUMNS, found)

    return {
        "costs": lambda: (
            _table(["what", "value", "where it is from"], costs.rows(known), 3)
            + f"\n\nMeasured figures are of commit {measured.commit[:10]}."
        ),
        "check": lambda: _table(checked, check.rows(measured)),
        "plan": lambda: _table(["", *SIZES], plan.rows(known)),
        "limits": lambda: _table(
            ["what gives out", f"at {plan.FULL:.0%}: viewers", "at 100%"], plan.limits(known)
        ),
        "run": simulate,
    }


def put(text: str, name: str, table: str) -> str:
    """Return a document with another table of that name.

    Raises:
        ValueError: it has no place for it.
    """
    begin = f"<!-- `python -m benchmarks.fanout {name}` -->\n"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the document lacks the lines {begin.strip()} and {END}")
    return f"{before}{begin}\n{table}\n\n{END}{after}"


def main(arguments: list[str] | None = None, document: Path = DOCUMENT) -> int:
    """Print what was asked for, or write it into the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("table", nargs="*", help="costs, check, plan, limits, run; default all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write them into docs/scale.md")
    options = parser.parse_args(arguments)
    try:
        makers = tables(options.seed)
    except ValueError as error:
        parser.error(f"{FIGURES.relative_to(ROOT)}: {error}")
    names = options.table or list(makers)
    if unknown := set(names) - set(makers):
        parser.error(f"no table {min(unknown)!r}; there are {', '.join(makers)}")
    for name in names:
        table = makers[name]()
        if options.write:
            document.write_text(put(document.read_text(), name, table))
        else:
            print(f"{name}\n\n{table}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
