"""The storm after an outage: thousands come back, and want what they missed, at once."""

from __future__ import annotations

import socket
import time

from benchmarks.candidates import MARKER, Candidate
from benchmarks.frames import split_frame
from benchmarks.load import LoadError, Reader, read_message, receive, send, wait_readable
from benchmarks.opening import close_all, open_all
from benchmarks.plan import Effort, Figures, Row, Workload
from benchmarks.process import Server, running
from benchmarks.workloads.busy import Busy
from benchmarks.workloads.fanout import watched

MISSED = 1000
"""Messages that each of them missed."""

MB = 1_000_000


def recovery(candidate: Candidate, effort: Effort) -> Figures:
    """Seconds until all viewers have what they missed, and the bytes a second.

    They are connected, their tokens checked, when time begins; then all ask at once.
    """
    candidate.resumption(b"")  # raises at once if there is none
    with running(candidate.command()) as server:
        request = _miss(candidate, server)
        sample, *viewers = open_all(server.port, [candidate.asker()] * (effort.connections + 1))
        try:
            size = _resume(candidate, sample, request)
            return _storm(server, viewers, request, size)
        finally:
            close_all([sample, *viewers])


def _miss(candidate: Candidate, server: Server) -> bytes:
    """Publish what they missed; return what resumes before it."""
    [early] = open_all(server.port, [candidate.asker()])
    try:
        send(early, candidate.resumption(b""))
        request = candidate.resumption(read_message(early))
        with watched(candidate, server, 1) as channel:  # publishes one
            channel.publish(1, lambda done, _: done < MISSED - 1)
    finally:
        early.close()
    return request


def _resume(candidate: Candidate, client: socket.socket, request: bytes) -> int:
    """Have one resume, check what comes, and return how many bytes that is."""
    send(client, request)
    data, size, messages = b"", 0, 0
    while messages < MISSED:
        wait_readable(client)
        received = receive(client)
        if not received:
            raise LoadError(f"the connection was closed after {messages} messages")
        size += len(received)
        data += received
        while (parts := split_frame(data)) is not None:
            _, payload, data = parts
            if MARKER in payload:
                messages += 1
                candidate.check(payload, messages)
    if data:
        raise LoadError(f"more than the {MISSED} missed messages came: {data!r}")
    return size


def _storm(server: Server, viewers: list[socket.socket], request: bytes, size: int) -> Figures:
    reader, busy, began = Reader(viewers), Busy(server), time.perf_counter()
    for viewer in viewers:
        send(viewer, request)
    reader.wait(size * len(viewers))
    elapsed = time.perf_counter() - began
    rate = size * len(viewers) / elapsed
    return {"value": elapsed, "rate": rate / MB, "viewers": len(viewers), **busy.figures()}


WORKLOADS = [
    Workload(
        "recovery",
        recovery,
        (
            Row(
                "recovery",
                "s",
                title=f"5000 viewers resume {MISSED} missed messages each, until all have them",
                less=True,
            ),
            Row("recovery-rate", "MB/s", title="the same, bytes a second", figure="rate"),
        ),
    )
]
