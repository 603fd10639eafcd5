"""Metrics: true figures, in the format of Prometheus, and no second bookkeeping."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, connect, dial, memory_server, request_head, token
from tests.support_http import ADMIN, A, ask, watch
from triows.counters import Histogram
from triows.stall import INTERVAL, StallClock


async def scrape(server: triows.Server, nursery: Nursery) -> dict[str, float]:
    """Return every sample by its name, with its label if it has one."""
    answer = await ask(server, nursery, "GET", "/metrics", bearer=ADMIN)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.name.startswith(("triows_", "process_"))
        assert family.documentation
        for sample in family.samples:
            label = ",".join(sample.labels.values())
            name = sample.name.removeprefix("triows_")
            found[f"{name}[{label}]" if label else name] = sample.value
    return found


async def test_metrics(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What has happened is told, and nothing is forgotten when connections go."""
    limits = triows.Limits(messages_per_second=1, messages_burst=3)
    async with memory_server(limits=limits, log=triows.LogLimits(max_messages=2)) as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", id="1", channel="session:1")
        for number in range(5):
            await server.publish("session:1", triows.log(number))
            await peer.hear()
        for _ in range(3):
            await peer.ask("ping")
        await (await watch(server, nursery, "?since=abc:1")).next()
        refused = dial(server, nursery)
        await refused.send(request_head("gibberish"))
        await refused.response()
        now = await scrape(server, nursery)
        assert (now["connections[open]"], now["connections[closing]"]) == (2, 0)
        assert (now["connections_opened_total"], now["refused_total[unauthorized]"]) == (2, 1)
        assert (now["messages_received_total"], now["messages_delivered_total"]) == (4, 7)
        assert (now["errors_total[rate_limited]"], now["rate_limited_total"]) == (1, 1)
        assert (now["gaps_total"], now["draining"], now["http_connections"]) == (1, 0, 1)
        assert (now["channels"], now["lag_messages"]) == (2, 0)
        assert now["log_bytes"] == server.statistics().log_bytes
        assert now["publish_to_socket_seconds_count"] >= 5
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
        server.drain()
        await wait_all_tasks_blocked()
        then = await scrape(server, nursery)
        assert (then["connections[open]"], then["connections_closed_total[1006]"]) == (0, 1)
        assert (then["connections_closed_total[1012]"], then["draining"]) == (1, 1)
        assert then["http_requests_total[200]"] == 2
        for name in ("messages_received", "messages_delivered", "received_bytes", "sent_bytes"):
            assert then[f"{name}_total"] >= now[f"{name}_total"] > 0


async def test_metrics_of_a_lagging_viewer(nursery: Nursery, autojump_clock: MockClock) -> None:
    """How far the last viewer is behind, in messages and in time."""
    async with memory_server(limits=triows.Limits(write_timeout=100)) as server:
        await server.publish("session:1", triows.log(0))
        await watch(server, nursery, narrow=True)
        await wait_all_tasks_blocked()
        await server.publish("session:1", triows.log(1))
        await trio.sleep(9)
        now = await scrape(server, nursery)
        assert (now["lag_messages"], now["lagging_connections"]) == (2, 1)
        assert now["lag_seconds"] == pytest.approx(9)


async def test_metrics_leave_the_process_alone(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The application's own metrics are not touched: nothing of ours is registered there."""
    async with memory_server() as server:
        await scrape(server, nursery)
        await scrape(server, nursery)
    assert not [f for f in REGISTRY.collect() if f.name.startswith("triows")]


@pytest.mark.parametrize("bearer", [None, token()])
async def test_metrics_are_for_administrators(
    nursery: Nursery, autojump_clock: MockClock, bearer: str | None
) -> None:
    """Users and their channels are nobody else's business."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", "/metrics", bearer=bearer)
        assert answer.status == (401 if bearer is None else 403)


async def test_publish_to_socket_is_measured(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One sample for each flush, however many messages and viewers it has served."""
    async with memory_server() as server:
        peers = [await connect(server, nursery) for _ in range(3)]
        for peer in peers:
            await peer.ask("subscribe", id="1", channel="session:1")
            await peer.ask("subscribe", id="2", channel="session:2")
        latency = server._hub.latency
        before = sum(latency.counts)
        for number in range(4):
            for channel in ("session:1", "session:2"):
                server._bus.submit(
                    channel, triows.log(number), "", trio.current_time(), lambda *_: None
                )
        await wait_all_tasks_blocked()
        assert sum(latency.counts) == before + 1
        assert latency.total < 0.1


async def test_stall_is_seen(autojump_clock: MockClock) -> None:
    """A loop that was kept busy is late, by as much as the timer was still to run."""
    stall = StallClock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stall.run)
        await trio.sleep(INTERVAL * 2.5)
        assert stall.lateness.longest == 0
        autojump_clock.jump(3)  # nobody got a turn meanwhile
        await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert stall.lateness.longest == pytest.approx(3 - INTERVAL / 2)
        nursery.cancel_scope.cancel()


def test_histogram() -> None:
    """A value at a bound is within it; one above all bounds is not lost."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total, histogram.longest) == ([2, 2, 1], 104.0, 99.0)


async def test_scrape_leaves_a_stream(nursery: Nursery, autojump_clock: MockClock) -> None:
    """An open event stream is a connection to the metrics, too."""
    async with memory_server() as server:
        await server.publish("session:1", triows.log(0))
        await watch(server, nursery)
        assert (await scrape(server, nursery))["connections[open]"] == 1
        assert (await ask(server, nursery, "GET", A)).body["viewers"] == 1
