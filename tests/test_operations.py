"""The guide for those who run a server names what there is: settings, metrics, codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest
from trio.testing import MockClock

import triows
from tests.support import memory_server
from triows.http.metrics import expose

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "operations.md").read_text()
_METRIC = re.compile(r"\b(?:triows|process)_[a-z_]+[a-z]\b")
_VALUE = {"MiB": 2**20, "d": 86_400}


@pytest.mark.parametrize("path", ["operations.md", "operations/grafana.json"])
async def test_metrics_are_there(autojump_clock: MockClock, path: str) -> None:
    """Every metric that is named is one that the server has."""
    async with memory_server() as server:
        text = expose(server._administration, []).decode()
    there = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    named = {re.sub("_bucket$", "", name) for name in _METRIC.findall((DOCS / path).read_text())}
    assert len(named) >= 9
    assert named <= there


def _number(text: str) -> float:
    number, _, unit = text.strip().replace(",", "").partition(" ")
    return float(number) * _VALUE.get(unit, 1)


@pytest.mark.parametrize("section", [triows.Limits(), triows.LogLimits()])
def test_every_limit_is_in_the_table(section: triows.Limits | triows.LogLimits) -> None:
    """With its default."""
    told: dict[str, float] = {}
    for names, values in re.findall(r"^\| (`l[^|]+) \| ([^|]+) \|", GUIDE, re.MULTILINE):
        settings = re.findall(r"`(\w+\.\w+)`", names)
        told |= dict(zip(settings, map(_number, values.split(", ")), strict=True))
    prefix = "limits" if isinstance(section, triows.Limits) else "log"
    wanted = {f"{prefix}.{name}": value for name, value in attrs.asdict(section).items()}
    assert {name: told.get(name) for name in wanted} == wanted


def test_grafana_file_is_whole() -> None:
    """Panels have a place of their own, and targets say what they draw."""
    panels = json.loads((DOCS / "operations/grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}
    assert len(places) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(
            target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"]
        )
