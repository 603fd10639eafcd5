"""A planned restart under a thousand clients: no herd, no hole, nothing twice."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import memory_server
from tests.support_client import CHANNEL, Network, offsets, read

CLIENTS = 1000
CEILING = 400
"""Openings a second, with room to the 500 to 1000 that one core takes."""

LIMITS = triows.Limits(
    max_connections_per_user=0, messages_per_second=0, handshakes_per_second_per_address=0
)


def _most_in_a_second(times: list[float]) -> int:
    """Return how many of `times`, which are in order, lie within the busiest second."""
    assert all(earlier <= later for earlier, later in pairwise(times))
    first, most = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.slow
async def test_thousand_clients_come_back_without_a_herd(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """All get what was published before the restart and what comes after, once and in order,
    and come back spread over time.
    """
    network = Network(nursery, None)
    received: list[list[triows.Message]] = []
    watching, heard = trio.Event(), trio.Event()

    async def watch() -> None:
        async with (
            network.client() as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            mine = await read(messages, 1)
            received.append(mine)
            if len(received) == CLIENTS:
                watching.set()
            while mine[-1].type != "end":
                mine += await read(messages, 1)
        if all(messages[-1].type == "end" for messages in received):
            heard.set()

    async with memory_server(limits=LIMITS) as second:
        async with memory_server(limits=LIMITS) as first:
            network.server = first
            await first.publish(CHANNEL, triows.log("first"))
            for _ in range(CLIENTS):
                nursery.start_soon(watch)
            await watching.wait()
            for number in range(9):
                await first.publish(CHANNEL, triows.log(number))
            network.server, network.opened = second, []
        for number in range(9):  # while they come back
            await second.publish(CHANNEL, triows.log(number))
            await trio.sleep(1)
        await second.publish(CHANNEL, triows.end())
        await heard.wait()

    assert len(network.opened) == CLIENTS
    assert _most_in_a_second(network.opened) <= CEILING
    for messages in received:
        gap = [message.type for message in messages].index("gap")
        assert offsets(messages[:gap]) == list(range(1, 11))
        assert offsets(messages[gap + 1 :]) == list(range(1, 11))
