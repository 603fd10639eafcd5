"""How much of the time a server and the generator were working."""

from __future__ import annotations

import gc
import time

from benchmarks import load
from benchmarks.plan import Figures
from benchmarks.process import Server


class Busy:
    """How much of the time since it was made a server and this process were working."""

    def __init__(self, server: Server) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        self._server = server
        self._began = (time.perf_counter(), load.idle_seconds, server.busy())

    def figures(self) -> Figures:
        """Return both shares, from 0 to 1; ends the time."""
        gc.enable()
        wall, here, there = self._began
        elapsed = time.perf_counter() - wall
        return {
            "generator_busy": 1 - (load.idle_seconds - here) / elapsed,
            "server_busy": (self._server.busy() - there) / elapsed,
        }
