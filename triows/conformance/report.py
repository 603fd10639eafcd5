"""What a run has found: a line for each case, a summary, and JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import attrs

_WIDTH: Final = 9


class Outcome(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left out"


@attrs.frozen
class Result:
    """One case, played.

    Attributes:
        name: `file: case` of a vector, `module: check` of a check.
        section: of docs/protocol.md that a check checks; empty for a vector.
        detail: what was expected and what came, or why the case was left out.
        seconds: how long it took.
    """

    name: str
    section: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


@attrs.define
class Report:
    """Prints each result on standard output as it comes, and keeps it.

    Attributes:
        results: so far.
    """

    results: list[Result] = attrs.field(factory=list)

    def begin(self, name: str) -> None:
        """Show at a terminal what is played now."""
        if sys.stdout.isatty():
            print(f"{'…':<{_WIDTH}} {name}", end="", flush=True)

    def add(self, result: Result) -> None:
        """Take a result, and print it."""
        self.results.append(result)
        word = result.outcome.upper() if result.outcome == Outcome.FAILED else result.outcome
        line = f"{word:<{_WIDTH}} {result.name}" + (f": {result.detail}" if result.detail else "")
        start = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(start + "".join(c if c.isprintable() else "�" for c in line), flush=True)

    def summary(self) -> str:
        """Return how many passed, failed and were left out."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self._counts().items())

    @property
    def failed(self) -> bool:
        """Whether a case has failed, or none was played at all."""
        counts = self._counts()
        return counts[Outcome.FAILED] > 0 or counts[Outcome.PASSED] == 0

    def write(self, path: Path, url: str) -> None:
        """Write everything as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        counts = {o.replace(" ", "_"): count for o, count in self._counts().items()}
        cases = [attrs.asdict(result, value_serializer=_plain) for result in self.results]
        text = json.dumps({"url": url, **counts, "cases": cases}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", "utf-8")

    def _counts(self) -> dict[Outcome, int]:
        found = Counter(result.outcome for result in self.results)
        return {outcome: found[outcome] for outcome in Outcome}


def _plain(instance: object, attribute: object, value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
