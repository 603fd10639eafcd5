"""What is otherwise in simulations than elsewhere, so that few seconds and messages are enough."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import attrs

from triows import connection, hub, pager, sender, stall, transport, viewer
from triows import server as supervisor
from triows.bus import sqlite
from triows.config import LogLimits, Settings
from triows.testing.schedule import Schedule

_WINDOW: Final = 100_000.0  # seconds for which ids are remembered: longer than any schedule

_Changes: TypeAlias = tuple[tuple[object, str, object], ...]

SWIFT: Final[_Changes] = (
    (stall, "INTERVAL", 1000.0),
    (supervisor, "open_doors", lambda *_: (None, ImportError("no HTTP in simulations"))),
)
"""What simulations do without, since nothing in them needs it and it takes half of the time."""

SMALL: Final[_Changes] = (
    (viewer, "BUFFER", 4),
    (hub, "PULL_BYTES", 400),
    (hub, "_BUDGET", -1.0),  # others run between any two pieces of work
    (sender, "PULL_BYTES", 400),
    (pager, "PAGE_BYTES", 400),
    (transport, "_PIECE", 100),
    (connection, "BACKLOG", 1000),
    (sqlite, "FILED_MESSAGES", 7),
)
"""Bounds that few messages reach, in place of the usual ones."""


def settings_of(schedule: Schedule, directory: Path) -> Settings:
    """Return the settings of the server of a simulation, with its store in `directory`."""
    log = LogLimits(idempotency_window=_WINDOW)
    if schedule.small:
        log = attrs.evolve(log, max_messages=6, max_bytes=8000, tail_bytes=1000)
    store = "memory://" if schedule.store == "memory" else f"sqlite:///{directory / 'store.db'}"
    return Settings(log=log, store=store)
