"""Draws the figures: `python -m benchmarks.plots docs/benchmarks.json docs/images/`.

Needs the extra `bench`. The same figures give the same bytes. There is no background, and every
colour stands out from white as it does from black, for README.md is read on both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.pictures import FANOUT, FOLDER, LATENCY, PICTURES, PUBLISHING, SLOPES, Picture
from benchmarks.plan import Row, Workload
from benchmarks.summary import Results, Spread, show, spreads
from benchmarks.tables import FIGURES, OURS, candidates_of
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.growth import points

INK = "#767c84"  # as far from white as from black
HIGHLIGHT = "#d9660b"
RIVAL = "#8793a6"
LINES = ("#d9660b", "#2a8bc9", "#1f9e75", "#b970a8", "#a08a1c")
MARKS = ("o", "s", "^", "D", "v")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "triows",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
WIDTH = 9.0  # inches


def main() -> None:
    """Draw the committed figures, or what the command line names."""
    figures = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    write(figures, Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER)


def write(figures: Path, folder: Path) -> None:
    """Draw a JSON file into a folder; plots of what it has not are taken away."""
    drawn = draw(json.loads(figures.read_text()), folder)
    for picture in PICTURES:
        if folder / picture.file not in drawn:
            (folder / picture.file).unlink(missing_ok=True)


def draw(data: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured into a folder; return the files."""
    results: Results = data["results"]
    drawn = []
    with mpl.rc_context(STYLE):
        for picture, paint in _PAINTERS:
            if picture.drawn(results):
                figure = paint(results)
                figure.suptitle(picture.title, x=0.01, ha="left", fontweight="bold")
                about = {"Date": None, "Creator": None, "Source": source(data)}
                path = folder / picture.file
                figure.savefig(path, format="svg", metadata=about, transparent=True)
                drawn.append(path)
    return drawn


def source(data: dict[str, Any]) -> str:
    """Return what a plot says of the figures it was drawn from."""
    facts = data["environment"]
    return f"measured at {facts['at']}, commit {facts['commit']}"


def _row(name: str) -> tuple[Workload, Row]:
    return next((w, row) for w in WORKLOADS for row in w.rows if row.name == name)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)
    return figure, list(axes[0])


# Bars


def _bars(results: Results, panels: dict[str, str]) -> Figure:
    """Draw a panel for each row, a bar for each candidate, the spread as a line.

    Args:
        panels: titles by the row's name.
    """
    names = candidates_of(results)
    rows = {name: words for name, words in panels.items() if results.get(_row(name)[0].name)}
    figure, axes = _panels(len(rows), 1.0 + 0.3 * len(names))
    for number, (axis, (name, words)) in enumerate(zip(axes, rows.items(), strict=True)):
        _bar_panel(axis, names, spreads(*_row(name), results))
        axis.set_title(words)
        axis.set_yticks(range(len(names)), names if not number else [""] * len(names))
    return figure


def _bar_panel(axis: Axes, names: list[str], found: dict[str, Spread]) -> None:
    longest = max(spread.most for spread in found.values())
    for place, name in enumerate(names):
        if name not in found:
            axis.text(0, place, " –", va="center")
            continue
        spread = found[name]
        axis.barh(place, spread.median, color=HIGHLIGHT if name == OURS else RIVAL, height=0.7)
        axis.plot([spread.least, spread.most], [place, place], color=INK, linewidth=1.5)
        axis.text(spread.most + longest * 0.02, place, show(spread.median), va="center")
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.5)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(left=False)


def _fanout(results: Results) -> Figure:
    words = {
        "fanout-1": "one message at a time",
        "fanout-16": "16 under way",
        "fanout-64": "64 under way",
    }
    return _bars(results, words)


def _publishing(results: Results) -> Figure:
    return _bars(results, {"publish-1": "one under way on each", "publish-32": "32 under way"})


# Latency

_PERCENTILES = ("p50", "p99", "p99.9")


def _latency(results: Results) -> Figure:
    words = {
        "latency": "at half of its own capacity",
        "latency-common": "at 20 messages a second",
    }
    measured = [name for name in words if results.get(name)]
    names = [n for n in candidates_of(results) if any(n in results[name] for name in measured)]
    figure, axes = _panels(len(measured), 1.4 + 0.3 * len(names))
    for number, (axis, name) in enumerate(zip(axes, measured, strict=True)):
        _latency_panel(axis, name, names, results)
        axis.set_title(words[name])
        axis.set_yticks(range(len(names)), names if not number else [""] * len(names))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3)
    return figure


def _latency_panel(axis: Axes, name: str, names: list[str], results: Results) -> None:
    """Draw a line for each candidate, from the median to what one in 1000 exceeds."""
    for percent, mark in zip(_PERCENTILES, MARKS, strict=False):
        found = spreads(*_row(f"{name}-{percent}"), results)
        places = [place for place, candidate in enumerate(names) if candidate in found]
        values = [found[names[place]].median for place in places]
        colours = [HIGHLIGHT if names[place] == OURS else RIVAL for place in places]
        axis.scatter(values, places, c=colours, marker=mark, label=percent, zorder=3)
    first, last = (spreads(*_row(f"{name}-{p}"), results) for p in ("p50", "p99.9"))
    for place, candidate in enumerate(names):
        if candidate in first:
            ends = [first[candidate].median, last[candidate].median]
            axis.plot(ends, [place, place], color=INK, linewidth=1, zorder=2)
            end, aside = (ends[1], place), (8, 0)  # points
            axis.annotate(show(ends[1]), end, aside, textcoords="offset points", va="center")
    axis.set_xscale("log")
    axis.margins(x=0.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(left=False)


# Slopes


def _slopes(results: Results) -> Figure:
    """Draw all in one: how many times as much it costs, at how many times the size."""
    figure, [axis] = _panels(1, 5.0)
    furthest = 1.0
    for name, colour, mark in zip(SLOPES.needs, LINES, MARKS, strict=True):
        runs = results.get(name, {}).get(OURS, [])
        if not runs:
            continue
        each = [points(run, "processor") for run in runs]
        costs = {size: median(run[size] for run in each) for size in each[0]}
        start = min(costs)
        sizes = [size / start for size in costs]
        furthest = max(furthest, *sizes)
        label = f"{_row(name)[1].title.partition(' by ')[2]}: {_slope_of(name, results):.2f}"
        grown = [cost / costs[start] for cost in costs.values()]
        axis.plot(sizes, grown, color=colour, marker=mark, label=label)
    axis.plot([1, furthest], [1, furthest], color=INK, linestyle=":", label="linear would be 1")
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("times as many, or as long")
    axis.set_ylabel("times the processor time of a message")
    axis.grid(visible=True, color=INK, alpha=0.25)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("× {x:g}")
    axis.legend(title="slope by", alignment="left")
    return figure


def _slope_of(name: str, results: Results) -> float:
    return spreads(*_row(name), results)[OURS].median


_PAINTERS: tuple[tuple[Picture, Callable[[Results], Figure]], ...] = (
    (FANOUT, _fanout),
    (PUBLISHING, _publishing),
    (LATENCY, _latency),
    (SLOPES, _slopes),
)


if __name__ == "__main__":
    main()
