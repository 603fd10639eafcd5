"""SECURITY.md: the tests it names exist, and so do its links and settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attrs
import pytest

import triows

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids="::".join)
def test_named_test_exists(file: str, name: str) -> None:
    """Whoever follows a row of the table of threats finds the test."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert name in {function.name for function in functions}


def test_every_threat_has_a_test() -> None:
    """No row of a table with tests is without one."""
    tables = re.findall(r"\| tests \|\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 4
    assert len(rows) > 40
    assert not [row for row in rows if "::test_" not in row]


SECTIONS: dict[str, type[attrs.AttrsInstance]] = {
    "server": triows.ServerSettings,
    "limits": triows.Limits,
    "log": triows.LogLimits,
    "auth": triows.AuthSettings,
}


def test_settings_exist() -> None:
    """Every setting that is named is one."""
    named = re.findall(r"`(server|limits|log|auth)\.(\w+)`", TEXT)
    assert len(named) > 5
    assert not [n for n in named if n[1] not in attrs.fields_dict(SECTIONS[n[0]])]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", TEXT))
def test_link_leads_somewhere(link: str) -> None:
    """Files that are linked exist."""
    assert (ROOT / link).exists()
