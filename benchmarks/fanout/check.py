"""The model against what was measured, at a size that runs on one machine."""

from __future__ import annotations

import math
from itertools import accumulate, repeat

import attrs

from benchmarks.fanout.costs import VIEWERS_MEASURED, WINDOWS, Costs, Measured
from benchmarks.fanout.histogram import Histogram
from benchmarks.fanout.node import News, Node

ROUNDS = 20  # windows that are modelled
TWO_NODES_WINDOW = 16  # of `benchmarks.nodes`


def one_server(costs: Costs, window: int) -> float:
    """Return deliveries a second of one server in memory: the next window when all have the last.

    What a publisher sends at once is read at once, and nothing goes over a network.
    """
    costs = attrs.evolve(costs, hear=costs.append, hears=window, nic=math.inf)
    elapsed = _closed(costs, window, apart=0.0)[0]
    return ROUNDS * window * VIEWERS_MEASURED / elapsed


def two_nodes(costs: Costs) -> tuple[float, float]:
    """Return deliveries a second, and seconds of the viewers' node for each message.

    The publisher is at the other node; both nodes and Redis share one processor, as in
    `benchmarks.nodes`.
    """
    costs = attrs.evolve(costs, nic=math.inf)
    apart = costs.publish + costs.script + costs.copy
    busy = _closed(costs, TWO_NODES_WINDOW, apart)[1]
    messages = ROUNDS * TWO_NODES_WINDOW
    return messages * VIEWERS_MEASURED / (busy + messages * apart), busy / messages


def _closed(costs: Costs, window: int, apart: float) -> tuple[float, float]:
    """Return how long it took, and how long the node worked."""
    times: list[float] = []
    node = Node(costs, {0: VIEWERS_MEASURED}, {0: times}, Histogram(), Histogram())
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
        figure = measured.medians[f"fanout-{window}"]
        model = one_server(costs, window)
        knew = "no" if window not in (WINDOWS[0], WINDOWS[-1]) else "yes: the line is through it"
        error = f"{round(model / figure - 1, 2) + 0.0:+.0%}"  # not -0%
        work = f"one server in memory, {window} under way, deliveries/s"
        found.append([work, f"{figure:,.0f}", f"{model:,.0f}", error, knew])
    for name, hears in (("as built", costs.hears), ("taking all it was told", TWO_NODES_WINDOW)):
        rate, each = two_nodes(attrs.evolve(costs, hears=hears))
        work = f"two nodes over Redis on one core, {TWO_NODES_WINDOW} under way, {name}"
        found.append([f"{work}: deliveries/s", "–", f"{rate:,.0f}", "–", "no"])
        found.append([f"{work}: `there_us`", "–", f"{each * 1e6:,.0f}", "–", "no"])
    return found
