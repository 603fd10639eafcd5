"""Fuzzing, briefly: the corpus, and some thousand inputs made from it with a fixed seed."""

from __future__ import annotations

import pytest

from tests.fuzz import drive
from tests.fuzz.mutate import Mutator

INPUTS = {"frames": 800, "codec": 8000, "head": 800, "token": 2500, "front": 60}


@pytest.mark.parametrize("name", drive.TARGETS)
def test_rules_hold(name: str) -> None:
    """No input breaks a rule, and the corpus reaches more than one outcome."""
    tally = drive.fuzz(name, seed=1, executions=INPUTS[name])
    assert tally.executions == INPUTS[name] + len(drive.read_corpus(name))
    assert len(tally.outcomes) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", drive.TARGETS)
def test_rules_hold_for_longer(name: str) -> None:
    """The same with another seed, for some seconds."""
    drive.fuzz(name, seed=2, seconds=4)


@pytest.mark.parametrize("name", drive.TARGETS)
def test_corpus_is_small(name: str) -> None:
    """What is kept is worth keeping: small inputs, each with an outcome of its own."""
    corpus = drive.read_corpus(name)
    target, tally = drive.load(name), drive.Tally()
    assert max(map(len, corpus)) <= drive.MOST_KEPT
    assert all(tally.run(name, target, data) for data in corpus)


def test_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that loses a byte now and then is caught, and the finding says how to see it."""
    monkeypatch.setattr("triows.frames.FrameReader._cut_plain", lambda self, data, out: 1)
    with pytest.raises(drive.Finding, match=r"frames: \d+ bytes break a rule"):
        drive.fuzz("frames", seed=1, executions=200)


def test_one_seed_is_one_sequence() -> None:
    """A run can be repeated."""
    first, second = (Mutator(5, [b"word"]) for _ in range(2))
    corpus = [b"some", b"other"]
    inputs = [first.make(corpus) for _ in range(50)]
    assert inputs == [second.make(corpus) for _ in range(50)]
    assert len(set(inputs)) > 40
