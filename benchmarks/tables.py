"""Tables of the figures, in Markdown."""

from __future__ import annotations

from statistics import median

from benchmarks.plan import Figures, Row, Target, Workload
from benchmarks.summary import Results, Spread, Verdict, judge, spreads

OURS = "triows"


def table(workloads: list[Workload], results: Results, ceiling: Figures) -> str:
    """Return all rows that were measured: medians (least–most), and the targets.

    Args:
        ceiling: what the generator alone reaches, by row.
    """
    names = _names(results)
    rows = [["workload", "unit", *names, "aim", "of the ceiling", "generator busy"]]
    rows.append(["---", "---", *["---:"] * len(names), "---", "---:", "---:"])
    rows += [
        _line(workload, row, names, results, ceiling.get(row.name))
        for workload in workloads
        for row in workload.rows
        if results.get(workload.name)
    ]
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Return the lines of a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _names(results: Results) -> list[str]:
    """Return all that took part, ours first."""
    names = {name: None for found in results.values() for name in found}
    return [OURS, *(name for name in names if name != OURS)]


def _line(
    workload: Workload, row: Row, names: list[str], results: Results, ceiling: float | None
) -> list[str]:
    found = spreads(workload, row, results)
    return [
        row.name,
        row.unit,
        *(show_spread(found.get(name)) for name in names),
        show_verdicts(judge(row, OURS, found)),
        _share(row, found.get(OURS), ceiling),
        _busy(results[workload.name].get(OURS, [])),
    ]


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
    bound = f"≥ {target.at_least:g}" if target.at_least is not None else f"≤ {target.at_most:g}"
    return f"{bound} × {target.rival}" if target.rival else bound


def _share(row: Row, ours: Spread | None, ceiling: float | None) -> str:
    """Return how near to the generator's own ceiling a figure is."""
    if ours is None or ceiling is None:
        return "–"
    if row.less:
        return f"{ours.median / ceiling:.1f} ×"
    return f"{ours.median / ceiling:.0%}"


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


def show(value: float) -> str:
    """Return a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
