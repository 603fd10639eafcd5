"""How fast the load generator itself is, so that one sees it is not what limits a server."""

from __future__ import annotations

import socket
import time
from statistics import median

from benchmarks.candidates import Bare
from benchmarks.load import Reader, send
from benchmarks.opening import close_all, open_all
from benchmarks.plan import Effort, Figures
from benchmarks.process import running
from benchmarks.servers.bare_server import REPLY
from benchmarks.workloads.fanout import SUBSCRIBERS
from benchmarks.workloads.publishing import publish

REPEATS = 15


def measure(effort: Effort) -> Figures:
    """Return frames read a second, and answers a second from a server that does nothing."""
    figures = _reading()
    for window in (1, 32):
        found = publish(Bare(), effort, window=window)
        figures[f"publish-{window}"] = found["value"]
    return figures


def _reading() -> Figures:
    """Read from 1000 connections what has arrived on all of them already."""
    bare = Bare()
    with running(bare.command()) as server:
        scripts = [bare.subscriber()] * SUBSCRIBERS
        publisher, *viewers = open_all(server.port, [bare.publisher(), *scripts])
        try:
            return {
                f"fanout-{window}": _read(bare, publisher, viewers, window)
                for window in (1, 16, 64)
            }
        finally:
            close_all([publisher, *viewers])


def _read(bare: Bare, publisher: socket.socket, viewers: list[socket.socket], window: int) -> float:
    reader, answers, rates = Reader(viewers), Reader([publisher]), []
    for _ in range(REPEATS):
        send(publisher, bare.message() * window)
        answers.wait(len(REPLY) * window)  # comes after everything else
        began = time.perf_counter()
        reader.wait(len(REPLY) * window * len(viewers))
        rates.append(window * len(viewers) / (time.perf_counter() - began))
    return median(rates)
