"""What was seen of a server during a soak, and whether it is flat."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import attrs

MIB = 1024 * 1024
_MUST_RETURN = ("files", "tasks", "connections", "guests", "topics")
"""What at every rest has to be as it was at the first."""

_MAY_DRIFT = {"resident": (16 * MIB, 16 * MIB), "objects": (3000, 3000)}
"""What may grow by chance: once, and an hour. Memory in bytes; objects that Python looks after."""

LEAST_RESTS = 4


@attrs.frozen
class Sample:
    """The server at one moment.

    Attributes:
        at: seconds since the start of the soak.
        rest: whether all load had gone by then, but for those who stay.
        seen: what the server said.
    """

    at: float
    rest: bool
    seen: dict[str, Any]


@attrs.define
class Record:
    """All samples of one soak."""

    ceiling: int
    samples: list[Sample] = attrs.field(factory=list)

    def add(self, at: float, seen: dict[str, Any], *, rest: bool = False) -> None:
        """Keep one sample."""
        self.samples.append(Sample(at, rest, seen))

    @property
    def rests(self) -> list[Sample]:
        """Return the samples without load."""
        return [sample for sample in self.samples if sample.rest]

    def settled(self) -> list[Sample]:
        """Return the rests after the first third: by then every cache and ring is full."""
        rests = self.rests
        return rests[len(rests) // 3 :]

    def growth(self, name: str) -> float:
        """Return by how much something grew an hour, over the settled rests (Theil and Sen: the
        median of the slopes between any two, which no single odd sample moves).
        """
        points = [(sample.at, sample.seen[name]) for sample in self.settled()]
        slopes = [
            (y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :]
        ]
        return median(slopes) * 3600 if slopes else 0.0

    def drift(self, name: str) -> float:
        """Return by how much something grew over the settled rests, by the slope."""
        settled = self.settled()
        return self.growth(name) * (settled[-1].at - settled[0].at) / 3600

    def faults(self) -> list[str]:
        """Return what is not flat, in words; nothing if all is."""
        rests, found = self.rests, []
        if len(rests) < LEAST_RESTS:
            return [f"only {len(rests)} rests: too short to say anything"]
        for name in _MUST_RETURN:
            began = rests[0].seen[name]
            odd = {rest.seen[name] for rest in rests[1:]} - {began}
            if odd:
                found.append(f"{name}: {began} at the first rest, later also {sorted(odd)}")
        hours = (self.settled()[-1].at - self.settled()[0].at) / 3600
        for name, (once, hourly) in _MAY_DRIFT.items():
            drift, most = self.drift(name), once + hourly * hours
            if drift > most:
                found.append(f"{name} grew by {drift:,.0f}; at most {most:,.0f} in {hours:.2f} h")
        peak = max(sample.seen["resident"] for sample in self.samples)
        if peak > self.ceiling:
            found.append(f"memory of {peak / MIB:.0f} MiB, above {self.ceiling / MIB:.0f}")
        found += [f"the server logged: {text}" for text in self.samples[-1].seen["logged"]]
        return found

    def table(self) -> str:
        """Return the figures for people."""
        rests, last = self.rests, self.samples[-1].seen
        busy = [sample for sample in self.samples if not sample.rest] or self.samples
        lines = ["| what | first rest | last rest | most, under load |", "|---|---:|---:|---:|"]
        for name in ("resident", "files", "tasks", "connections", "objects", "channels"):
            unit = MIB if name == "resident" else 1
            label = "resident memory, MiB" if unit == MIB else name
            row = [rests[0].seen[name], rests[-1].seen[name]]
            row += [max(sample.seen[name] for sample in busy)]
            figures = [f"{value / unit:,.1f}" if unit == MIB else f"{value:,}" for value in row]
            if name == "objects":
                figures[2] = "–"
            lines.append(f"| {label} | {' | '.join(figures)} |")
        total = ", ".join(f"{last[name]:,} {name}" for name in ("opened", "published", "delivered"))
        lines += ["", f"{self.samples[-1].at / 60:.1f} minutes; {total}, {last['gaps']:,} gaps;"]
        lines += [f"closed {last['closed']}; refused {last['refused']};"]
        lines += [f"answers {last['answers']}; errors {last['errors']}"]
        lines += [f"the server's loop was late by {last['stalled']:.1f} s at most;"]
        lines += [f"memory at rest: {self.growth('resident') / MIB:+.2f} MiB an hour"]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write every sample to a file."""
        rows = [attrs.asdict(sample) for sample in self.samples]
        path.write_text(json.dumps({"ceiling": self.ceiling, "samples": rows}))
