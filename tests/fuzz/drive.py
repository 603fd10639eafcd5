"""Runs a target on inputs, and keeps what is worth keeping; needs no library."""

from __future__ import annotations

import ast
import hashlib
import importlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from tests.fuzz.mutate import Mutator

TARGETS = ("frames", "codec", "head", "token", "front")
HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MOST_KEPT = 400
"""Bytes of an input that is kept: a longer one says nothing that a short one does not."""

Target = Callable[[bytes], str]


class Finding(Exception):
    """An input for which a rule does not hold."""

    def __init__(self, target: str, data: bytes, path: Path | None) -> None:
        where = f"python -m tests.fuzz {target} --replay {path}" if path else repr(data)
        super().__init__(f"{target}: {len(data)} bytes break a rule; again with: {where}")


def load(name: str) -> Target:
    """Return a target."""
    run: Target = importlib.import_module(f"tests.fuzz.target_{name}").run
    return run


def read_corpus(name: str) -> list[bytes]:
    """Return the inputs that are kept of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def read_words(name: str) -> list[bytes]:
    """Return what is worth inserting into inputs: a dictionary in libFuzzer's format."""
    lines = (HERE / "words" / f"{name}.dict").read_text().splitlines()
    return [ast.literal_eval(f"b{line}") for line in lines]


@attrs.define
class Tally:
    """What a run has found.

    Attributes:
        executions: how many inputs were run.
        outcomes: the shortest input for each outcome.
    """

    executions: int = 0
    outcomes: dict[str, bytes] = attrs.field(factory=dict)

    def run(self, name: str, target: Target, data: bytes, artifacts: Path | None = None) -> bool:
        """Run one input; return whether its outcome is new.

        Raises:
            Finding: a rule does not hold; the input is written to `artifacts`.
        """
        self.executions += 1
        try:
            outcome = target(data)
        except Exception as error:
            path = None
            if artifacts is not None:
                path = artifacts / f"finding-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
            raise Finding(name, data, path) from error
        known = self.outcomes.get(outcome)
        if known is None or len(data) < len(known):
            self.outcomes[outcome] = data
        return known is None


def fuzz(
    name: str,
    *,
    seed: int,
    seconds: float | None = None,
    executions: int = 0,
    artifacts: Path | None = None,
) -> Tally:
    """Replay the corpus, then try changed inputs, for a time or a number of them.

    Raises:
        Finding: a rule does not hold.
    """
    target, tally, corpus = load(name), Tally(), read_corpus(name)
    for data in corpus:
        tally.run(name, target, data, artifacts)
    mutator, began = Mutator(seed, read_words(name)), time.monotonic()
    most = tally.executions + executions
    while time.monotonic() - began < seconds if seconds is not None else tally.executions < most:
        data = mutator.make(corpus)
        if tally.run(name, target, data, artifacts):
            corpus.append(data)
    return tally


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Make the corpus of a target the shortest input for each outcome, of its own and of
    `inputs`; return how many there are.
    """
    target, tally = load(name), Tally()
    for data in [*read_corpus(name), *inputs]:
        if len(data) <= MOST_KEPT:
            tally.run(name, target, data)
    folder = CORPUS / name
    for path in folder.iterdir():
        path.unlink()
    for data in tally.outcomes.values():
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return len(tally.outcomes)
