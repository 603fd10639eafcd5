"""What tests of simulations need: one seed, checked."""

from __future__ import annotations

from typing import Final

import pytest

from triows.testing import Outcome, draw, shrink, simulate

QUICK: Final = 200
"""Seeds that every run simulates."""


def check(seed: int) -> Outcome:
    """Simulate a seed; raises AssertionError that shows the shortest way to what is wrong."""
    outcome = simulate(draw(seed))
    if outcome.wrong:
        pytest.fail(f"\n{shrink(outcome)}", pytrace=False)
    return outcome
