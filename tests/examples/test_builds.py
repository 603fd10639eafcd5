"""The builds are tested without a port, and the network fails when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

import triows
from tests.examples.builds import follow, open_builds
from triows.testing import Network, Site, Tokens

BUILD = "session:build-1"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Our application, on a network in memory."""
    network, tokens = Network(capacity=1000), Tokens()
    settings = triows.Settings(log=triows.LogLimits(max_messages=100))
    async with open_builds(listen=network.port(), auth=tokens, settings=settings) as server:
        yield Site(server, network, tokens)


async def test_build_can_be_stopped(site: Site) -> None:
    """A command ends the build, and whoever watches sees that."""
    async with site.connect("ann") as ann, site.connect("vic", subscribe=["session:*"]) as vic:
        assert (await ann.command(BUILD, "stop"))["result"] == "stopped for ann"
        assert [line async for line in follow(vic, BUILD)] == ["stop", "(stopped)"]
        with pytest.raises(triows.RequestError, match="may not command"):
            await vic.command(BUILD, "stop")


async def test_no_line_is_lost_with_a_connection(
    site: Site, triows_clock: trio.testing.MockClock
) -> None:
    """The train goes into a tunnel after every tenth line."""
    lines: list[str] = []
    async with site.connect("vic") as vic:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for line in follow(vic, BUILD):
                    lines.append(line)
                    if len(lines) % 10 == 0:
                        site.network.of("vic")[-1].reset()

            nursery.start_soon(watch)
            for number in range(40):
                await site.server.publish(BUILD, triows.log(f"line {number}"))
                await trio.sleep(0.1)  # virtual: over at once
            await site.server.publish(BUILD, triows.end(reason="done"))

    assert lines == [*(f"line {number}" for number in range(40)), "(done)"]


async def test_slow_viewer_is_told_what_it_missed(
    site: Site, triows_clock: trio.testing.MockClock
) -> None:
    """Somebody whose network stalls while a thousand lines go by sees that some are gone."""
    async with site.connect("vic") as vic:
        lines = follow(vic, BUILD)
        await site.server.publish(BUILD, triows.log("first"))
        assert await anext(lines) == "first"
        site.network.of("vic")[0].stall("down")
        for number in range(1000):
            await site.server.publish(BUILD, triows.log(number))
        await trio.sleep(1)
        site.network.of("vic")[0].heal()
        await site.server.publish(BUILD, triows.end(reason="done"))
        shown = [str(line) async for line in lines]

    gone = [line for line in shown if "are gone" in line]
    assert len(gone) == 1
    assert shown[-2:] == ["999", "(done)"]
