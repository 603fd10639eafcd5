"""Simulations: many seeds, and the same one twice."""

from __future__ import annotations

import pytest

from triows.testing.schedule import draw
from triows.testing.simulation import simulate


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_simulations(first: int) -> None:
    """Whatever fails, nobody misses a message, sees one twice, or is told what is not true."""
    for seed in range(first, first + 10):
        outcome = simulate(draw(seed))
        assert not outcome.wrong, f"\n{outcome}"


@pytest.mark.parametrize("seed", range(5))
def test_same_seed_same_trace(seed: int) -> None:
    """A seed replays exactly."""
    schedule = draw(seed)

    assert simulate(schedule).digest == simulate(schedule).digest
