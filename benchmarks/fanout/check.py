"""The model against what was measured, at a size that runs on one machine."""

from __future__ import annotations

import math
from itertools import accumulate, repeat

import attrs

from benchmarks.fanout.costs import VIEWERS_MEASURED, WINDOWS, Costs, Measured
from benchmarks.fanout.histogram import Histogram
from benchmarks.fanout.node import News, Node

ROUNDS = 5  # windows that are modelled
PACED = "latency-common"  # the workload that publishes at a fixed rate
PACED_MESSAGES = 200  # modelled of it
STALLED = ("stalled alone", 900, 16)  # the figure, how many viewers, messages under way
TWO_NODES_WINDOW = 16  # of `benchmarks.nodes`


def one_server(costs: Costs, window: int) -> float:
    """Return deliveries a second of one server in memory: the next window when all have the last.

    What a publisher sends at once is read at once, and nothing goes over a network.
    """
    return VIEWERS_MEASURED / _each(costs, window, VIEWERS_MEASURED)


def _each(costs: Costs, window: int, viewers: int) -> float:
    """Return how long each message takes there."""
    elapsed = _closed(_alone(costs), window, viewers, apart=0.0)[0]
    return elapsed / (ROUNDS * window)


def _alone(costs: Costs) -> Costs:
    """Return what a server in memory costs, that reads all that was sent at once."""
    return attrs.evolve(costs, hear=costs.append, hears=PACED_MESSAGES, nic=math.inf)


def paced(costs: Costs, rate: float) -> Histogram:
    """Return the latencies of one server in memory, at so many messages a second."""
    times = [number / rate for number in range(PACED_MESSAGES)]
    latencies = Histogram()
    node = Node(_alone(costs), {0: VIEWERS_MEASURED}, {0: times}, latencies, Histogram())
    node.run(News(at, 0, number) for number, at in enumerate(times))
    return latencies


def two_nodes(costs: Costs) -> tuple[float, float]:
    """Return deliveries a second, and seconds of the viewers' node for each message.

    The publisher is at the other node; both nodes and Redis share one processor, as in
    `benchmarks.nodes`.
    """
    costs = attrs.evolve(costs, nic=math.inf)
    apart = costs.publish + costs.script + costs.copy
    busy = _closed(costs, TWO_NODES_WINDOW, VIEWERS_MEASURED, apart)[1]
    messages = ROUNDS * TWO_NODES_WINDOW
    return messages * VIEWERS_MEASURED / (busy + messages * apart), busy / messages


def _closed(costs: Costs, window: int, viewers: int, apart: float) -> tuple[float, float]:
    """Return how long it took, and how long the node worked."""
    times: list[float] = []
    node = Node(costs, {0: viewers}, {0: times}, Histogram(), Histogram())
    ended = 0.0
    for _ in range(ROUNDS):
        sent = list(accumulate(repeat(apart, window), initial=ended))[1:]
        news = [News(at, 0, len(times) + number) for number, at in enumerate(sent)]
        times += repeat(ended, window)
        ended = node.run(news)
    return ended, node.busy


def rows(measured: Measured) -> list[list[str]]:
    """Return a line for each work: measured, modelled, the error, and what the model knew."""
    costs, found = measured.costs(), []
    for window in WINDOWS:
        knew = "no" if window not in (WINDOWS[0], WINDOWS[-1]) else "yes: the line is through it"
        figure, model = measured.medians[f"fanout-{window}"], one_server(costs, window)
        work = f"one server in memory, {window} under way: deliveries/s"
        found.append([work, f"{figure:,.0f}", f"{model:,.0f}", _error(model, figure), knew])
    return found + _times(measured, costs) + _nodes(costs)


def _times(measured: Measured, costs: Costs) -> list[list[str]]:
    """Return the lines of what was timed, as far as it was."""
    known: list[tuple[str, str, float]] = []
    name, viewers, window = STALLED
    work = f"{viewers} viewers, {window} under way: until everybody has them"
    known.append((work, name, _each(costs, window, viewers) * 1e3))
    rate = measured.medians.get(f"{PACED} rate")
    for percent in (50, 99) if rate else ():
        model = paced(costs, rate or 1.0).percentile(percent) * 1e3
        known.append((f"latency at {rate:g} messages/s, p{percent}", f"{PACED} p{percent}", model))
    lines = []
    for work, name, model in known:
        if (figure := measured.medians.get(name)) is not None:
            many = window if name == STALLED[0] else 1  # measured is a part of the window
            shown = [f"{value * many:.2f}" for value in (figure, model)]
            work = f"one server in memory, {work}, ms"
            lines.append([work, *shown, _error(model, figure), "no"])
    return lines


def _nodes(costs: Costs) -> list[list[str]]:
    """Return the lines of what `benchmarks.nodes` measures."""
    lines = []
    for name, hears in (
        ("hearing one a turn", costs.hears),
        ("hearing all at once", TWO_NODES_WINDOW),
    ):
        rate, each = two_nodes(attrs.evolve(costs, hears=hears))
        work = f"two nodes over Redis on one core, {TWO_NODES_WINDOW} under way, {name}"
        lines.append([f"{work}: deliveries/s", "–", f"{rate:,.0f}", "–", "no"])
        lines.append([f"{work}: `there_us`", "–", f"{each * 1e6:,.0f}", "–", "no"])
    return lines


def _error(model: float, figure: float) -> str:
    return f"{round(model / figure - 1, 2) + 0.0:+.0%}"  # not -0%
