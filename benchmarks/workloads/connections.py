"""Connections: how fast they open, what an idle one costs, and how many stay up."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.candidates import Candidate
from benchmarks.load import Keeper
from benchmarks.opening import OPENING, close_all, is_open, open_all
from benchmarks.plan import Effort, Figures, Row, Target, Workload, single
from benchmarks.process import Server, running
from benchmarks.workloads.busy import Busy

PING_INTERVAL = 20.0  # seconds, for those that are held for long
KIB = 1024


def storm(candidate: Candidate, effort: Effort) -> Figures:
    """Connections a second that are opened, their tokens checked, and their channel watched."""
    count = effort.connections
    with running(candidate.command()) as server:
        close_all(open_all(server.port, [candidate.subscriber()] * OPENING))
        busy, began = Busy(server), time.perf_counter()
        clients = open_all(server.port, [candidate.subscriber()] * count)
        elapsed = time.perf_counter() - began
        figures = busy.figures()
        close_all(clients)
    return {"value": count / elapsed, **figures}


def idle(candidate: Candidate, effort: Effort, *, count: int, ping_interval: float = 0) -> Figures:
    """What `count` idle subscribers cost, and how many are still up; with pings, after a while."""
    with running(candidate.command(ping_interval=ping_interval)) as server:
        return _idle(candidate, server, count, effort.hold if ping_interval else 1.0)


def _idle(candidate: Candidate, server: Server, count: int, seconds: float) -> Figures:
    time.sleep(0.5)
    empty, began, keeper = server.memory(), time.perf_counter(), Keeper(candidate.pings)
    clients = open_all(server.port, [candidate.subscriber()] * count, keeper=keeper)
    try:
        opening = time.perf_counter() - began
        keeper.hold(seconds)
        up = min(sum(is_open(client) for client in clients), count - keeper.ended)
        kib = (server.memory() - empty) / count / KIB
        return {"up": up, "kib": kib, "opening": opening, "pings": keeper.pings}
    finally:
        close_all(clients)


WORKLOADS = [
    single(
        "storm",
        "connections/s",
        storm,
        Target(at_least=1, rival="websockets"),
        title="connections opened, token checked, channel watched",
    ),
    Workload(
        "idle-memory",
        partial(idle, count=1000),
        (
            Row(
                "idle-memory",
                "KiB/connection",
                (Target(at_most=24),),
                title="memory of an idle connection, of 1000",
                figure="kib",
                less=True,
            ),
        ),
    ),
    Workload(
        "idle-10000",
        partial(idle, count=10_000, ping_interval=PING_INTERVAL),
        (
            Row(
                "idle-memory-10000",
                "KiB/connection",
                (Target(at_most=24),),
                title="the same, of 10,000",
                figure="kib",
                less=True,
            ),
            Row(
                "idle-10000",
                "connections",
                (Target(at_least=10_000),),
                title="of 10,000 that are idle with pings, stay up",
                figure="up",
            ),
        ),
        rounds=1,
    ),
]
