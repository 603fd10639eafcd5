"""`triows schema`: the documents on standard output."""

from __future__ import annotations

import pytest

from triows.cli.app import run_app
from triows.conformance.vectors import PLACE


@pytest.mark.parametrize(
    ("arguments", "name"), [([], "schema.json"), (["--asyncapi"], "asyncapi.json")]
)
def test_schema(capsys: pytest.CaptureFixture[str], arguments: list[str], name: str) -> None:
    """Prints, to the byte, what is committed: `triows schema > docs/protocol/schema.json`."""
    assert run_app(["schema", *arguments]) == 0
    assert capsys.readouterr().out == (PLACE / name).read_text()


def test_schema_takes_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option is an error of use."""
    assert run_app(["schema", "--openapi"]) == 2
    assert capsys.readouterr().out == ""
