"""The arithmetic behind the figures: percentiles, latencies, slopes."""

from __future__ import annotations

import math
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.numbers import latencies, percentile, slope
from benchmarks.workloads.growth import point_name, points


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 500), (99, 990), (99.9, 999), (100, 1000), (0.01, 1)]
)
def test_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    """The nearest rank, not something between two."""
    assert percentile(range(1, 1001), percent) == expected


def test_percentile_of_one_value() -> None:
    """Whatever is asked for, it is that value."""
    assert percentile([7.0], 50) == percentile([7.0], 99.9) == 7.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_percentile_is_exceeded_by_few_enough(values: list[float], percent: float) -> None:
    """No more than the rest are above, and fewer than that many are below."""
    ordered = sorted(values)
    found = percentile(ordered, percent)

    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6
    assert sum(value < found for value in values) < len(values) * percent / 100


def test_percentile_agrees_with_the_median() -> None:
    """Of an odd number, the middle one is both."""
    values = [1.0, 2.0, 4.0, 8.0, 16.0]

    assert percentile(values, 50) == quantiles(values, n=2)[0]


def test_latency_counts_from_when_a_message_was_due() -> None:
    """Each at each viewer, when its last byte is there."""
    arrivals = [(5, 10, 1.5), (6, 10, 1.75), (5, 20, 2.5), (6, 20, 3.0)]

    assert latencies(arrivals, [1.0, 2.0], [10, 30]) == [0.5, 0.75, 0.5, 1.0]


def test_messages_that_come_at_once_are_all_counted() -> None:
    """One read may hold several, and the rest of one that was torn."""
    arrivals = [(5, 9, 1.5), (5, 21, 4.0)]

    assert latencies(arrivals, [1.0, 2.0, 3.0], [10, 20, 30]) == [3.0, 2.0, 1.0]


def test_latency_of_a_message_that_is_not_whole() -> None:
    """It has not arrived."""
    assert latencies([(5, 9, 1.5)], [1.0], [10]) == []


@pytest.mark.parametrize("exponent", [-1, 0, 0.5, 1, 2])
def test_slope_is_the_exponent(exponent: float) -> None:
    """A factor before it does not matter."""
    points = {size: 7 * size**exponent for size in (10.0, 100.0, 1000.0)}

    assert math.isclose(slope(points), exponent, abs_tol=1e-9)


def test_slope_of_a_part_that_is_fixed_is_less() -> None:
    """What every message costs, however many there are, makes growth look smaller, not larger."""
    points = {size: 100 + size for size in (10.0, 100.0, 1000.0)}

    assert 0 < slope(points) < 1


def test_slope_of_one_point_is_refused() -> None:
    """A line needs two."""
    with pytest.raises(ValueError, match="two points or more, not 1"):
        slope({10: 1})


def test_points_of_a_run_are_found_again() -> None:
    """Those of the processor, and not those of the time that passed."""
    figures = {
        "value": 1.0,
        point_name("processor", 10): 2.5,
        point_name("processor", 1000): 3.5,
        point_name("wall", 10): 4.5,
    }

    assert points(figures, "processor") == {10: 2.5, 1000: 3.5}
