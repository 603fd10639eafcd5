"""The model of many nodes: it counts everybody once, queues only what is too much, and repeats."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fanout import check, plan
from benchmarks.fanout.__main__ import DOCUMENT, END, main, put, tables
from benchmarks.fanout.costs import VIEWERS_MEASURED, WINDOWS, Costs, Measured
from benchmarks.fanout.histogram import Histogram
from benchmarks.fanout.model import Model, Outcome
from benchmarks.fanout.shape import Shape

COSTS = Costs(send=9e-6, message=1.5e-7, append=1e-5, opening=1.5e-3, idle=40.0, held=10_000)
SHAPE = Shape(viewers=2000, nodes=4, channels=20, rate=100, seconds=2)
ROOT = DOCUMENT.parent.parent


def run(shape: Shape, seed: int = 1, costs: Costs = COSTS) -> Outcome:
    """Model one system."""
    return Model(costs, shape, seed).run()


def figures(outcome: Outcome) -> list[float]:
    """Return all that is told of it."""
    percentiles = [outcome.latencies.percentile(percent) for percent in (1, 50, 99, 100)]
    values = attrs.asdict(outcome, recurse=False)
    return [*percentiles, *(v for v in values.values() if isinstance(v, int | float))]


@pytest.mark.parametrize("fail_at", [None, 0.5])
def test_same_seed_gives_the_same(fail_at: float | None) -> None:
    """And another one something else."""
    shape = attrs.evolve(SHAPE, fail_at=fail_at)

    assert figures(run(shape, 7)) == figures(run(shape, 7)) != figures(run(shape, 8))


@pytest.mark.parametrize("together", [1, 10])
def test_more_nodes_never_raise_the_busiest(together: int) -> None:
    """Each has fewer viewers, and hears of fewer channels."""
    shapes = [attrs.evolve(SHAPE, nodes=2**power, together=together) for power in range(6)]
    busy = [run(shape).processor for shape in shapes]

    assert busy == sorted(busy, reverse=True)
    assert busy[-1] < busy[0] / 4


def one_channel(rate: float, seconds: float) -> Outcome:
    """Model a thousand viewers of one channel on one node: a flush takes 9 ms."""
    return run(Shape(viewers=1000, nodes=1, channels=1, rate=rate, seconds=seconds))


def test_latency_is_bounded_below_the_capacity() -> None:
    """It does not matter how long that goes on."""
    short, long = one_channel(50, 4).latencies, one_channel(50, 40).latencies

    assert long.percentile(99) < 2 * short.percentile(99) < 0.1


def test_latency_grows_without_bound_above_the_capacity_of_a_node() -> None:
    """The longer, the more waits."""
    short, long = one_channel(350, 2).latencies, one_channel(350, 8).latencies

    assert long.percentile(50) > 3 * short.percentile(50) > 1


def test_latency_grows_without_bound_above_the_capacity_of_redis() -> None:
    """Though the nodes have little to do."""
    slow = attrs.evolve(COSTS, script=20e-3)
    short, long = (run(attrs.evolve(SHAPE, seconds=s), costs=slow) for s in (2, 8))

    assert long.redis > 1.5
    assert long.processor < 0.5
    assert long.latencies.percentile(50) > 3 * short.latencies.percentile(50)


def test_nodes_that_take_all_they_are_told_batch_more() -> None:
    """So the capacity of one is what it takes at a time."""
    shape = Shape(viewers=1000, nodes=1, channels=1, rate=300, seconds=2)
    batching = run(shape, costs=attrs.evolve(COSTS, hears=1000))

    assert batching.latencies.percentile(99) < 0.1 < run(shape).latencies.percentile(50)


shapes = st.builds(
    Shape,
    viewers=st.integers(1, 400),
    nodes=st.integers(3, 12),
    channels=st.integers(1, 30),
    rate=st.floats(1, 400),
    zipf=st.floats(0, 2),
    together=st.integers(1, 20),
    redises=st.integers(1, 3),
    seconds=st.floats(0.1, 2),
    fail_at=st.none() | st.floats(0, 2),
    failing=st.integers(0, 2),
)


@settings(max_examples=40)
@given(shapes, st.integers(0, 99), st.sampled_from([1e-5, 1e-3, 2e-2]))
def test_each_viewer_of_a_message_is_counted_once(shape: Shape, seed: int, send: float) -> None:
    """Overloaded or not, whoever dies: live, or as what was missed."""
    outcome = run(shape, seed, attrs.evolve(COSTS, send=send))

    assert outcome.latencies.count + outcome.recovered.count == outcome.expected
    assert outcome.returned == outcome.lost


@given(shapes)
def test_viewers_are_dealt_completely(shape: Shape) -> None:
    """Each channel has its viewers somewhere, and the plan counts the same listeners."""
    groups = shape.deal()
    counts = [sum(group.get(c, 0) for group in groups) for c in range(shape.channels)]

    assert counts == shape.popularity()
    assert sum(counts) == shape.viewers
    if shape.together == 1:
        assert sum(map(len, groups)) == plan.Plan.of(shape, COSTS).listening


@pytest.mark.parametrize("failing", [1, 3])
def test_a_dead_node_brings_all_viewers_back(failing: int) -> None:
    """After their jitter and the openings, and they get what they missed."""
    outcome = run(attrs.evolve(SHAPE, fail_at=0.5, failing=failing))
    openings = 500 * failing / (4 - failing) * COSTS.opening

    assert outcome.lost == outcome.returned == 500 * failing
    assert 0.5 < outcome.back < 1.0 + 1.5 * openings
    assert outcome.recovered.count > 0


def test_a_dead_node_slows_the_others_down() -> None:
    """Those who come back have to be let in."""
    calm, struck = run(SHAPE), run(attrs.evolve(SHAPE, fail_at=0.5, failing=2))

    assert struck.processor > calm.processor
    assert struck.latencies.percentile(99.9) > calm.latencies.percentile(99.9)


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"rate": -1.0}, {"fail_at": 1.0, "failing": 4}])
def test_shape_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    """By name and value."""
    with pytest.raises(ValueError, match=r"must be more than 0, not|4 of 4 nodes cannot die"):
        attrs.evolve(SHAPE, **wrong)  # type: ignore[arg-type]


def test_percentiles_are_near_enough() -> None:
    """Within a bucket; and rows of deliveries are all counted."""
    histogram = Histogram()
    histogram.spread(1e-3, 1e-3, 1000)

    assert histogram.count == 1000
    assert histogram.percentile(50) == pytest.approx(0.5, rel=0.1)
    assert histogram.percentile(100) == pytest.approx(1.0, rel=0.1)
    assert Histogram().percentile(99) == 0


def test_costs_are_found_again_in_figures_they_make() -> None:
    """A line through the first and the last window; the model finds the one between."""
    found = {f"fanout-{window}": check.one_server(COSTS, window) for window in WINDOWS}
    known = {"publish-32": 1e5, "storm": 640.0, "idle-memory kib": 40.0, "idle-10000 up": 1e4}
    costs = Measured("0", {**found, **known}).costs()

    assert costs.send == pytest.approx(COSTS.send, rel=0.02)
    assert costs.message == pytest.approx(COSTS.message, rel=0.02)
    assert check.one_server(costs, 16) == pytest.approx(found["fanout-16"], rel=0.02)


def test_figures_that_are_not_there_are_named() -> None:
    """And how to get them."""
    with pytest.raises(ValueError, match=r"no figures of .*storm.*benchmarks --record"):
        Measured("0", {"fanout-1": 1e5}).costs()


def test_one_server_does_what_arithmetic_says() -> None:
    """A thousand sends, and then the next."""
    each = VIEWERS_MEASURED * (COSTS.send + COSTS.message) + COSTS.append

    assert check.one_server(COSTS, 1) == pytest.approx(VIEWERS_MEASURED / each, rel=1e-6)


def test_latencies_are_compared_where_they_were_measured() -> None:
    """The first viewer waits for one send, the last one for a thousand."""
    latencies = check.paced(COSTS, 20)
    flush = VIEWERS_MEASURED * (COSTS.send + COSTS.message)
    found = {f"fanout-{window}": check.one_server(COSTS, window) for window in WINDOWS}
    known = {"publish-32": 1e5, "storm": 640.0, "idle-memory kib": 40.0, "idle-10000 up": 1e4}
    common = {"latency-common rate": 20.0, "latency-common p50": flush * 500}
    without, beside = (
        check.rows(Measured("0", {**found, **known, **more})) for more in ({}, common)
    )

    assert latencies.percentile(50) == pytest.approx(flush / 2, rel=0.1)
    assert latencies.percentile(100) == pytest.approx(flush, rel=0.1)
    (line,) = [line for line in beside if line not in without]
    assert float(line[1]) == pytest.approx(flush * 500, rel=0.01)
    assert float(line[2]) == pytest.approx(flush * 500, rel=0.1)


def test_plan_agrees_with_the_model() -> None:
    """Two ways to the same: multiplied, and counted."""
    shape = plan.preset(20_000, 4.0)
    planned, outcome = plan.Plan.of(shape, COSTS), run(shape)

    assert outcome.redis == pytest.approx(planned.redis, rel=0.2)
    assert outcome.copies == pytest.approx(planned.copies, rel=0.2)
    assert outcome.processor == pytest.approx(planned.node, rel=0.3)


def test_limit_is_where_the_bound_is_crossed() -> None:
    """One step more is too much."""
    found = plan.most(COSTS, 1, lambda p: p.redis, 0.1)
    shares = [plan.Plan.of(plan.preset(v), COSTS).redis for v in (found, found + 10_000)]

    assert shares[0] <= 0.1 < shares[1]


def test_document_has_a_place_for_every_table() -> None:
    """With the command beside it, and is found from the others."""
    text = DOCUMENT.read_text()

    for name in tables(1):
        assert put(text, name, "new").count("\nnew\n") == 1
    for other in ("README.md", "docs/engines.md"):
        assert "scale.md" in (ROOT / other).read_text()


def test_tables_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the committed figures; what is around them stays."""
    document = tmp_path / "scale.md"
    document.write_text(f"a\n<!-- `python -m benchmarks.fanout costs` -->\nold\n{END}\nb\n")

    assert main(["costs", "--write"], document) == 0
    assert main(["costs"]) == 0
    begin, *lines, end = document.read_text().splitlines()
    assert (begin, end) == ("a", "b")
    assert set(lines) > {line for line in capsys.readouterr().out.splitlines() if "|" in line}
    with pytest.raises(ValueError, match="lacks the lines"):
        main(["check", "--write"], document)


def test_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Told with those there are."""
    with pytest.raises(SystemExit):
        main(["coast"])

    assert "no table 'coast'; there are costs, check" in capsys.readouterr().err
