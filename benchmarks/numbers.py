"""The arithmetic of the figures: percentiles, latencies, slopes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Arrival: TypeAlias = tuple[int, int, float]
"""A viewer, how many bytes came to it, and when."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of all do not exceed.

    Args:
        ordered: the values, least first; at least one.
        percent: above 0, up to 100.
    """
    place = math.ceil(len(ordered) * percent / 100 - 1e-9)
    return ordered[max(place, 1) - 1]


def latencies(
    arrivals: Iterable[Arrival], due: Sequence[float], ends: Sequence[int]
) -> list[float]:
    """Return how long after it was due each message was whole at each viewer, in seconds.

    Args:
        arrivals: what came, each viewer's in order.
        due: when each message was to be sent.
        ends: where each one ends, in the bytes that a viewer gets.
    """
    places: dict[int, int] = {}
    numbers: dict[int, int] = {}
    found = []
    for viewer, size, at in arrivals:
        place = places[viewer] = places.get(viewer, 0) + size
        number = numbers.get(viewer, 0)
        while number < len(ends) and ends[number] <= place:
            found.append(at - due[number])
            number += 1
        numbers[viewer] = number
    return found


def slope(points: Mapping[float, float]) -> float:
    """Return the exponent by which cost grows: the slope of its logarithm, by least squares.

    0 is flat, 1 is linear.

    Args:
        points: cost by size, at least two, all above 0.
    """
    if len(points) < 2:
        raise ValueError(f"a slope needs two points or more, not {len(points)}")
    wide = [math.log(size) for size in points]
    high = [math.log(cost) for cost in points.values()]
    middle, mean = sum(wide) / len(wide), sum(high) / len(high)
    spread = sum((x - middle) ** 2 for x in wide)
    return sum((x - middle) * (y - mean) for x, y in zip(wide, high, strict=True)) / spread
