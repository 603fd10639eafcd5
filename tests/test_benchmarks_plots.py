"""The plots: drawn of what was measured, the same of the same, of the committed figures."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.pictures import FOLDER, PICTURES, Picture
from benchmarks.plots import HIGHLIGHT, draw, source
from benchmarks.tables import FIGURES, details, first_page
from tests.support_benchmarks import made_up


def test_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither chance nor the date is in them, so that a drawing again changes nothing."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        drawn = draw(made_up(), tmp_path / name)

        assert [path.name for path in drawn] == [picture.file for picture in PICTURES]

    for picture in PICTURES:
        once = (tmp_path / "one" / picture.file).read_bytes()
        assert once == (tmp_path / "two" / picture.file).read_bytes()
        assert HIGHLIGHT.encode() in once
        ElementTree.fromstring(once)


def test_only_what_was_measured_is_drawn(tmp_path: Path) -> None:
    """Of a run of one workload, with one candidate and one round, there is one picture."""
    data = made_up(("triows",), 1)
    data["results"] = {"fanout-16": data["results"]["fanout-16"]}

    drawn = draw(data, tmp_path)

    assert [path.name for path in drawn] == ["fanout.svg"]
    for document in (first_page(data), details(data)):
        assert "fanout.svg" in document
        assert "slopes.svg" not in document


def test_a_candidate_that_did_not_do_it_is_left_blank(tmp_path: Path) -> None:
    """It failed in one of two workloads: its line stays, in both panels."""
    data = made_up(("triows", "ws"), 1)
    del data["results"]["publish-32"]["ws"]
    del data["results"]["latency"]["ws"]

    assert len(draw(data, tmp_path)) == len(PICTURES)


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    """Not an empty picture."""
    data = made_up()
    data["results"] = {"fanout-1": {}}

    assert draw(data, tmp_path) == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.file)
def test_committed_plots_are_of_the_committed_figures(picture: Picture) -> None:
    """They name the run they were drawn from; and there is none of what was not measured."""
    data = json.loads(FIGURES.read_text())
    path = FOLDER / picture.file

    assert path.exists() == picture.drawn(data["results"])
    if path.exists():
        assert source(data) in path.read_text()
