"""The builds are tested without a port, and the network fails when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

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
    lines: list[str] = []
    async with site.connect("ann") as ann, site.connect("vic", subscribe=["session:*"]) as vic:
        assert (await ann.command(BUILD, "stop"))["result"] == "stopped for ann"
        await follow(vic, BUILD, lines.append)
        assert lines == ["stop", "(stopped)"]
        with pytest.raises(triows.RequestError, match="may not command"):
            await vic.command(BUILD, "stop")


async def test_no_line_is_lost_with_a_connection(
    site: Site, nursery: trio.Nursery, triows_clock: MockClock
) -> None:
    """The train goes into a tunnel after every tenth line."""
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if len(lines) % 10 == 0:
            site.network.of("vic")[-1].reset()

    async def build() -> None:
        for number in range(40):
            await site.server.publish(BUILD, triows.log(f"line {number}"))
            await trio.sleep(0.1)  # virtual: over at once
        await site.server.publish(BUILD, triows.end(reason="done"))

    async with site.connect("vic") as vic:
        nursery.start_soon(build)
        await follow(vic, BUILD, show)

    assert lines == [*(f"line {number}" for number in range(40)), "(done)"]


async def test_slow_viewer_is_told_what_it_missed(
    site: Site, nursery: trio.Nursery, triows_clock: MockClock
) -> None:
    """Somebody whose network stalls while a thousand lines go by sees that some are gone."""
    lines: list[str] = []
    async with site.connect("vic") as vic:
        nursery.start_soon(follow, vic, BUILD, lines.append)
        await trio.sleep(1)
        site.network.of("vic")[0].stall("down")
        for number in range(1000):
            await site.server.publish(BUILD, triows.log(f"line {number}"))
            await trio.sleep(0.001)
        site.network.of("vic")[0].heal()
        await site.server.publish(BUILD, triows.end(reason="done"))
        await trio.sleep(1)

    gone = [line for line in lines if "are gone" in line]
    assert len(gone) == 1
    assert lines[-2:] == ["line 999", "(done)"]
