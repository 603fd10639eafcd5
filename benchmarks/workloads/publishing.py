"""Acknowledged publishing: requests and their answers, in memory and on disk."""

from __future__ import annotations

import socket
import tempfile
import time
from functools import partial

from benchmarks.candidates import Candidate, Source, Triows
from benchmarks.load import Asker, LoadError, read_message, send
from benchmarks.opening import close_all, open_all
from benchmarks.plan import Effort, Figures, Target, single
from benchmarks.process import ROOT, Server, running
from benchmarks.workloads.busy import Busy

ASKERS = 100
PUBLISHERS = 64  # with a store on disk


def check_answer(candidate: Candidate, payload: bytes, offset: int) -> None:
    """Check an answer, and that its marker stands in it once, whatever its header is.

    A few more digits of an offset lengthen the frame a little: no such length may look like
    the marker.
    """
    candidate.check(payload, offset)
    marker, near = candidate.marker, range(len(payload) - 1, len(payload) + 10)
    if payload.count(marker) != 1 or any(length % 256 == marker[0] for length in near):
        raise LoadError(f"the marker does not count this answer: {payload!r}")


def publish(candidate: Candidate, effort: Effort, *, window: int, askers: int = ASKERS) -> Figures:
    """Answers a second over many connections, `window` requests under way on each."""
    with running(candidate.command()) as server:
        clients = open_all(server.port, [candidate.asker()] * askers)
        try:
            return _publish(candidate, effort.seconds, window, server, clients)
        finally:
            close_all(clients)


def durable(candidate: Candidate, effort: Effort, *, window: int) -> Figures:
    """How fast 64 publishers are with a store on disk, as a part of that in memory."""
    memory = publish(candidate, effort, window=window, askers=PUBLISHERS)
    with tempfile.TemporaryDirectory(prefix=".store-", dir=ROOT) as place:
        stored = Triows(f"sqlite:///{place}/bench.db")
        disk = publish(stored, effort, window=window, askers=PUBLISHERS)
    rates = {"memory_rate": memory["value"], "sqlite_rate": disk["value"]}
    return {**disk, **rates, "value": disk["value"] / memory["value"]}


def _publish(
    candidate: Candidate,
    seconds: float,
    window: int,
    server: Server,
    clients: list[socket.socket],
) -> Figures:
    counts = [0] * len(clients)
    sources = [candidate.requests(number) for number in range(len(clients))]

    def counted(number: int, count: int) -> bytes:
        counts[number] += count
        return sources[number](count)

    def ask_one() -> None:
        for number, client in enumerate(clients):
            send(client, counted(number, 1))
            check_answer(candidate, read_message(client, candidate.pings), counts[number])

    ask_one()
    counting: list[Source] = [partial(counted, number) for number in range(len(clients))]
    asker = Asker(clients, candidate.marker, counting, window)
    asker.start()
    asker.run(time.perf_counter() + seconds * 0.2)
    before, busy, began = asker.answered, Busy(server), time.perf_counter()
    asker.run(began + seconds)
    elapsed = time.perf_counter() - began
    figures = busy.figures()
    asker.finish()
    ask_one()
    return {"value": (asker.answered - before) / elapsed, **figures}


WORKLOADS = [
    single(
        "publish-1",
        "acks/s",
        partial(publish, window=1),
        Target(at_least=0.8, rival="websockets"),
        title=f"acknowledged publishing, {ASKERS} connections, one under way on each",
    ),
    single(
        "publish-32",
        "acks/s",
        partial(publish, window=32),
        Target(at_least=3, rival="websockets"),
        title="the same, 32 under way",
    ),
    single(
        "publish-64",
        "× memory, sqlite",
        partial(durable, window=1),
        Target(at_least=0.5),
        title=f"kept in SQLite, as a part of that in memory, {PUBLISHERS} connections",
        rivals=False,
    ),
    single(
        "publish-64x32",
        "× memory, sqlite",
        partial(durable, window=32),
        title="the same, 32 under way on each",
        rivals=False,
    ),
]
