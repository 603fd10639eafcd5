"""Simulations: many seeds, the same one twice, and those that are wrong made short."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from typing import Any

import attrs
import pytest

from tests.support_simulation import QUICK, check
from triows.logs import Log
from triows.testing import draw, shrink, simulate
from triows.testing.schedule import Advance, Fault, Publish, Schedule, Subscribe


@pytest.mark.parametrize("first", range(0, QUICK, 20))
def test_simulations(first: int) -> None:
    """Whatever fails, nobody misses a message, sees one twice, or is told what is not true."""
    for seed in range(first, first + 20):
        check(seed)


def test_seeds_differ() -> None:
    """Many seeds are many simulations, and all kinds of steps are drawn."""
    schedules = [draw(seed) for seed in range(500)]

    assert len({schedule.steps for schedule in schedules}) == 500
    assert len({type(step) for schedule in schedules for step in schedule.steps}) == 13
    assert {(s.store, s.eager, s.small) for s in schedules} >= {
        (store, eager, small)
        for store in ("memory", "sqlite")
        for eager in (True, False)
        for small in (True, False)
    }


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_same_seed_same_trace(store: str) -> None:
    """A seed replays exactly, whatever was simulated in between."""
    digests = [simulate(draw(seed, store)).digest for seed in range(5)]

    assert [simulate(draw(seed, store)).digest for seed in range(5)] == digests
    assert len(set(digests)) == 5


@pytest.mark.parametrize("clock", ["perf_counter", "monotonic"])
def test_speed_of_the_machine_does_not_matter(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed replays where everything takes for ever."""
    schedules = [draw(seed) for seed in range(20)]
    # Those with small bounds let others run between any two pieces, however long one takes.
    schedules = [schedule for schedule in schedules if not schedule.small]
    digests = [simulate(schedule).digest for schedule in schedules]
    seconds = itertools.count(getattr(time, clock)())
    monkeypatch.setattr(time, clock, lambda: next(seconds))

    assert [simulate(schedule).digest for schedule in schedules] == digests


@pytest.mark.slow
def test_hash_seed_does_not_matter() -> None:
    """Nothing hangs on the order of sets: a seed replays in another process, too."""
    program = (
        "from triows.testing import draw, simulate\n"
        "for seed in range(25): print(simulate(draw(seed)).digest)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=300,
        ).stdout
        for hash_seed in ("1", "2", "random")
    }

    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 25


def _planted(patch: pytest.MonkeyPatch) -> None:
    """Have every log give up what it holds."""
    patch.setattr(Log, "trim", lambda *_: None)


def test_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a schedule that fails is what it takes to fail."""
    _planted(monkeypatch)
    steps: tuple[Any, ...] = (
        Subscribe("vic", "session:1", "start", "gap"),
        Advance(1.0),
        Publish("pat", "session:1", 8, 10),
        Fault("vic", "cut"),
        Advance(1.0),
    )
    schedule = Schedule(1, "memory", eager=True, small=True, capacity=4096, steps=steps)
    outcome = shrink(simulate(schedule))

    assert outcome.schedule.steps == (Publish("pat", "session:1", 8, 10),)
    assert "holds 7 messages; the limit is 6" in outcome.wrong[0]
    assert str(outcome).startswith("seed 1: store=memory eager=True small=True capacity=4096\n")
    assert simulate(outcome.schedule) == attrs.evolve(outcome)


def test_command_line() -> None:
    """It says how many were all right."""
    ran = subprocess.run(
        [sys.executable, "-m", "triows.testing", "--simulations", "3", "--seed", "7", "--trace"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert "3 simulations, all right" in ran.stdout
    assert "0.0 link" in ran.stdout
