"""docs/proof.md: what it names is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import drive
from tests.soak.peers import CAST

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "proof.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/\w+(?:\.py|/corpus)?", TEXT))))
def test_path_exists(path: str) -> None:
    """Files and folders that are named exist."""
    assert (DOCS.parent / path).exists()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", TEXT))))
def test_command_exists(module: str) -> None:
    """Commands that are named can be run."""
    assert find_spec(module) is not None


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", TEXT))
def test_link_leads_somewhere(link: str) -> None:
    """Files that are linked exist."""
    assert (DOCS / link).exists()


def test_every_target_is_told_of() -> None:
    """Both tables of fuzzing have a row for each target."""
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert rows == [*drive.TARGETS, *drive.TARGETS]


def test_peers_are_counted() -> None:
    """As many play at a time as the text says."""
    assert f"{sum(count for _, count in CAST)} peers at a time" in TEXT
