"""From publisher to viewer: how long a message takes, at a fixed rate."""

from __future__ import annotations

import socket
from functools import partial

from benchmarks.candidates import Candidate
from benchmarks.load import Unable
from benchmarks.opening import close_all, connect, is_open, open_all
from benchmarks.plan import Effort, Figures, Row, Target, Workload, single
from benchmarks.process import Server, running
from benchmarks.workloads.busy import Busy
from benchmarks.workloads.fanout import SUBSCRIBERS, Channel, watched

COMMON_RATE = 20.0
"""Messages a second to the subscribers, for all alike."""

STALLED = 100  # beside as many fewer that read

FILL = 2000
"""Messages after which a stalled viewer's socket, and the server's end of it, are full."""


def latency(candidate: Candidate, effort: Effort) -> Figures:
    """Percentiles at half of what the candidate can do, measured right before, one at a time."""
    with (
        running(candidate.command()) as server,
        watched(candidate, server, SUBSCRIBERS) as channel,
    ):
        capacity = _capacity(channel, effort)
        return {"capacity": capacity, **_at(channel, server, capacity / 2, effort)}


def latency_at(candidate: Candidate, effort: Effort, *, rate: float) -> Figures:
    """Percentiles at `rate` messages a second."""
    with (
        running(candidate.command()) as server,
        watched(candidate, server, SUBSCRIBERS) as channel,
    ):
        channel.publish(1, lambda _, elapsed: elapsed < effort.seconds * 0.2)
        return _at(channel, server, rate, effort)


def latency_stalled(candidate: Candidate, effort: Effort) -> Figures:
    """How many times as high p99 is beside viewers that stopped reading, one in ten.

    At half of what the candidate can do beside them, and compared with the same rate when they
    are gone.
    """
    if candidate.waits:
        raise Unable(candidate.waits)
    with running(candidate.command()) as server:
        stalled, published = _stall(candidate, server)
        try:
            with watched(candidate, server, SUBSCRIBERS - STALLED, published) as channel:
                rate = _capacity(channel, effort) / 2
                beside = _at(channel, server, rate, effort)
                still_open = sum(map(is_open, stalled))
                close_all(stalled)
                channel.publish(1, lambda _, elapsed: elapsed < effort.seconds * 0.1)
                alone = _at(channel, server, rate, effort)
        finally:
            close_all(stalled)
    figures = {"value": beside["p99"] / alone["p99"], "alone": alone["p99"], **beside}
    return {**figures, "stalled_open": still_open}


def _stall(candidate: Candidate, server: Server) -> tuple[list[socket.socket], int]:
    """Open viewers, and publish until their sockets take no more; return how many messages."""

    def start(number: int) -> socket.socket:
        return connect(server.port, stalled=True)

    stalled = open_all(server.port, [candidate.subscriber()] * STALLED, start)
    with watched(candidate, server, 1) as channel:
        channel.publish(16, lambda done, _: done < FILL)
    return stalled, channel.published


def _capacity(channel: Channel, effort: Effort) -> float:
    """Return messages a second, one at a time."""
    channel.publish(1, lambda _, elapsed: elapsed < effort.seconds * 0.1)
    messages, elapsed = channel.publish(1, lambda _, spent: spent < effort.seconds * 0.3)
    return messages / elapsed


def _at(channel: Channel, server: Server, rate: float, effort: Effort) -> Figures:
    busy = Busy(server)
    paced = channel.pace(rate, max(10, round(rate * effort.seconds * 1.5)))
    figures = busy.figures()
    return {"rate": rate, "deliveries": len(paced.latencies), **paced.figures(), **figures}


def _percentiles(name: str, words: str, *targets: Target) -> tuple[Row, ...]:
    return (
        Row(f"{name}-p50", "ms", (), f"publish → viewer, {words}, p50", "p50", less=True),
        Row(f"{name}-p99", "ms", targets, "the same, p99", "p99", less=True),
        Row(f"{name}-p99.9", "ms", (), "the same, p99.9", "p99.9", less=True),
    )


WORKLOADS = [
    Workload(
        "latency",
        latency,
        _percentiles(
            "latency",
            f"{SUBSCRIBERS} viewers, at half of its own capacity",
            Target(at_most=1.5, rival="bun"),
        ),
    ),
    Workload(
        "latency-common",
        partial(latency_at, rate=COMMON_RATE),
        _percentiles("latency-common", f"{SUBSCRIBERS} viewers, {COMMON_RATE:g} messages/s"),
    ),
    single(
        "latency-stalled",
        "× p99",
        latency_stalled,
        Target(at_most=1.2),
        title="p99 beside viewers that stopped reading, one in ten, as a part of that without",
        less=True,
    ),
]
