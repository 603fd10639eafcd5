"""Simulations in the slow part: as many seeds as `--simulations` says, 10,000 unless told."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support_simulation import QUICK, check

AT_A_TIME: Final = 250


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cut all seeds into parts, each a test."""
    end = QUICK + metafunc.config.getoption("--simulations")
    metafunc.parametrize(
        "seeds",
        [range(at, min(at + AT_A_TIME, end)) for at in range(QUICK, end, AT_A_TIME)],
        ids=str,
    )


@pytest.mark.slow
def test_many_simulations(seeds: range) -> None:
    """Whatever fails, nobody misses a message, sees one twice, or is told what is not true."""
    for seed in seeds:
        check(seed)
