"""Metrics for Prometheus: read from what the server knows anyway, when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from triows.administration import Administration
from triows.counters import Histogram
from triows.statistics import ConnectionStatistics, ServerStatistics

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def expose(administration: Administration, connections: list[ConnectionStatistics]) -> bytes:
    """Return all metrics as text.

    Args:
        administration: where they are read.
        connections: those of now.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # memory, descriptors, processor time
    registry.register(_Snapshot(administration, connections))
    return generate_latest(registry)


@final
class _Snapshot(Collector):
    """The server as it is now."""

    def __init__(
        self, administration: Administration, connections: list[ConnectionStatistics]
    ) -> None:
        self._administration = administration
        self._connections = connections
        self._statistics = administration.statistics(connections)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names do not have to be checked, the registry is its own."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        yield from self._of_connections(self._statistics)
        yield from self._of_messages(self._statistics)
        yield from self._of_the_server(self._statistics)

    def _of_connections(self, now: ServerStatistics) -> Iterable[Metric]:
        registry = self._administration.registry
        states = Counter({"open": 0, "closing": 0})
        states.update(connection.state for connection in self._connections)
        yield _labelled(GaugeMetricFamily, "connections", "Connections by state.", "state", states)
        yield _counter("connections_opened", "Connections admitted.", now.opened)
        yield _labelled(
            CounterMetricFamily, "connections_closed", "Connections ended, by close code.",
            "code", now.closed,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "refused", "Openings refused, by error code.",
            "reason", registry.refused_by_code,
        )  # fmt: skip
        yield _gauge(
            "http_connections", "HTTP connections, event streams apart.", len(registry.guests)
        )
        yield _labelled(
            CounterMetricFamily, "http_requests", "HTTP requests answered, by status.",
            "status", now.answers,
        )  # fmt: skip

    def _of_messages(self, now: ServerStatistics) -> Iterable[Metric]:
        yield _counter("messages_received", "Messages of clients.", now.received_messages)
        yield _counter("received_bytes", "Bytes of clients.", now.received_bytes)
        yield _counter("messages_published", "Messages kept.", now.published)
        yield _counter("messages_delivered", "Messages sent to viewers.", now.delivered)
        yield _counter("sent_bytes", "Bytes sent to clients.", now.sent_bytes)
        yield _labelled(
            CounterMetricFamily, "errors", "Requests refused, by error code.", "code", now.errors
        )
        limited = now.errors.get("rate_limited", 0)
        yield _counter("rate_limited", "Messages refused as too many.", limited)
        yield _counter("gaps", "Gaps that viewers were told of.", now.gaps)
        yield _gauge("lag_messages", "Messages the last viewer is behind.", now.lag)
        yield _gauge("lag_seconds", "Seconds the last viewer is behind.", now.lag_seconds)
        behind = sum(1 for connection in self._connections if connection.lag)
        yield _gauge("lagging_connections", "Connections that are behind.", behind)
        yield _histogram(
            "publish_to_socket_seconds",
            "From publishing to the sockets of all viewers, one sample a flush.",
            self._administration.hub.latency,
        )

    def _of_the_server(self, now: ServerStatistics) -> Iterable[Metric]:
        yield _gauge("channels", "Logs held in memory.", now.channels)
        yield _gauge("log_bytes", "Bytes the logs in memory are counted with.", now.log_bytes)
        yield _gauge("draining", "Whether no new connections are taken.", float(now.draining))
        lateness = self._administration.stall.lateness
        yield _histogram("event_loop_late_seconds", "How late a timer woke up.", lateness)
        yield _gauge("event_loop_late_longest_seconds", "The latest of them.", now.stalled)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"triows_{name}", what, value=value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"triows_{name}", what, value=value)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    what: str,
    label: str,
    values: Mapping[int, int] | Mapping[str, int],
) -> Metric:
    family = kind(f"triows_{name}", what, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    return HistogramMetricFamily(f"triows_{name}", what, buckets=buckets, sum_value=histogram.total)
