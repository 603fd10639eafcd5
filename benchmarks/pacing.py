"""The load generator at a fixed rate: when each message was due, and when it arrived.

A message counts from when it was due, not from when it was sent: what makes the sender late, be it
the server that reads no more or the generator itself, is part of what a viewer waits for. How late
the generator was is told beside it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import attrs

from benchmarks import load
from benchmarks.load import BUFFER, PATIENCE, LoadError, Reader, send
from benchmarks.numbers import Arrival, latencies, percentile
from benchmarks.plan import Figures

AT_ONCE = 64
"""Viewers read from before looking at the clock again: about a tenth of a millisecond."""


@attrs.frozen
class Paced:
    """What came of messages at a fixed rate.

    Attributes:
        late: by how many seconds each was sent too late.
        latencies: seconds from when it was due to each viewer, for each message.
    """

    late: list[float]
    latencies: list[float]

    def figures(self) -> Figures:
        """Return percentiles in milliseconds."""
        ordered, late = sorted(self.latencies), sorted(self.late)
        return {
            "p50": percentile(ordered, 50) * 1000,
            "p99": percentile(ordered, 99) * 1000,
            "p99.9": percentile(ordered, 99.9) * 1000,
            "most": ordered[-1] * 1000,
            "late_p99": percentile(late, 99) * 1000,
        }


class PacedReader(Reader):
    """Reads from many connections while messages are sent at a fixed rate."""

    def pace(
        self, publisher: socket.socket, frame: bytes, rate: float, ends: Sequence[int]
    ) -> Paced:
        """Send a message each 1/`rate` seconds; read until every viewer has them all.

        Args:
            publisher: the connection they are sent on.
            frame: the message.
            rate: messages a second.
            ends: where each one ends, in the bytes that a viewer gets.
        """
        clock, viewers = time.perf_counter, len(self._receive)
        missing, sent, began = ends[-1] * viewers, 0, clock() + 1 / rate
        due = [began + number / rate for number in range(len(ends))]
        late: list[float] = []
        arrivals: list[Arrival] = []
        heard = began
        while missing > 0 or sent < len(due):
            now = clock()
            if sent < len(due) and now >= due[sent]:
                send(publisher, frame)
                late.append(now - due[sent])
                sent += 1
            if received := self.take(arrivals):
                missing -= received
                heard = now
            else:
                load.idle_seconds += clock() - now
                if now - heard > PATIENCE:
                    raise LoadError(f"nothing came for {PATIENCE:g} s")
        if missing:
            raise LoadError(f"{-missing} {self._unit()} too many")
        return Paced(late, latencies(arrivals, due, ends))

    def take(self, arrivals: list[Arrival]) -> int:
        """Read what is there from some, and note it; return how many of what is counted."""
        receive, buffer, clock = self._receive, self._buffer, time.perf_counter
        total = 0
        for fd, _ in self._poll.poll(0, AT_ONCE):
            received = receive[fd](buffer)
            counted = buffer.count(self._marker, 0, received) if self._marker else received
            if received == BUFFER:
                counted += self._rest(fd)
            elif not received:
                raise LoadError("a connection was closed")
            arrivals.append((fd, counted, clock()))
            total += counted
        return total
