"""What `triows.testing` offers to the tests of others."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from triows.testing import Link, Network, Site, Tokens, run
from triows.testing.site import open_site

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "testing.md").read_text()
CHANNEL = "session:1"


async def drain_pipe(link: Link) -> bytes:
    """Return all that comes up, to its end."""
    received = b""
    while data := await link.up.get(1000):
        received += data
    return received


async def test_rate_and_delay(triows_clock: MockClock) -> None:
    """Bytes take as long as they should, and come in order."""
    link = Link("x")
    link.delay(2)
    link.slow(10)
    link.crumble(5)
    began = trio.current_time()
    assert link.up.put(b"0123456789" * 3) == 30
    link.up.end()

    assert await drain_pipe(link) == b"0123456789" * 3
    assert trio.current_time() - began == pytest.approx(2 + 25 / 10, abs=0.6)


async def test_healed_line_is_free(triows_clock: MockClock) -> None:
    """What went slowly holds up nothing once the line is fast."""
    link = Link("x")
    link.slow(10)
    link.up.put(b"x" * 1000)
    assert await link.up.get(1000) == b"x" * 1000
    link.heal()
    link.up.put(b"y")

    with trio.fail_after(1):
        assert await link.up.get(1000) == b"y"


async def test_crumbs(triows_clock: MockClock) -> None:
    """One byte at a time."""
    link = Link("x")
    link.crumble(1)
    link.up.put(b"abc")

    assert [await link.up.get(10) for _ in range(3)] == [b"a", b"b", b"c"]


async def test_stalled_and_healed(triows_clock: MockClock, nursery: trio.Nursery) -> None:
    """Nothing comes until it is healed; then all does."""
    link = Link("x")
    link.stall("up")
    link.up.put(b"late")
    with trio.move_on_after(1000) as scope:
        await link.up.get(10)
    assert scope.cancelled_caught
    link.heal()

    assert await link.up.get(10) == b"late"


async def test_full_pipe_holds_back_who_sends(triows_clock: MockClock) -> None:
    """No more than its capacity is on its way."""
    link = Link("x", capacity=10)
    assert link.up.put(b"x" * 15) == 10
    assert link.up.put(b"x") == 0
    with trio.move_on_after(5) as scope:
        await link.up.wait_room()
    assert scope.cancelled_caught
    assert await link.up.get(4) == b"xxxx"
    await link.up.wait_room()

    assert link.up.put(b"y" * 15) == 4


async def test_cut_reset_and_half_close() -> None:
    """What is on its way arrives after a cut, and is lost with a reset."""
    cut, reset, half = Link("cut"), Link("reset"), Link("half")
    for link in (cut, reset, half):
        link.up.put(b"x")
    cut.cut()
    reset.reset()
    half.half_close("up")

    assert (await drain_pipe(cut), await drain_pipe(half)) == (b"x", b"x")
    with pytest.raises(trio.BrokenResourceError):
        await reset.up.get(1)
    for link in (cut, reset, half):
        with pytest.raises(BrokenPipeError):
            link.up.put(b"y")
    assert half.down.put(b"still") == 5


@pytest.mark.parametrize("eager", [True, False])
async def test_site(eager: bool, triows_clock: MockClock) -> None:
    """A server, a client, and nothing of either afterwards."""
    network = Network()
    network.eager = eager
    async with open_site(network) as site, site.connect("ann") as ann:
        async with ann.subscribe(CHANNEL, from_start=True) as messages:
            position = await ann.publish(CHANNEL, triows.log("x"))
            message = await anext(messages)
        assert (message.data, message.offset) == ("x", position.offset)
        assert [link.name for link in network.links] == ["ann"]
        assert site.server.connections()[0].peer == "ann"

    assert not network.links
    with pytest.raises(ConnectionRefusedError):
        await network.opener()()


async def test_fixtures(
    triows_site: Site,
    triows_server: triows.Server,
    triows_network: Network,
    triows_connect: Any,
    triows_clock: MockClock,
) -> None:
    """They belong together."""
    async with triows_connect("ann", subscribe=["session:*"]) as ann:
        with pytest.raises(triows.RequestError, match="may not publish"):
            await ann.publish(CHANNEL, triows.log("x"))
        assert [c.user for c in triows_server.connections()] == ["ann"]
    assert triows_site.network is triows_network


async def test_token_expires_in_virtual_time(triows_site: Site, triows_clock: MockClock) -> None:
    """Ten minutes pass at once, and so does the life of a token."""
    token = triows_site.tokens.make("ann", ttl=600)
    began = time.time()
    with trio.fail_after(700):
        async with triows.open_client(
            "ws://server.test/ws", token=token, open_stream=triows_site.network.opener()
        ) as client:
            with pytest.raises(triows.HandshakeRefused, match="expired"):
                async with client.subscribe(CHANNEL) as messages:
                    await anext(messages)

    assert 600 <= time.time() - began < 630


@pytest.mark.parametrize("token", ["test.xxx", "test.e30=", "nonsense", "test.ü"])
async def test_strange_tokens(token: str) -> None:
    """They are refused, and nothing else happens."""
    with pytest.raises(triows.AuthError):
        await Tokens().verify(token)


def test_order_of_tasks_follows_from_the_seed() -> None:
    """The same seed runs tasks in the same order, and others do not."""

    async def main() -> list[int]:
        order: list[int] = []

        async def act(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(act, number)
        return order

    assert run(main, 1) == run(main, 1)
    assert len({tuple(run(main, seed)) for seed in range(10)}) == 10


def test_time_is_real_again_afterwards() -> None:
    """Virtual time leaves nothing behind, not even when the test failed."""

    async def main() -> None:
        await trio.sleep(1000)
        raise ValueError

    real = time.time, time.time_ns
    with pytest.raises(ValueError, match=r"^$"):
        run(main)

    assert (time.time, time.time_ns) == real


async def test_stream_that_is_closed(triows_clock: MockClock, nursery: trio.Nursery) -> None:
    """Who waits for bytes, or for room, learns that this end was closed, or the other."""
    network = Network(capacity=10)
    async with open_site(network) as site:
        stream = await site.network.opener()()
        nursery.start_soon(trio.sleep, math.inf)
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        await wait_all_tasks_blocked()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
    nursery.cancel_scope.cancel()


def _pytest(directory: Path, *options: str) -> None:
    """Run pytest on what is in a directory, with those plugins only that are named."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_plugin_imports_nothing_at_start(tmp_path: Path) -> None:
    """A run of pytest that does not use it pays nothing for it; pytest finds it by itself."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it():\n    assert 'pytest_triows' in sys.modules\n"
        "    assert not {'triows', 'trio', 'trio_websocket', 'msgspec'} & set(sys.modules)\n"
    )
    _pytest(tmp_path, "-p", "pytest_triows")

    plugins = entry_points(group="pytest11", name="triows")
    assert [plugin.value for plugin in plugins] == ["pytest_triows"]


def test_first_example_passes(tmp_path: Path) -> None:
    """The one that docs/testing.md begins with, in a project of its own."""
    example = re.search(r"(?ms)^```python\n(.*?)^```", GUIDE)
    assert example is not None
    (tmp_path / "test_it.py").write_text(example[1])

    _pytest(tmp_path, "-p", "pytest_trio.plugin", "-p", "pytest_triows", "-o", "trio_mode=true")


def test_documentation_shows_the_example_as_it_is() -> None:
    """docs/testing.md has the files that are tested."""
    shown = re.findall(r"(?ms)^<!-- (\S+) -->\n```python\n(.*?)^```", GUIDE)

    assert [Path(name).name for name, _ in shown] == ["builds.py", "test_builds.py"]
    for name, code in shown:
        assert (ROOT / name).read_text() == code
