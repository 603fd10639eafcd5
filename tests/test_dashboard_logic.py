"""The logic of the dashboard that needs no browser, in Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support_browser import ROOT, run_node

MODULES = ROOT / "triows" / "web" / "dashboard"
MAX_LINES = 350


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "js").glob("dashboard_*.mjs")), ids=str)
def test_logic(path: Path) -> None:
    """All tests of one file pass."""
    result = run_node("--test", path)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", sorted(MODULES.glob("*.js")), ids=lambda path: path.name)
def test_module_is_small_and_makes_no_markup(path: Path) -> None:
    """No module is too long to read, and none can turn what it is sent into markup."""
    text = path.read_text()

    assert len(text.splitlines()) <= MAX_LINES
    for maker in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser"):
        assert maker not in text
    for maker in ("eval(", "new Function", "createContextualFragment", "setHTML", "srcdoc"):
        assert maker not in text


def test_page_has_nothing_inline() -> None:
    """The content policy allows no script, no style and no handler within the page."""
    page = (MODULES / "index.html").read_text()

    assert "style=" not in page
    assert "<style" not in page
    assert " on" not in page.replace(" one", "")
    assert page.count("<script") == page.count('<script src="/dashboard/')
