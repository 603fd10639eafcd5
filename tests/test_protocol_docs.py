"""docs/protocol.md keeps its word: its examples are in the vectors, its tables are the code's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support_protocol import CASES
from triows.conformance.matcher import Mismatch, match
from triows.conformance.vectors import PLACE, load_tokens
from triows.errors import RETRYABLE, CloseCode, ErrorCode, may_reconnect
from triows.messages import PUBLISHED, MessageType

TEXT: Final = (PLACE.parent / "protocol.md").read_text()
EXAMPLES: Final = [
    json.loads(block)
    for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
]


def _vectors() -> Iterator[Any]:
    for case in CASES.values():
        for step in case["steps"]:
            yield from (step[kind] for kind in ("send", "expect", "body") if kind in step)
    for claims in load_tokens().values():
        yield claims | {"exp": "$number"}


def _fits(wanted: Any, example: Any) -> bool:
    try:
        match(wanted, example, {})
    except Mismatch:
        return False
    return True


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: json.dumps(e)[:60])
def test_example_is_a_vector(example: Any) -> None:
    """The example is what a vector sends or expects, member by member."""
    assert any(wanted != "$any" and _fits(wanted, example) for wanted in _vectors())


def test_readme_shows_a_case() -> None:
    """The case in docs/protocol/README.md is one."""
    block = re.search(
        r"^```json\n(.*?)^```$", (PLACE / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert block is not None
    assert json.loads(block[1]) in CASES.values()


def test_every_message_has_an_example() -> None:
    """Each type, and published ones both ways."""
    heard = {e["type"] for e in EXAMPLES if "timestamp" in e}
    sent = {e["type"] for e in EXAMPLES if "type" in e and "timestamp" not in e}
    assert sent | heard >= set(MessageType)
    assert sent >= PUBLISHED


def _table(title: str) -> dict[str, str]:
    """Return the last column of the table below a title, by each word of the first."""
    part = TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return {word.strip("` "): row[-1] for row in rows[2:] for word in row[0].split(",")}


def test_error_codes_are_the_codes() -> None:
    """The table names each code, with the advice that the server gives."""
    advice = {str(code): "yes" if code in RETRYABLE else "no" for code in ErrorCode}
    assert _table("Error codes") == advice


def test_close_codes_are_the_codes() -> None:
    """The table names each code, with the advice that the client follows."""
    said = {int(code): advice.split(",")[0] for code, advice in _table("Close codes").items()}
    assert said == {int(c): "yes" if may_reconnect(c) else "no" for c in CloseCode}
