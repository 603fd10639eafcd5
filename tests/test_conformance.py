"""The wire layer against the Autobahn test suite (RFC 6455), and what the docs say of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import autobahn


@pytest.mark.slow
def test_wire_passes_autobahn(tmp_path: Path) -> None:
    """No case fails, compression alone is left out, and the table in the docs says the same."""
    verdicts = autobahn.run_suite(tmp_path)
    left_out = {id_ for id_, verdict in verdicts.items() if verdict == "UNIMPLEMENTED"}

    assert autobahn.table(verdicts) == autobahn.in_docs()
    assert len(verdicts) == 517
    assert {id_.split(".")[0] for id_ in left_out} <= {"12", "13"}
    assert set(verdicts.values()) <= {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}


def test_table_counts_what_failed() -> None:
    """Every verdict has its column; one that is not known counts as failed."""
    verdicts = {"1.1.1": "OK", "1.1.2": "FAILED", "6.4.1": "NON-STRICT", "12.1.1": "UNIMPLEMENTED"}
    text = autobahn.table(verdicts)
    assert "| 1 framing | 2 | 1 | 0 | 0 | 0 | 1 |" in text
    assert "| all | 4 | 1 | 1 | 0 | 1 | 1 |" in text
    assert "Non-strict: 6.4.1." in text


def test_close_judged_worse_is_the_verdict() -> None:
    """A wrong close fails a case whose messages were right."""
    judge = autobahn._verdict
    assert judge("OK", "OK") == "OK"
    assert judge("OK", "FAILED_BY_CLIENT") == "FAILED_BY_CLIENT"
    assert judge("FAILED", "OK") == "FAILED"
    assert judge("UNIMPLEMENTED", "OK") == "UNIMPLEMENTED"


def test_docs_have_no_failure() -> None:
    """The table in the docs is whole, and its sums are right."""
    rows = [line.split("|")[2:-1] for line in autobahn.in_docs().splitlines() if "|" in line][2:]
    numbers = [[int(cell) for cell in row] for row in rows]
    *sections, total = numbers
    sums = Counter({i: sum(row[i] for row in sections) for i in range(6)})
    assert [sums[i] for i in range(6)] == total
    assert all(row[0] == sum(row[1:]) for row in numbers)
    assert total[5] == 0
