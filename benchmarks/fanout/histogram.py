"""Latencies of millions of deliveries, in buckets that grow by a fiftieth."""

from __future__ import annotations

import math
from typing import final

LEAST = 1e-5  # seconds; what is less counts as that
_STEP = math.log(1.02)
_PIECES = 16  # a row of deliveries is counted in at most so many


@final
class Histogram:
    """Counts deliveries by their latency.

    Attributes:
        count: of all.
    """

    def __init__(self) -> None:
        self.count = 0
        self._buckets: dict[int, int] = {}

    def add(self, latency: float, count: int = 1) -> None:
        """Count so many that took that long."""
        bucket = round(math.log(max(latency, LEAST) / LEAST) / _STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += count

    def spread(self, first: float, each: float, count: int) -> None:
        """Count deliveries one after the other: the first took `first`, the next `each` more."""
        pieces = min(count, _PIECES)
        for number in range(pieces):
            begin, end = count * number // pieces, count * (number + 1) // pieces
            self.add(first + each * (begin + end - 1) / 2, end - begin)

    def percentile(self, percent: float) -> float:
        """Return the latency that so many percent do not exceed, within 1 %; 0 of none."""
        left = self.count * percent / 100
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 1e-9 * self.count:
                return LEAST * math.exp(bucket * _STEP)
        return 0.0
