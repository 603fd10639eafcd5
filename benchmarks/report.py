"""Where and of what the figures are, as a line and in the JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.candidates import Candidate
from benchmarks.plan import Figures, Workload
from benchmarks.process import ROOT
from benchmarks.summary import show


def environment(candidates: list[Candidate]) -> dict[str, Any]:
    """Return where and of what the figures are."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {candidate.name: candidate.versions() for candidate in candidates},
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
    }


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


def describe_ceiling(workloads: list[Workload], ceiling: Figures) -> str:
    """Return the generator's ceiling as a line."""
    units = {row.name: row.unit for workload in workloads for row in workload.rows}
    parts = [f"{name} {show(f)} {units.get(name, 'deliveries/s')}" for name, f in ceiling.items()]
    return "The load generator alone: " + (", ".join(parts) or "not measured")


def describe_environment(facts: dict[str, Any]) -> str:
    """Return the environment as a line."""
    named: dict[str, str] = {}
    for name, found in facts["versions"].items():  # of a package, or of what a candidate needs
        named |= found if isinstance(found, dict) else {name: found}
    versions = ", ".join(f"{name} {number}" for name, number in named.items())
    commit = facts["commit"][:10] + (" with changes" if facts["changed"] else "")
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, "
        f"Python {facts['python']}, {versions}, commit {commit or 'unknown'}"
    )


def write_json(path: Path, **everything: Any) -> None:
    """Write every single figure."""
    path.write_text(json.dumps(everything, indent=2) + "\n")
