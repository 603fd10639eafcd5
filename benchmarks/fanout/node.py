"""A node as one processor with a loop: hear, open connections, flush all that has gathered."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple, final

from benchmarks.fanout.costs import Costs
from benchmarks.fanout.histogram import Histogram


class News(NamedTuple):
    """A message of which a node hears: when, of which channel, its number there."""

    at: float
    channel: int
    number: int


class Opening(NamedTuple):
    """A viewer that comes back: when, to which channel, the first number it lacks, what it has.

    `known` is the last number that is in the log when the node begins to listen.
    """

    at: float
    channel: int
    lacks: int
    known: int


@final
class Node:
    """One process, from its first message to its last.

    In each turn of its scheduler it hears some messages and opens one connection, as these are
    there; then the flusher visits all viewers of channels that grew, with everything that has
    gathered, and lets the others have a turn every few milliseconds.

    Args:
        costs: of everything.
        viewers: how many watch each channel.
        published: when each message of each channel was published.
        latencies: of each delivery.
        recovered: of those of what was missed.

    Attributes:
        viewers: the same, with those that came since.
        flushed: the number of the last message each channel's viewers got.
        busy: seconds of processor time.
        sent: bytes.
        opened: how many came back to it.
        back: when the last one of them was served.
    """

    def __init__(
        self,
        costs: Costs,
        viewers: dict[int, int],
        published: dict[int, list[float]],
        latencies: Histogram,
        recovered: Histogram,
    ) -> None:
        self.viewers = dict(viewers)
        self.flushed: dict[int, int] = {}
        self.busy = 0.0
        self.sent = 0.0
        self.opened = 0
        self.back = 0.0
        self._costs = costs
        self._published = published
        self._latencies = latencies
        self._recovered = recovered
        self._now = 0.0
        self._wire = 0.0  # until when the network is busy
        self._gathered: dict[int, list[int]] = {}
        self._ahead: dict[tuple[int, int], int] = defaultdict(int)  # who had it elsewhere
        self._news: deque[News] = deque()
        self._openings: deque[Opening] = deque()

    def run(
        self, news: Iterable[News], openings: Iterable[Opening] = (), until: float = math.inf
    ) -> float:
        """Take all of it, each in order of time, and return when everything is sent.

        Args:
            until: when the node dies; viewers of a channel that are being served still are.
        """
        self._news, self._openings = deque(news), deque(openings)
        while self._now < until:
            self._take_turn()
            if self._gathered:
                self._flush(until)
            elif not self._wait():
                break
        return max(self._now, self._wire)

    def _wait(self) -> bool:
        """Let time pass until something comes; false if nothing will."""
        coming = [line[0].at for line in (self._news, self._openings) if line]
        if coming:
            self._now = max(self._now, min(coming))
        return bool(coming)

    def _take_turn(self) -> None:
        for _ in range(self._costs.hears):
            if not self._news or self._news[0].at > self._now:
                break
            _, channel, number = self._news.popleft()
            self._work(self._costs.hear)
            self._gathered.setdefault(channel, []).append(number)
        if self._openings and self._openings[0].at <= self._now:
            self._open(self._openings.popleft())

    def _work(self, seconds: float) -> None:
        self._now += seconds
        self.busy += seconds

    def _open(self, opening: Opening) -> None:
        """Open a connection, and give it what it missed."""
        _, channel, lacks, known = opening
        self._work(self._costs.opening)
        here = self.flushed.setdefault(channel, known)
        self.viewers[channel] = self.viewers.get(channel, 0) + 1
        for number in range(here + 1, lacks):  # this node is behind the one that died
            self._ahead[channel, number] += 1
        times = self._published[channel][lacks : here + 1]
        if times:
            self._send(1, len(times))
        for at in times:
            self._recovered.add(self._now - at)
        self.opened += 1
        self.back = self._now

    def _flush(self, until: float) -> None:
        """Visit the viewers of all channels that grew."""
        gathered, self._gathered = self._gathered, {}
        over = self._now + self._costs.turn
        for channel, numbers in gathered.items():
            if self._now >= until:
                return
            left = self.viewers.get(channel, 0)
            self.flushed[channel] = numbers[-1]
            skipped = [self._ahead.pop((channel, number), 0) for number in numbers]
            each = self._costs.send + self._costs.message * len(numbers)
            while left:
                if self._now >= over:
                    self._take_turn()
                    over = self._now + self._costs.turn
                count = min(left, max(1, math.ceil((over - self._now) / each)))
                left -= count
                self._serve(channel, numbers, count, skipped)

    def _serve(self, channel: int, numbers: list[int], count: int, skipped: list[int]) -> None:
        """Send so many viewers the same messages, one viewer after the other."""
        began = self._now
        ended = self._send(count, len(numbers))
        each = (ended - began) / count
        times = self._published[channel]
        for place, number in enumerate(numbers):
            fewer = min(skipped[place], count)
            skipped[place] -= fewer
            if count > fewer:
                self._latencies.spread(began + each - times[number], each, count - fewer)

    def _send(self, viewers: int, messages: int) -> float:
        """Send; return when the last byte is on its way."""
        costs = self._costs
        began = self._now
        self._work(viewers * (costs.send + costs.message * messages))
        size = viewers * (costs.header + costs.frame * messages)
        self.sent += size
        self._wire = max(self._wire, began) + size * 8 / costs.nic
        return max(self._now, self._wire)
