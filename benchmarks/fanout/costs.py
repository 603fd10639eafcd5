"""What everything costs: measured figures, and assumptions that say that they are some."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from benchmarks.tables import FIGURES

TRIOWS = "triows"
VIEWERS_MEASURED = 1000  # of the fan-out that was measured
WINDOWS = (1, 16, 64)  # messages under way in it
NEEDED = (
    *(f"fanout-{window}" for window in WINDOWS),
    *("publish-32", "storm", "idle-memory kib", "idle-10000 up"),
)
"""Workloads without which nothing can be said."""


def _cost(title: str, unit: str, source: str, default: float | None = None) -> Any:
    metadata = {"title": title, "unit": unit, "source": source}
    if default is None:
        return attrs.field(metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def _measured(name: str) -> str:
    return f"measured: `--only {name}`"


@attrs.frozen(kw_only=True)
class Costs:
    """Seconds, bytes and KiB; each field knows its title, its unit and where it comes from."""

    send: float = _cost(
        "node: one send to one viewer",
        "µs",
        "measured: `--only fanout-1`, `-64`: a line",
    )
    message: float = _cost("node: each message in a send", "µs", "measured: the same line")
    append: float = _cost("node, in memory: one message published", "µs", _measured("publish-32"))
    opening: float = _cost("node: one connection opened", "µs", _measured("storm"))
    idle: float = _cost("node: memory of a connection", "KiB", _measured("idle-memory"))
    held: float = _cost("node: connections one process has held", "", _measured("idle-10000"))
    publish: float = _cost(
        "node: one message published over Redis", "µs", "assumed, 4 × that in memory", 40e-6
    )
    hear: float = _cost(
        "node: one message heard, or one look",
        "µs",
        "assumed, 3 × that in memory",
        30e-6,
    )
    hears: int = _cost(
        "node: messages heard between two turns of its flusher",
        "",
        "the code: `Link._listen` takes one a tick",
        1,
    )
    turn: float = _cost(
        "node: the flusher lets others run after", "µs", "the code: `hub._BUDGET`", 5e-3
    )
    script: float = _cost("Redis: one publish, a script", "µs", "assumed", 40e-6)
    copy: float = _cost("Redis: telling it to one node", "µs", "assumed", 1e-6)
    look: float = _cost("Redis: one look at a log", "µs", "assumed", 15e-6)
    look_interval: float = _cost(
        "a node looks at each channel it has every",
        "s",
        "the code: `follower.LOOK_INTERVAL`",
        10,
    )
    news: float = _cost("Redis: bytes told to one node", "B", "counted: 200 bytes of data", 370)
    frame: float = _cost("a message, as a viewer gets it", "B", "counted: 200 bytes of data", 311)
    header: float = _cost("TCP, IP and Ethernet beside each send", "B", "counted", 66)
    hop: float = _cost("network between two of our machines, one way", "µs", "assumed", 250e-6)
    nic: float = _cost("network of a node", "Gbit/s", "assumed, 8 nodes share 10 Gbit/s", 1.25e9)
    redis_nic: float = _cost("network of a Redis", "Gbit/s", "assumed", 10e9)


def show(cost: float, unit: str) -> str:
    """Return a cost in its unit."""
    scale = {"µs": 1e6, "Gbit/s": 1e-9}.get(unit, 1.0)
    return f"{cost * scale:,.4g} {unit}".strip() if cost * scale < 1e4 else f"{cost * scale:,.0f}"


def rows(costs: Costs) -> list[list[str]]:
    """Return each cost with its title, value and source."""
    return [
        [field.metadata["title"], show(getattr(costs, field.name), field.metadata["unit"]),
         field.metadata["source"]]
        for field in attrs.fields(Costs)
    ]  # fmt: skip


@attrs.frozen
class Measured:
    """The committed figures of triows.

    Attributes:
        commit: of what was measured.
        medians: of `value` by workload, of others by workload and name: `stalled alone`.
    """

    commit: str
    medians: dict[str, float]

    @classmethod
    def read(cls, path: Path = FIGURES) -> Measured:
        """Read what `python -m benchmarks --record` wrote."""
        data = json.loads(path.read_text())
        medians = {
            workload if name == "value" else f"{workload} {name}": median(run[name] for run in runs)
            for workload, found in data["results"].items()
            if (runs := found.get(TRIOWS))
            for name in runs[0]
        }
        return cls(data["environment"]["commit"], medians)

    def costs(self) -> Costs:
        """Return what follows: a send to a viewer costs `send`, and `message` for each in it.

        Raises:
            ValueError: a figure is not there.
        """
        figures = self.medians
        if missing := [name for name in NEEDED if name not in figures]:
            raise ValueError(
                f"there are no figures of {', '.join(missing)}: `python -m benchmarks --record` "
                "measures them"
            )
        append = 1 / figures["publish-32"]
        few, many = WINDOWS[0], WINDOWS[-1]
        one, all_ = (
            w / figures[f"fanout-{w}"] - w * append / VIEWERS_MEASURED for w in (few, many)
        )
        message = (all_ - one) / (many - few)
        return Costs(
            send=one - message * few,
            message=message,
            append=append,
            opening=1 / figures["storm"],
            idle=figures["idle-memory kib"],
            held=figures["idle-10000 up"],
        )
