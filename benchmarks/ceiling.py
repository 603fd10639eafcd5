"""How fast the load generator itself is, so that one sees it is not what limits a server.

Where a figure cannot be had without a server, one that does nothing but send is on the other side:
there the ceiling is that of both, and the generator's own is higher.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.candidates import Bare
from benchmarks.load import Reader, send
from benchmarks.numbers import Arrival
from benchmarks.opening import close_all, open_all
from benchmarks.pacing import PacedReader
from benchmarks.plan import Effort, Figures, Workload
from benchmarks.process import running
from benchmarks.servers.bare_server import REPLY
from benchmarks.workloads.fanout import SUBSCRIBERS
from benchmarks.workloads.recovery import MB

REPEATS = 15
LONGEST = 64  # messages that are read at once


def measure(workloads: Iterable[Workload], effort: Effort) -> Figures:
    """Return, by the names of their rows, what the generator reaches in these workloads."""
    figures: Figures = {}
    for workload in workloads:
        if workload.name in _READING:
            figures |= _READING[workload.name]()
        if workload.name in _SAME:
            found = workload.run(Bare(), effort)
            figures |= {row.name: found[row.figure] for row in workload.rows}
    return figures


def _read_all(viewers: int, windows: tuple[int, ...], name: str, *, timed: bool = False) -> Figures:
    """Read what has arrived on all connections already, so many messages on each.

    Args:
        timed: note when each arrives, as it is done for latencies.
    """
    bare = Bare()
    with running(bare.command()) as server:
        clients = open_all(server.port, [bare.publisher(), *[bare.subscriber()] * viewers])
        try:
            rates = [_read(bare, clients[0], clients[1:], window, timed) for window in windows]
            return {f"{name}{n}": rate for n, rate in zip(windows, rates, strict=True)}
        finally:
            close_all(clients)


def _read(
    bare: Bare, publisher: socket.socket, viewers: list[socket.socket], window: int, timed: bool
) -> float:
    reader, answers, rates = PacedReader(viewers), Reader([publisher]), []
    for _ in range(REPEATS):
        send(publisher, bare.message() * window)
        answers.wait(len(REPLY) * window)  # comes after everything else
        missing, arrivals = len(REPLY) * window * len(viewers), list[Arrival]()
        began = time.perf_counter()
        if timed:
            while missing > 0:
                missing -= reader.take(arrivals)
        else:
            reader.wait(missing)
        rates.append(window * len(viewers) / (time.perf_counter() - began))
    return max(rates)  # a ceiling is what can be reached


def _read_bytes() -> Figures:
    rate = _read_all(SUBSCRIBERS, (LONGEST,), "")[str(LONGEST)]
    return {"recovery-rate": rate * len(REPLY) / MB}


_READING: dict[str, Callable[[], Figures]] = {
    **{
        f"fanout-{window}": partial(_read_all, SUBSCRIBERS, (window,), "fanout-")
        for window in (1, 16, 64)
    },
    "fanout-10": partial(_read_all, 10, (1, 16, 64), "fanout-10x"),
    "fanout-10000": partial(_read_all, 10_000, (1, 16), "fanout-10000x"),
    "recovery": _read_bytes,
    "latency": partial(_read_all, SUBSCRIBERS, (1,), "timed-fanout-", timed=True),
}
"""Of the generator alone."""

_SAME = ("publish-1", "publish-32", "storm", "latency", "latency-common")
"""The workload itself, against the server that does nothing."""
