"""`python -m benchmarks.nodes`: two servers over one Redis, beside one server in memory.

A publisher is at one node, the viewers are at the other. Both nodes and Redis share one core, as
the one server in memory has it alone; the load generator has the other. So rates are of the
work that all three do together; the processor time of each is told beside them.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeAlias

import attrs

from benchmarks import report
from benchmarks.candidates import MARKER, Triows
from benchmarks.frames import server_frame
from benchmarks.load import Asker, Reader, read_message, send
from benchmarks.opening import close_all, open_all
from benchmarks.process import Server, prepare, running
from benchmarks.redis_server import Redis, running_redis, sent_by_nodes

Figures: TypeAlias = dict[str, float]

SECONDS: Final = 3.0  # measured, of each load
WARMING: Final = 0.5  # seconds before that
SAMPLES: Final = 2000  # messages whose latency is taken, one at a time
VIEWERS: Final = 1000
AT_ONCE: Final = 100  # of them opened, for a busy machine
WINDOW: Final = 16  # messages under way in the fan-out
PUBLISHERS: Final = 64
WINDOW_EACH: Final = 32  # messages under way from each of them


@attrs.frozen
class Place:
    """Where publishers and viewers go: two nodes of one store, or twice the same server.

    Attributes:
        candidate: how to speak to them.
        here, there: the servers.
        redis: what is between, or None.
    """

    candidate: Triows
    here: Server
    there: Server
    redis: Redis | None

    def processes(self) -> dict[str, Server]:
        """Return all of them, by what they are."""
        if self.redis is None:
            return {"server": self.here}
        return {"here": self.here, "there": self.there, "redis": self.redis.server}


@contextmanager
def in_memory() -> Iterator[Place]:
    """Run one server that keeps everything in memory."""
    candidate = Triows()
    with running(candidate.command()) as server:
        yield Place(candidate, server, server, None)


@contextmanager
def over_redis() -> Iterator[Place]:
    """Run two servers over a Redis."""
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        candidate = Triows(redis.url)
        here, there = (stack.enter_context(running(candidate.command())) for _ in range(2))
        yield Place(candidate, here, there, redis)


class Meter:
    """What the processes and Redis do while something is measured."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._calls = place.redis.calls() if place.redis is not None else {}
        self._bytes = place.redis.published_bytes() if place.redis is not None else 0
        self._busy = {name: server.busy() for name, server in place.processes().items()}
        self._began = time.perf_counter()

    def figures(self, messages: int) -> Figures:
        """Return, for each message, processor time and commands; ends the measuring."""
        elapsed = time.perf_counter() - self._began
        figures: Figures = {"messages_per_second": messages / elapsed}
        for name, server in self._place.processes().items():
            figures[f"{name}_us"] = (server.busy() - self._busy[name]) / messages * 1e6
        if self._place.redis is not None:
            after = self._place.redis.calls()
            sent = sent_by_nodes(self._calls, after)
            run = sum(after.values()) - sum(self._calls.values())
            figures["commands"] = sent / messages
            figures["called_by_scripts"] = (run - sent) / messages
            bytes_ = self._place.redis.published_bytes() - self._bytes
            figures["redis_bytes"] = bytes_ / messages
        return figures


class Fan:
    """A publisher at one node, and viewers at the other."""

    def __init__(self, place: Place, viewers: int) -> None:
        candidate = place.candidate
        self._candidate = candidate
        (self._publisher,) = open_all(place.here.port, [candidate.publisher()])
        self._viewers: list[socket.socket] = []
        while len(self._viewers) < viewers:
            count = min(AT_ONCE, viewers - len(self._viewers))
            self._viewers += open_all(place.there.port, [candidate.subscriber()] * count)
        self._published = 0
        self._first = 0  # length of the first message
        self._publish_one()
        self._reader = Reader(self._viewers)

    def _publish_one(self) -> None:
        send(self._publisher, self._candidate.message())
        self._published += 1
        for viewer in self._viewers:
            payload = read_message(viewer)
            self._candidate.check(payload, self._published)
            self._first = self._first or len(server_frame(payload))

    def publish(self, window: int) -> None:
        """Publish so many, and return when every viewer has them."""
        send(self._publisher, self._candidate.message() * window)
        offsets = range(self._published + 1, self._published + window + 1)
        size = sum(self._first + self._candidate.growth(offset) for offset in offsets)
        self._reader.wait(size * len(self._viewers))
        self._published += window

    def run(self, seconds: float, window: int) -> int:
        """Publish for some time; return how many."""
        began, before = time.perf_counter(), self._published
        while time.perf_counter() - began < seconds:
            self.publish(window)
        return self._published - before

    def close(self) -> None:
        """Check one more message, and close all connections."""
        try:
            self._publish_one()
        finally:
            close_all([self._publisher, *self._viewers])


def latency(place: Place) -> Figures:
    """Milliseconds from sending a message to its arrival at one viewer, one under way."""
    fan = Fan(place, 1)
    fan.run(WARMING, 1)
    taken: list[float] = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        fan.publish(1)
        taken.append((time.perf_counter() - began) * 1000)
    fan.close()
    cuts = quantiles(taken, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


def fan_out(place: Place) -> Figures:
    """Deliveries a second to many viewers of one channel."""
    fan = Fan(place, VIEWERS)
    fan.run(WARMING, WINDOW)
    meter = Meter(place)
    figures = meter.figures(fan.run(SECONDS, WINDOW))
    fan.close()
    return {"deliveries_per_second": figures["messages_per_second"] * VIEWERS, **figures}


def publishing(place: Place) -> Figures:
    """Acknowledged messages a second, of many publishers at both nodes, each on its channel."""
    candidate = place.candidate
    half = [candidate.asker()] * (PUBLISHERS // 2)
    clients = open_all(place.here.port, half) + open_all(place.there.port, half)
    try:
        sources = [candidate.requests(number) for number in range(PUBLISHERS)]
        return _publishing(place, clients, Asker(clients, MARKER, sources, WINDOW_EACH))
    finally:
        close_all(clients)


def _publishing(place: Place, clients: list[socket.socket], asker: Asker) -> Figures:
    asker.start()
    asker.run(time.perf_counter() + WARMING)
    before, meter = asker.answered, Meter(place)
    asker.run(time.perf_counter() + SECONDS)
    figures = meter.figures(asker.answered - before)
    asker.finish()
    return figures


WORK: Final[dict[str, Callable[[Place], Figures]]] = {
    "latency": latency,
    "fan-out": fan_out,
    "publishing": publishing,
}
PLACES: Final = {"memory": in_memory, "two nodes": over_redis}


def main() -> int:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    arguments = parser.parse_args()
    prepare()
    facts = report.environment([Triows()])
    print(report.describe_environment(facts), flush=True)
    results: dict[str, dict[str, list[Figures]]] = {}
    for _ in range(arguments.rounds):
        for work, measure in WORK.items():
            for name, run in PLACES.items():
                with run() as place:
                    results.setdefault(work, {}).setdefault(name, []).append(measure(place))
    for work, places in results.items():
        _show(work, places)
    if arguments.json:
        load = os.getloadavg()[0]
        report.write_json(arguments.json, environment=facts, load_average=load, results=results)
    return 0


def _show(work: str, places: dict[str, list[Figures]]) -> None:
    print(f"\n{work}")
    for name, rounds in places.items():
        for figure in rounds[0]:
            values = [one[figure] for one in rounds]
            spread = f"({min(values):,.2f}-{max(values):,.2f})"
            print(f"  {name:10} {figure:24} {median(values):14,.2f} {spread}")


if __name__ == "__main__":
    sys.exit(main())
