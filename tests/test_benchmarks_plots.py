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


def test_all_are_drawn(tmp_path: Path) -> None:
    """Of a whole run, each is a picture in which ours stands out."""
    drawn = draw(made_up(("triows", "ws")), tmp_path)

    assert [path.name for path in drawn] == [picture.file for picture in PICTURES]
    for path in drawn:
        assert HIGHLIGHT in path.read_text()
        ElementTree.parse(path)


def test_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither chance nor the date is in them, so that a drawing again changes nothing."""
    data = made_up(("triows", "ws"))
    data["results"] = {"publish-1": data["results"]["publish-1"]}

    [path] = draw(data, tmp_path)
    once = path.read_bytes()
    path.unlink()
    draw(data, tmp_path)

    assert path.read_bytes() == once


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
    both = ("publish-1", "publish-32", "latency", "latency-common")
    data["results"] = {name: data["results"][name] for name in both}
    del data["results"]["publish-32"]["ws"]
    del data["results"]["latency"]["ws"]

    drawn = draw(data, tmp_path)

    assert [path.name for path in drawn] == ["publishing.svg", "latency.svg"]


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
