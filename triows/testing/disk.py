"""A disk for the SQLite engine in virtual time: slow, failing, gone with its machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, final

import trio

from triows.bus.sqlite import SQLiteBus
from triows.server import Server


@final
class Disk:
    """Does in the main thread what the engine does in others, for which virtual time does not wait.

    Attributes:
        seconds: that each piece of work takes; below 0 it fails.
        dead: whether nothing reaches it any more.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.dead = False

    @property
    def is_failing(self) -> bool:
        """Whether it can be neither read nor written."""
        return self.dead or self.seconds < 0

    async def work(self, work: Callable[..., Any], *values: Any, limiter: Any = None) -> Any:
        """Do what `trio.to_thread.run_sync` does: what has begun is finished, also if cancelled."""
        if limiter is None:
            await trio.lowlevel.checkpoint()
            return work(*values)
        async with limiter:
            with trio.CancelScope(shield=True):
                await trio.sleep(abs(self.seconds))
            if self.is_failing:
                raise sqlite3.OperationalError("the disk of the simulation fails")
            return work(*values)


def crash(server: Server) -> None:
    """Leave the files of a server as they are when its process dies: nothing is tidied up."""
    bus = server._bus
    if isinstance(bus, SQLiteBus):
        store = bus._store
        database, store._database = store._database, None
        if database is not None:
            database.abandon()
