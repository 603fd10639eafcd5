"""The work: each workload drives one candidate, freshly started, and returns its figures."""

from __future__ import annotations

from benchmarks.workloads import (
    connections,
    fanout,
    growth,
    latency,
    publishing,
    recovery,
    stalling,
)

WORKLOADS = [
    *fanout.WORKLOADS,
    *publishing.WORKLOADS,
    *connections.WORKLOADS,
    *latency.WORKLOADS,
    *recovery.WORKLOADS,
    *stalling.WORKLOADS,
    *growth.WORKLOADS,
]
"""In the order of the report."""
