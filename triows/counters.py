"""Counters for metrics: plain additions, read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final, final

LATENCIES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds; the bounds of the buckets of everything that should be quick."""


@final
class Histogram:
    """How often values fell between fixed bounds.

    Attributes:
        bounds: the upper bounds, each included in its bucket.
        counts: values in each bucket; the last one is for those above all bounds.
        total: the sum of all values.
        longest: the largest value.
    """

    __slots__ = ("bounds", "counts", "longest", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCIES) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.longest = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        if value > self.longest:
            self.longest = value


@final
class Counts:
    """What nobody else counts, of a whole server.

    Attributes:
        errors: requests of clients that were refused, by error code.
        answers: HTTP requests answered by the API, by status.
    """

    __slots__ = ("answers", "errors")

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
