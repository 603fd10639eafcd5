"""The work: each workload drives one candidate, freshly started, and returns its figures."""

from __future__ import annotations

import gc
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial

from benchmarks import load
from benchmarks.candidates import MARKER, Candidate, Source, Triows
from benchmarks.frames import server_frame
from benchmarks.load import Asker, Keeper, LoadError, Reader, read_message, send
from benchmarks.opening import OPENING, close_all, connect, is_open, open_all
from benchmarks.plan import Effort, Figures, Target, Workload
from benchmarks.process import ROOT, Server, running

SUBSCRIBERS = 1000
ASKERS = 100
PUBLISHERS = 64  # with a store on disk
STALLED = 100  # of the SUBSCRIBERS
PING_INTERVAL = 20.0  # seconds, for those that are held for long
KIB = 1024


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


# Fan-out


class Channel:
    """A publisher and its viewers.

    Attributes:
        published: how many messages so far.
        size: their bytes, as one viewer gets them.
    """

    def __init__(
        self, candidate: Candidate, publisher: socket.socket, viewers: list[socket.socket]
    ) -> None:
        self.published = 0
        self.size = 0
        self._candidate = candidate
        self._publisher = publisher
        self._viewers = viewers
        self._first = 0  # length of the first message
        self.publish_one()
        self._reader = Reader(viewers)

    def publish_one(self) -> None:
        """Publish one message and check it as each viewer got it."""
        send(self._publisher, self._candidate.message())
        self.published += 1
        for viewer in self._viewers:
            payload = read_message(viewer)
            self._candidate.check(payload, self.published)
            self._first = self._first or len(server_frame(payload))
        self.size += self._length(self.published)

    def _length(self, offset: int) -> int:
        return self._first + self._candidate.growth(offset)

    def publish(self, window: int, go_on: Callable[[int, float], bool]) -> tuple[int, float]:
        """Publish so many at a time, the next when every viewer has got them.

        Args:
            window: how many.
            go_on: asked with the messages so far, and the seconds they took.

        Returns:
            the last two.
        """
        frames, read = self._candidate.message() * window, self._reader.wait
        viewers = len(self._viewers)
        messages, elapsed, began = 0, 0.0, time.perf_counter()
        while go_on(messages, elapsed):
            send(self._publisher, frames)
            first = self.published + 1
            size = sum(map(self._length, range(first, first + window)))
            read(size * viewers)
            self.published += window
            self.size += size
            messages += window
            elapsed = time.perf_counter() - began
        return messages, elapsed


def fan_out(candidate: Candidate, effort: Effort, *, window: int) -> Figures:
    """Deliveries a second, `window` messages under way: the next when everybody has the last."""
    with running(candidate.command()) as server:
        scripts = [candidate.subscriber()] * SUBSCRIBERS
        publisher, *viewers = open_all(server.port, [candidate.publisher(), *scripts])
        try:
            channel = Channel(candidate, publisher, viewers)
            channel.publish(window, lambda _, elapsed: elapsed < effort.seconds * 0.2)
            busy = Busy(server)
            messages, elapsed = channel.publish(window, lambda _, spent: spent < effort.seconds)
            figures = busy.figures()
            channel.publish_one()
        finally:
            close_all([publisher, *viewers])
    return {"value": messages * len(viewers) / elapsed, "messages": messages, **figures}


# Requests and answers


def check_answer(candidate: Candidate, payload: bytes, offset: int) -> None:
    """Check an answer, and that its marker stands in it once, whatever its header is.

    A few more digits of an offset lengthen the frame a little: no such length may look like
    the marker.
    """
    candidate.check(payload, offset)
    near = range(len(payload) - 1, len(payload) + 10)
    if payload.count(MARKER) != 1 or any(length % 256 == MARKER[0] for length in near):
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
            check_answer(candidate, read_message(client), counts[number])

    ask_one()
    counting: list[Source] = [partial(counted, number) for number in range(len(clients))]
    asker = Asker(clients, MARKER, counting, window)
    asker.start()
    asker.run(time.perf_counter() + seconds * 0.2)
    before, busy, began = asker.answered, Busy(server), time.perf_counter()
    asker.run(began + seconds)
    elapsed = time.perf_counter() - began
    figures = busy.figures()
    asker.finish()
    ask_one()
    return {"value": (asker.answered - before) / elapsed, **figures}


# Connections


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


def idle_memory(candidate: Candidate, effort: Effort) -> Figures:
    """KiB of resident memory for each of 1000 subscribers."""
    with running(candidate.command()) as server:
        figures = _idle(candidate, server, SUBSCRIBERS, 1.0)
    return {"value": figures["kib"], **figures}


def idle_many(candidate: Candidate, effort: Effort) -> Figures:
    """How many of 10,000 connections are still up after a while, with pings."""
    with running(candidate.command(ping_interval=PING_INTERVAL)) as server:
        figures = _idle(candidate, server, 10_000, effort.hold)
    return {"value": figures["up"], **figures}


def _idle(candidate: Candidate, server: Server, count: int, seconds: float) -> Figures:
    time.sleep(0.5)
    empty, began, keeper = server.memory(), time.perf_counter(), Keeper()
    clients = open_all(server.port, [candidate.subscriber()] * count, keeper=keeper)
    try:
        opening = time.perf_counter() - began
        keeper.hold(seconds)
        up = min(sum(is_open(client) for client in clients), count - keeper.ended)
        kib = (server.memory() - empty) / count / KIB
        return {"up": up, "kib": kib, "opening": opening, "pings": keeper.pings}
    finally:
        close_all(clients)


# Stalled viewers


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
    Workload(
        "fanout-1",
        "deliveries/s",
        partial(fan_out, window=1),
        Target(at_least=1.2, rival="websockets"),
    ),
    Workload(
        "fanout-16",
        "deliveries/s",
        partial(fan_out, window=16),
        Target(at_least=10, rival="websockets"),
    ),
    Workload("fanout-64", "deliveries/s", partial(fan_out, window=64)),
    Workload(
        "publish-1", "acks/s", partial(publish, window=1), Target(at_least=0.6, rival="websockets")
    ),
    Workload(
        "publish-32",
        "acks/s",
        partial(publish, window=32),
        Target(at_least=1.5, rival="websockets"),
    ),
    Workload(
        "publish-64",
        "× memory, sqlite",
        partial(durable, window=1),
        Target(at_least=0.5),
        rivals=False,
    ),
    Workload("publish-64x32", "× memory, sqlite", partial(durable, window=32), rivals=False),
    Workload("storm", "connections/s", storm),
    Workload("idle-memory", "KiB/connection", idle_memory, Target(at_most=40)),
    Workload("idle-10000", "still up", idle_many, Target(at_least=10_000), rounds=1),
    Workload("stalled", "times", stalled, Target(at_most=1.2), rivals=False),
]
