"""The figures as tables; `python -m benchmarks.tables` writes them into README.md and the docs.

They stand between two markers, and are those of docs/benchmarks.json; a test keeps it so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pictures import PICTURES
from benchmarks.plan import Figures, Row, Target, Workload
from benchmarks.process import ROOT
from benchmarks.report import describe_ceiling, describe_environment
from benchmarks.summary import Results, Spread, Verdict, judge, show, spreads
from benchmarks.workloads import WORKLOADS

OURS = "triows"

FIGURES = ROOT / "docs" / "benchmarks.json"
README = ROOT / "README.md"
DETAILS = ROOT / "docs" / "benchmarks.md"

BEGIN = "<!-- figures: `python -m benchmarks.tables` writes them -->"
END = "<!-- end of the figures -->"

IN_README = (
    "fanout-1",
    "fanout-16",
    "fanout-64",
    "publish-1",
    "publish-32",
    "latency-p50",
    "latency-p99",
    "latency-stalled",
    "stalled",
    "recovery",
    "storm",
    "idle-memory",
    "idle-10000",
)
"""Rows of the first page, in this order."""

RIVALS_IN_README = ("websockets", "bun", "ws")
"""Those that were measured of these."""


def main() -> None:
    """Write the tables of the committed figures, or of the file that is named."""
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES)


def write(figures: Path) -> None:
    """Write the tables of a JSON file into the documents."""
    data = json.loads(figures.read_text())
    README.write_text(put(README.read_text(), first_page(data)))
    DETAILS.write_text(put(DETAILS.read_text(), details(data)))


def put(document: str, text: str) -> str:
    """Return a document with `text` between its markers."""
    before, found, rest = document.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the document lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def first_page(data: dict[str, Any]) -> str:
    """Return what README.md says."""
    results: Results = data["results"]
    names = [OURS, *(name for name in RIVALS_IN_README if name in candidates_of(results))]
    lines = [["work", *_quoted(names), "aim"], ["---", *["---:"] * len(names), "---"]]
    rows = {row.name: (workload, row) for workload, row in _measured(WORKLOADS, results)}
    for workload, row in (rows[name] for name in IN_README if name in rows):
        found = spreads(workload, row, results)
        cells = [show(found[name].median) if name in found else "–" for name in names]
        aim = show_verdicts([v for v in judge(row, OURS, found) if v.reached is not None])
        lines.append([f"{row.title or row.name}, {row.unit}", *cells, aim])
    return "\n\n".join([_when(data), markdown(lines), *_images(results, "docs/images")])


def _images(results: Results, folder: str) -> list[str]:
    return [
        f"![{picture.title}]({folder}/{picture.file})"
        for picture in PICTURES
        if picture.drawn(results)
    ]


def _when(data: dict[str, Any]) -> str:
    facts = data["environment"]
    return (
        f"Medians of {data['rounds']} rounds on {facts['cores']} cores of an {facts['processor']}, "
        f"Python {facts['python']}, commit {facts['commit'][:10]}, {facts['at'][:10]}."
    )


def details(data: dict[str, Any]) -> str:
    """Return what docs/benchmarks.md says."""
    results, ceiling = data["results"], data["ceiling"]
    parts = [
        f"{describe_environment(data['environment'])}. Medians of up to {data['rounds']} rounds.",
        f"{describe_ceiling(WORKLOADS, ceiling)}.",
        both(WORKLOADS, results, ceiling),
        *data.get("skipped", []),
        *_images(results, "images"),
    ]
    return "\n\n".join(parts)


def both(workloads: list[Workload], results: Results, ceiling: Figures) -> str:
    """Return two tables: ours with aims and the ceiling, and all candidates side by side."""
    return f"{ours(workloads, results, ceiling)}\n\n{side_by_side(workloads, results)}"


def ours(workloads: list[Workload], results: Results, ceiling: Figures) -> str:
    """Return our rows that were measured: medians (least–most), and what became of the aims.

    Args:
        ceiling: what the generator alone reaches, by row.
    """
    lines = [["workload", "unit", OURS, "aim", "of the ceiling", "generator busy"]]
    lines.append(["---", "---", "---:", "---", "---:", "---:"])
    for workload, row in _measured(workloads, results):
        found = spreads(workload, row, results)
        mine = found.get(OURS)
        cells = [
            show_spread(mine),
            show_verdicts(judge(row, OURS, found)),
            _share(row, mine, ceiling.get(row.name)),
            _busy(results[workload.name].get(OURS, [])),
        ]
        lines.append([row.name, row.unit, *cells])
    return markdown(lines)


def side_by_side(workloads: list[Workload], results: Results) -> str:
    """Return what was measured of more than one: medians, and how far the others are off."""
    names = candidates_of(results)
    lines = [["workload", "unit", *_quoted(names)], ["---", "---", *["---:"] * len(names)]]
    for workload, row in _measured(workloads, results):
        found = spreads(workload, row, results)
        if workload.rivals:
            cells = [show_off(found[name]) if name in found else "–" for name in names]
            lines.append([row.name, row.unit, *cells])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """Return the lines of a table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _measured(workloads: list[Workload], results: Results) -> list[tuple[Workload, Row]]:
    return [
        (workload, row)
        for workload in workloads
        for row in workload.rows
        if spreads(workload, row, results)
    ]


def candidates_of(results: Results) -> list[str]:
    """Return all that took part, ours first."""
    names = {name: None for found in results.values() for name in found}
    return [OURS, *(name for name in names if name != OURS)]


def _quoted(names: list[str]) -> list[str]:
    return [name if name == OURS else f"`{name}`" for name in names]


def show_verdicts(verdicts: list[Verdict]) -> str:
    """Return targets, what was reached, and whether that is enough."""
    return "; ".join(_show_verdict(verdict) for verdict in verdicts) or "–"


def _show_verdict(verdict: Verdict) -> str:
    text = _show_target(verdict.target)
    if verdict.reached is None:
        return f"{text}: not measured"
    ratio = f" {verdict.reached:.2f}," if verdict.target.rival else ""
    return f"{text}:{ratio} {'met' if verdict.met else '**not met**'}"


def _show_target(target: Target) -> str:
    least, most = target.at_least, target.at_most
    bound = f"≥ {least:,g}" if least is not None else f"≤ {most:,g}"
    return f"{bound} × {target.rival}" if target.rival else bound


def _share(row: Row, mine: Spread | None, ceiling: float | None) -> str:
    """Return how near to the generator's own ceiling a figure is."""
    if mine is None or not ceiling:
        return "–"
    return f"× {mine.median / ceiling:.1f}" if row.less else f"{mine.median / ceiling:.0%}"


def _busy(runs: list[Figures]) -> str:
    shares = [run["generator_busy"] for run in runs if "generator_busy" in run]
    return f"{median(shares):.0%}" if shares else "–"


def show_spread(spread: Spread | None) -> str:
    """Return the median, and where there were several rounds, the least and the most."""
    if spread is None:
        return "–"
    if spread.least == spread.most:
        return show(spread.median)
    return f"{show(spread.median)} ({show(spread.least)}–{show(spread.most)})"


def show_off(spread: Spread) -> str:
    """Return the median, and by how much the round that is farthest from it is off."""
    off = max(spread.most - spread.median, spread.median - spread.least)
    if not off or not spread.median:
        return show(spread.median)
    return f"{show(spread.median)} ±{off / abs(spread.median):.0%}"


if __name__ == "__main__":
    main()
