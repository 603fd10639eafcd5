"""Viewers that stopped reading, and what they cost the others."""

from __future__ import annotations

import socket
import time

from benchmarks.candidates import Candidate
from benchmarks.load import Reader
from benchmarks.opening import close_all, connect, is_open, open_all
from benchmarks.plan import Effort, Figures, Target, single
from benchmarks.process import running
from benchmarks.workloads.busy import Busy
from benchmarks.workloads.fanout import SUBSCRIBERS, Channel

STALLED = 100  # of the SUBSCRIBERS


def stalled(candidate: Candidate, effort: Effort) -> Figures:
    """How many times longer a message takes when 100 viewers beside 900 stopped reading.

    Compared with the 900 alone: in both cases only they are waited for.
    """
    alone = _with_stalled(candidate, effort, 0)
    beside = _with_stalled(candidate, effort, STALLED)
    ratio = beside["milliseconds"] / alone["milliseconds"]
    return {"value": ratio, "alone": alone["milliseconds"], **beside}


def _with_stalled(candidate: Candidate, effort: Effort, count: int) -> Figures:
    """Time a number of messages, 16 under way; then see that the stalled ones missed nothing."""
    reading = SUBSCRIBERS - STALLED
    with running(candidate.command()) as server:

        def start(number: int) -> socket.socket:
            return connect(server.port, stalled=number >= reading + 1)

        scripts = [candidate.subscriber()] * (reading + count)
        publisher, *viewers = open_all(server.port, [candidate.publisher(), *scripts], start)
        try:
            channel = Channel(candidate, publisher, viewers[:reading])
            busy = Busy(server)
            messages, elapsed = channel.publish(16, lambda done, _: done < effort.messages)
            figures = {"milliseconds": elapsed / messages * 1000, **busy.figures()}
            if count:
                figures |= _catch_up(viewers[reading:], channel.size)
            return figures
        finally:
            close_all([publisher, *viewers])


def _catch_up(clients: list[socket.socket], size: int) -> Figures:
    """Read what the stalled ones have not read; each has to get everything in the end.

    Args:
        size: of everything, in bytes.
    """
    waiting = sum(len(client.recv(1 << 20, socket.MSG_PEEK)) for client in clients)
    still_open = sum(is_open(client) for client in clients)
    began = time.perf_counter()
    Reader(clients).wait(size * len(clients))
    return {
        "stalled_open": still_open,
        "stalled_received_share": waiting / len(clients) / size,
        "catch_up_seconds": time.perf_counter() - began,
    }


WORKLOADS = [
    single(
        "stalled",
        "× without",
        stalled,
        Target(at_most=1.2),
        title="time for a message when one viewer in ten has stopped reading",
        less=True,
        rivals=False,
    )
]
