"""How the cost of a message grows, as slopes: of the logarithm of its cost over that of a size.

Cost is the processor time of the server per message, and the time that passes. 1 is linear, 0 is
flat. The measuring is the same for each size, only the size differs.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from itertools import cycle, islice, pairwise
from pathlib import Path

import attrs

from benchmarks.candidates import SIZE, Candidate
from benchmarks.frames import client_frame
from benchmarks.load import LoadError, read_message, receive, send, wait_readable
from benchmarks.numbers import slope
from benchmarks.opening import Script, close_all, open_all
from benchmarks.plan import Effort, Figures, Row, Run, Target, Workload
from benchmarks.process import Server, running
from benchmarks.workloads.fanout import Channel, watched

LINEAR = Target(at_most=1)
FLAT = Target(at_most=0.1)
"""Ten times as much costs a quarter more, no more."""

VIEWERS = 100
"""Where their number is not what grows."""

SUBSCRIBERS = (10, 100, 1000, 5000)
CHANNELS = (10, 100, 1000, 10_000)
LENGTHS = (100, 1000, 10_000, 100_000)
SUBSCRIPTIONS = (1, 10, 100, 1000)
IDLE = (10, 100, 1000, 5000)

BATCH = 64
"""Messages that are under way where nobody watches."""


@attrs.frozen
class Cost:
    """What a message costs, in seconds.

    Attributes:
        processor: of the server.
        wall: that passed.
    """

    processor: float
    wall: float


def subscribers(candidate: Candidate, effort: Effort) -> Figures:
    """Cost by number of subscribers, one message at a time."""
    costs = {}
    for count in SUBSCRIBERS:
        with running(candidate.command()) as server, watched(candidate, server, count) as channel:
            costs[count] = _of_channel(channel, server, effort, 1)
    return _figures(costs)


def channels(candidate: Candidate, effort: Effort) -> Figures:
    """Cost by number of channels, which are published to in turn."""
    costs = {}
    for count in CHANNELS:
        with running(candidate.command()) as server:
            clients = open_all(server.port, [candidate.asker()])
            try:
                costs[count] = _in_turn(clients[0], count, server, effort)
            finally:
                close_all(clients)
    return _figures(costs)


def log_length(candidate: Candidate, effort: Effort) -> Figures:
    """Cost by length of a log that is full: each message drives one out."""
    costs = {}
    for count in LENGTHS:
        command = [*candidate.command(), "--log-messages", str(count)]
        with running(command) as server, watched(candidate, server, 10) as channel:
            for _ in range(count // BATCH + 1):
                channel.publish(BATCH, lambda done, _: not done)
            costs[count] = _of_channel(channel, server, effort, 16)
    return _figures(costs)


def subscriptions(candidate: Candidate, effort: Effort) -> Figures:
    """Cost by channels that each of 100 viewers watches, of which one is published to."""
    costs = {}
    with running(candidate.command()) as server:
        with watched(candidate, server, VIEWERS) as channel:
            watching = 1
            for count in SUBSCRIPTIONS:
                for viewer in channel.sockets:
                    _subscribe(viewer, range(watching, count))
                watching = count
                costs[count] = _of_channel(channel, server, effort, 1)
    return _figures(costs)


def idle(candidate: Candidate, effort: Effort) -> Figures:
    """Cost by idle connections, which watch another channel, beside 100 viewers."""
    costs = {}
    script: Script = [*candidate.asker(), (_subscription("session:idle"), b'"type":"ack"')]
    with running(candidate.command()) as server, ExitStack() as stack:
        channel = stack.enter_context(watched(candidate, server, VIEWERS))
        opened = 0
        for count in IDLE:
            clients = open_all(server.port, [script] * (count - opened))
            stack.callback(close_all, clients)
            opened = count
            costs[count] = _of_channel(channel, server, effort, 1)
    return _figures(costs)


def _of_channel(channel: Channel, server: Server, effort: Effort, window: int) -> Cost:
    """Publish for a while and return what a message cost."""
    channel.publish(window, lambda _, elapsed: elapsed < effort.seconds * 0.1)
    before = _processor(server)
    messages, elapsed = channel.publish(window, lambda _, spent: spent < effort.seconds / 3)
    return Cost((_processor(server) - before) / messages, elapsed / messages)


def _in_turn(client: socket.socket, count: int, server: Server, effort: Effort) -> Cost:
    """Publish to each of so many channels, again and again; the last of a batch is answered."""
    frames = cycle([_message(f"session:bench-{number}") for number in range(count)])
    serial = 0

    def publish_batch() -> None:
        nonlocal serial
        serial += 1
        last = _message("session:bench-0", str(serial))
        send(client, b"".join(islice(frames, BATCH - 1)) + last)
        if b'"type":"ack"' not in (answer := read_message(client)):
            raise LoadError(f"this is no acknowledgement: {answer!r}")

    for _ in range(count // (BATCH - 1) + 1):  # makes the channels
        publish_batch()
    messages, before, began = 0, _processor(server), time.perf_counter()
    while (elapsed := time.perf_counter() - began) < effort.seconds / 3:
        publish_batch()
        messages += BATCH
    return Cost((_processor(server) - before) / messages, elapsed / messages)


def _message(channel: str, id: str = "") -> bytes:
    message: dict[str, object] = {"type": "log", "channel": channel, "data": {"text": "x" * SIZE}}
    if id:
        message["id"] = id
    return _frame(message)


def _subscription(channel: str) -> bytes:
    return _frame({"type": "subscribe", "id": "s", "channel": channel})


def _frame(message: dict[str, object]) -> bytes:
    return client_frame(json.dumps(message, separators=(",", ":")).encode())


def _subscribe(viewer: socket.socket, numbers: range) -> None:
    """Have it watch so many more channels."""
    for first in range(numbers.start, numbers.stop, BATCH):
        some = range(first, min(first + BATCH, numbers.stop))
        send(viewer, b"".join(_subscription(f"session:other-{number}") for number in some))
        heard = b""
        while heard.count(b'"type":"ack"') < len(some) or not heard.endswith(b'Z"}'):
            wait_readable(viewer, heard)
            received = receive(viewer)
            if not received:
                raise LoadError(f"the connection was closed after {heard[-1000:]!r}")
            heard += received


def _processor(server: Server) -> float:
    """Return the processor seconds of the server's thread, finer than `Server.busy`."""
    return int(Path(f"/proc/{server.pid}/schedstat").read_text().split()[0]) / 1e9


def _figures(costs: dict[int, Cost]) -> Figures:
    """Return both slopes, the steepest piece, and all points in microseconds."""
    processor = {float(size): cost.processor for size, cost in costs.items()}
    wall = {float(size): cost.wall for size, cost in costs.items()}
    pieces = pairwise(processor.items())
    figures = {
        "value": slope(processor),
        "wall": slope(wall),
        "steepest": max(slope(dict(piece)) for piece in pieces),
    }
    for size, cost in costs.items():
        figures[point_name("processor", size)] = cost.processor * 1e6
        figures[point_name("wall", size)] = cost.wall * 1e6
    return figures


def point_name(cost: str, size: int) -> str:
    """Return the name of a point among the figures: `processor` or `wall` at a size."""
    return f"{cost} µs at {size}"


def points(figures: Figures, cost: str) -> dict[int, float]:
    """Return the points of a kind of cost, in microseconds, by size."""
    start = point_name(cost, 0)[:-1]
    return {int(n.removeprefix(start)): f for n, f in figures.items() if n.startswith(start)}


def _slope(name: str, run: Run, target: Target, title: str) -> Workload:
    rows = (
        Row(f"slope-{name}", "slope", (target,), f"cost of a message by {title}", less=True),
        Row(
            f"slope-{name}-wall",
            "slope",
            (target,),
            "the same, of the time that passes",
            "wall",
            less=True,
        ),
    )
    return Workload(f"slope-{name}", run, rows, rivals=False)


WORKLOADS = [
    _slope("subscribers", subscribers, LINEAR, "subscribers"),
    _slope("channels", channels, LINEAR, "channels"),
    _slope("log", log_length, FLAT, "length of the log"),
    _slope("subscriptions", subscriptions, LINEAR, "subscriptions of each viewer"),
    _slope("idle", idle, FLAT, "idle connections beside"),
]
