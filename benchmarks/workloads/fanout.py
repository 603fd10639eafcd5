"""Fan-out: one publisher, and many viewers of one channel."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

from benchmarks.candidates import Candidate
from benchmarks.frames import server_frame
from benchmarks.load import read_message, send
from benchmarks.opening import close_all, open_all
from benchmarks.pacing import Paced, PacedReader
from benchmarks.plan import OTHERS, Effort, Figures, Row, Target, Workload, single
from benchmarks.process import Server, running
from benchmarks.workloads.busy import Busy

SUBSCRIBERS = 1000


class Channel:
    """A publisher and its viewers.

    Attributes:
        sockets: the viewers.
        viewers: how many they are.
        published: how many messages so far.
        size: bytes of those of its own, as one viewer gets them.
    """

    def __init__(
        self,
        candidate: Candidate,
        publisher: socket.socket,
        viewers: list[socket.socket],
        published: int = 0,
    ) -> None:
        self.viewers = len(viewers)
        self.published = published
        self.size = 0
        self._candidate = candidate
        self._publisher = publisher
        self.sockets = viewers
        self._first = 0  # length of the first message
        self.publish_one()
        self._reader = PacedReader(viewers, candidate.packed)

    def publish_one(self) -> None:
        """Publish one message and check it as each viewer got it."""
        send(self._publisher, self._candidate.message())
        self.published += 1
        for viewer in self.sockets:
            payload = read_message(viewer, self._candidate.pings)
            self._candidate.check(payload, self.published)
            length = len(server_frame(payload)) - self._candidate.growth(self.published)
            self._first = self._first or length
        self.size += self._length(self.published)

    def _length(self, offset: int) -> int:
        """Return how much of what is counted the message at `offset` is."""
        return 1 if self._candidate.packed else self._first + self._candidate.growth(offset)

    def publish(self, window: int, go_on: Callable[[int, float], bool]) -> tuple[int, float]:
        """Publish so many at a time, the next when every viewer has got them.

        Args:
            window: how many.
            go_on: asked with the messages so far, and the seconds they took.

        Returns:
            the last two.
        """
        frames, read = self._candidate.message() * window, self._reader.wait
        messages, elapsed, began = 0, 0.0, time.perf_counter()
        while go_on(messages, elapsed):
            send(self._publisher, frames)
            first = self.published + 1
            size = sum(map(self._length, range(first, first + window)))
            read(size * self.viewers)
            self.published += window
            self.size += size
            messages += window
            elapsed = time.perf_counter() - began
        return messages, elapsed

    def pace(self, rate: float, count: int) -> Paced:
        """Publish `count` messages, `rate` a second, until every viewer has got them."""
        first = self.published + 1
        ends = list(accumulate(map(self._length, range(first, first + count))))
        paced = self._reader.pace(self._publisher, self._candidate.message(), rate, ends)
        self.published += count
        self.size += ends[-1]
        return paced


@contextmanager
def watched(
    candidate: Candidate, server: Server, viewers: int, published: int = 0
) -> Iterator[Channel]:
    """Open a channel with that many viewers; close all its connections in the end.

    Args:
        published: how many messages it had before.
    """
    scripts = [candidate.publisher(), *[candidate.subscriber()] * viewers]
    clients = open_all(server.port, scripts)
    try:
        yield Channel(candidate, clients[0], clients[1:], published)
    finally:
        close_all(clients)


def fan_out(candidate: Candidate, effort: Effort, *, window: int) -> Figures:
    """Deliveries a second, `window` messages under way: the next when everybody has the last."""
    with (
        running(candidate.command()) as server,
        watched(candidate, server, SUBSCRIBERS) as channel,
    ):
        return _measure(channel, effort.seconds, window, server)


def fan_out_each(
    candidate: Candidate, effort: Effort, *, viewers: int, windows: tuple[int, ...]
) -> Figures:
    """The same with each of several windows, `x1` and so on, over the same connections."""
    figures: Figures = {"generator_busy": 0, "server_busy": 1}
    with (
        running(candidate.command()) as server,
        watched(candidate, server, viewers) as channel,
    ):
        for window in windows:
            found = _measure(channel, effort.seconds, window, server)
            figures[f"x{window}"] = found["value"]
            figures[f"x{window} messages"] = found["messages"]
            figures["generator_busy"] = max(figures["generator_busy"], found["generator_busy"])
            figures["server_busy"] = min(figures["server_busy"], found["server_busy"])
    return figures


def _measure(channel: Channel, seconds: float, window: int, server: Server) -> Figures:
    channel.publish(window, lambda _, elapsed: elapsed < seconds * 0.2)
    busy = Busy(server)
    messages, elapsed = channel.publish(window, lambda _, spent: spent < seconds)
    figures = busy.figures()
    channel.publish_one()
    return {"value": messages * channel.viewers / elapsed, "messages": messages, **figures}


def _words(viewers: int, window: int) -> str:
    under_way = "one message at a time" if window == 1 else f"{window} under way"
    return f"fan-out to {viewers:,}, {under_way}"


def _single(window: int, *targets: Target) -> Workload:
    return single(
        f"fanout-{window}",
        "deliveries/s",
        partial(fan_out, window=window),
        *targets,
        title=_words(SUBSCRIBERS, window),
    )


def _several(viewers: int, *windows: int, rounds: int = 100) -> Workload:
    rows = tuple(
        Row(
            f"fanout-{viewers}x{window}",
            "deliveries/s",
            title=_words(viewers, window),
            figure=f"x{window}",
        )
        for window in windows
    )
    run = partial(fan_out_each, viewers=viewers, windows=windows)
    return Workload(f"fanout-{viewers}", run, rows, rounds)


WORKLOADS = [
    _single(1, Target(at_least=0.75, rival="bun"), Target(at_least=1, rival=OTHERS)),
    _single(16, Target(at_least=1, rival="bun"), Target(at_least=1, rival=OTHERS)),
    _single(64, Target(at_least=1, rival="bun"), Target(at_least=1, rival=OTHERS)),
    _several(10, 1, 16, 64),
    _several(10_000, 1, 16, rounds=2),  # opening takes longer than all else
]
