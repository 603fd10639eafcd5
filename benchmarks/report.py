"""Figures into a table, and into JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks.candidates import Candidate
from benchmarks.plan import Figures, Target, Workload
from benchmarks.process import ROOT

Results: TypeAlias = dict[str, dict[str, list[Figures]]]
"""What each run found, by workload and candidate."""


def environment(candidates: list[Candidate]) -> dict[str, Any]:
    """Return where and of what the figures are."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _packages(candidates)},
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
    }


def _packages(candidates: list[Candidate]) -> list[str]:
    return [*(candidate.package for candidate in candidates), "trio", "trio-websocket", "msgspec"]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        command = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def describe_ceiling(ceiling: Figures) -> str:
    """Return the generator's ceiling as a line."""
    parts = (f"{name} {_show(figure)}/s" for name, figure in ceiling.items())
    return "The load generator alone: " + ", ".join(parts)


def describe_environment(facts: dict[str, Any]) -> str:
    """Return the environment as a line."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    commit = facts["commit"][:10] + (" with changes" if facts["changed"] else "")
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, "
        f"Python {facts['python']}, {versions}, commit {commit or 'unknown'}"
    )


def table(workloads: list[Workload], candidates: list[Candidate], results: Results) -> str:
    """Return the results as a table: medians (least to most), and the targets."""
    names = [candidate.name for candidate in candidates]
    rows = [["workload", "unit", *names, "ratio", "target", "met", "generator busy"]]
    rows.append(["---", "---", *["---:"] * len(names), "---:", "---", "---", "---:"])
    rows += [_row(workload, names, results.get(workload.name, {})) for workload in workloads]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(workload: Workload, names: list[str], found: dict[str, list[Figures]]) -> list[str]:
    values = {name: [run["value"] for run in found.get(name, [])] for name in names}
    ours, target = values[names[0]], workload.target
    rival = target.rival if target and target.rival else names[-1]
    ratio = median(ours) / median(values[rival]) if ours and values.get(rival) else None
    has_rival = rival != names[0] and ratio is not None
    cells = [_spread(values[name]) for name in names]
    return [
        workload.name,
        workload.unit,
        *cells,
        f"{ratio:.2f}" if has_rival else "–",
        _target(target),
        _met(target, median(ours) if ours else None, ratio),
        _busy(found.get(names[0], [])),
    ]


def _target(target: Target | None) -> str:
    if target is None:
        return "–"
    bound = f"≥ {target.at_least:g}" if target.at_least is not None else f"≤ {target.at_most:g}"
    return f"{bound} × {target.rival}" if target.rival else bound


def _met(target: Target | None, figure: float | None, ratio: float | None) -> str:
    if target is None:
        return "–"
    judged = ratio if target.rival else figure
    if judged is None:
        return "not measured"
    return "met" if target.met(judged) else "**not met**"


def _busy(runs: list[Figures]) -> str:
    shares = [run["generator_busy"] for run in runs if "generator_busy" in run]
    return f"{median(shares):.0%}" if shares else "–"


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return _show(values[0])
    return f"{_show(median(values))} ({_show(min(values))}–{_show(max(values))})"


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def write_json(path: Path, **everything: Any) -> None:
    """Write every single figure."""
    path.write_text(json.dumps(everything, indent=2) + "\n")
