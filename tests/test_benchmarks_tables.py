"""The tables: what they say of figures, and that those in the documents are the committed ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.plan import OTHERS, Effort, Figures, Row, Target, Workload
from benchmarks.summary import Results, Spread, judge, spreads, summarize
from benchmarks.tables import (
    BEGIN,
    DETAILS,
    END,
    FIGURES,
    IN_README,
    README,
    details,
    first_page,
    ours,
    put,
    show_off,
    side_by_side,
)
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize(("document", "write"), [(README, first_page), (DETAILS, details)])
def test_documents_have_the_committed_figures(document: Path, write: object) -> None:
    """`python -m benchmarks.tables` would change nothing."""
    assert callable(write)
    data = json.loads(FIGURES.read_text())

    assert put(document.read_text(), write(data)) == document.read_text()


def test_a_document_without_markers_is_refused() -> None:
    """Nothing is written to a place that has to be guessed."""
    with pytest.raises(ValueError, match="lacks the lines"):
        put(f"before\n{BEGIN}\nno end", "text")


def test_text_is_put_between_the_markers_only() -> None:
    """What was there goes; what is around stays."""
    assert put(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"


def test_names_are_used_once() -> None:
    """Rows are found by their names, in the ceiling and in the documents."""
    names = [row.name for workload in WORKLOADS for row in workload.rows]

    assert len(set(names)) == len(names)
    assert set(IN_README) <= set(names)


def work(*rows: Row, rivals: bool = True) -> Workload:
    """Return a workload that is never run."""

    def never(_: object, effort: Effort) -> Figures:
        raise AssertionError

    return Workload("work", never, rows, rivals=rivals)


def runs(*values: float) -> list[Figures]:
    """Return runs that found these."""
    return [{"value": value} for value in values]


def test_spread_is_of_all_rounds() -> None:
    """The median is not the mean."""
    row = Row("work", "s")
    results: Results = {"work": {"triows": runs(1, 2, 30), "ws": []}}

    assert spreads(work(row), row, results) == {"triows": Spread(2, 1, 30)}
    assert summarize([work(row)], results) == {
        "work": {"triows": {"median": 2, "least": 1, "most": 30}}
    }


def found(**medians: float) -> dict[str, Spread]:
    """Return figures without spread."""
    return {name: Spread(median, median, median) for name, median in medians.items()}


def test_others_are_those_that_no_other_target_names() -> None:
    """The best of them counts: most, or least where less is better."""
    bun = Target(at_least=0.5, rival="bun")
    row = Row("work", "1/s", (bun, Target(at_least=1, rival=OTHERS)))
    figures = found(triows=60, bun=100, ws=40, uvicorn=50)

    assert [verdict.reached for verdict in judge(row, "triows", figures)] == [0.6, 1.2]

    less = Row("work", "ms", (Target(at_most=1.5, rival=OTHERS),), less=True)
    assert [v.reached for v in judge(less, "triows", found(triows=60, ws=40, bun=50))] == [1.5]


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(at_least=60), True),
        (Target(at_least=61), False),
        (Target(at_most=60), True),
        (Target(at_most=59), False),
        (Target(at_most=59, rival="bun"), False),
    ],
)
def test_bounds_are_inclusive_and_need_a_figure(target: Target, met: bool) -> None:
    """A target against a rival that was not measured is not met."""
    [verdict] = judge(Row("work", "s", (target,)), "triows", found(triows=60))

    assert verdict.met is met


def test_table_tells_aims_ceiling_and_what_was_not_measured() -> None:
    """A rate is a part of the ceiling, a time a multiple of it."""
    aims = (Target(at_least=2, rival="ws"), Target(at_most=1, rival="bun"))
    rate, time = Row("rate", "1/s", aims), Row("time", "ms", figure="ms", less=True)
    mine: Figures = {"value": 50, "ms": 3, "generator_busy": 0.5}
    results: Results = {"work": {"triows": [mine, mine], "ws": runs(20, 25, 26)}}
    workload = work(rate, time)

    lines = ours([workload], results, {"rate": 200, "time": 2}).splitlines()
    aside = side_by_side([workload], results).splitlines()

    aim = "≥ 2 × ws: 2.00, met; ≤ 1 × bun: not measured"
    assert lines[2:] == [
        f"| rate | 1/s | 50.00 | {aim} | 25% | 50% |",
        "| time | ms | 3.00 | – | × 1.5 | 50% |",
    ]
    assert aside[2:] == ["| rate | 1/s | 50.00 | 25.00 ±20% |", "| time | ms | 3.00 | – |"]


def test_work_without_rivals_is_not_put_side_by_side() -> None:
    """There is nobody beside."""
    row = Row("rate", "1/s")
    lines = side_by_side([work(row, rivals=False)], {"work": {"triows": runs(1)}}).splitlines()

    assert len(lines) == 2


def test_distance_of_one_round_is_not_told() -> None:
    """Nor that of rounds which agree, nor a share of nothing."""
    assert show_off(Spread(2, 2, 2)) == "2.00"
    assert show_off(Spread(0, -1, 1)) == "0.00"
