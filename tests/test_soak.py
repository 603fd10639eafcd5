"""The soak, in short, and the judge of what it saw."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from tests.soak.__main__ import soak
from tests.soak.measure import MIB, Record
from tests.soak.peers import CAST, World

CALM: dict[str, Any] = {
    "resident": 60 * MIB,
    "objects": 60_000,
    "files": 13,
    "tasks": 29,
    "connections": 3,
    "guests": 0,
    "topics": 1,
    "logged": [],
}


@pytest.mark.slow
def test_server_stays_flat_for_a_minute() -> None:
    """Mixed load with faults leaves no task, no descriptor and no memory behind, and nobody is
    told anything wrong.
    """
    record, world = trio.run(partial(soak, 60, 7, 768 * MIB, 1))
    print(record.table())  # noqa: T201 how much was done is worth knowing
    assert world.faults() == []
    assert record.faults() == []
    assert len(world.done) == len(CAST), "a part was never played to its end"


def _record(hours: float = 1.0, **grows: float) -> Record:
    """Return what a soak would see in so many hours, of a server where some things grow a rest."""
    record = Record(768 * MIB)
    for number in range(120):
        odd = {name: CALM[name] + round(more * number) for name, more in grows.items()}
        record.add(hours * 3600 * number / 119, {**CALM, **odd}, rest=True)
    return record


def test_flat_is_flat() -> None:
    """Nothing grows, nothing is said; noise is not growth."""
    record = _record()
    record.samples[50].seen["resident"] += 100 * MIB
    assert record.faults() == []


@pytest.mark.parametrize(
    ("grows", "words"),
    [
        ({"resident": 0.4 * MIB}, "resident grew"),
        ({"objects": 100}, "objects grew"),
        ({"tasks": 0.01}, "tasks: 29 at the first rest, later also [30]"),
        ({"files": 1}, "files"),
        ({"connections": 0.01}, "connections"),
        ({"topics": -0.01}, "topics"),
        ({"resident": 7 * MIB}, "above 768"),
    ],
)
def test_growth_is_found(grows: dict[str, float], words: str) -> None:
    """A leak of memory, however slow, and one task, descriptor or connection too many."""
    assert any(words in fault for fault in _record(**grows).faults())


def test_growth_is_measured_by_the_hour() -> None:
    """What is told is bytes an hour, not a rest."""
    assert _record(0.5, resident=MIB).growth("resident") == pytest.approx(119 * MIB / 0.5)


def test_errors_of_the_server_are_faults() -> None:
    """What the server logged as an error is told."""
    record = _record()
    record.samples[-1].seen["logged"] = ["it broke"]
    assert record.faults() == ["the server logged: it broke"]


def test_failures_of_peers_are_faults() -> None:
    """What peers saw go wrong is told, the first of it, and being cut off again and again."""
    world = World(1, 1)
    world.done["viewer"], world.cut["viewer"] = 100, 10
    assert world.faults() == []
    world.cut["garbage"] = 1
    world.failures += ["it lied"] * 25
    assert world.faults() == [
        "11 parts were cut off, 100 played",
        *["it lied"] * 20,
        "and 5 more",
    ]


def test_too_short_says_so() -> None:
    """A soak of three rests is no soak."""
    record = _record()
    del record.samples[3:]
    assert record.faults() == ["only 3 rests: too short to say anything"]
