"""What an administrator asks and does from the command line, of a server that runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import triows
from tests.support import SECRET, token
from tests.support_client import CHANNEL, cli, connected, read
from triows.cli.app import app
from triows.cli.units import ago, amount, size

pytestmark = pytest.mark.slow

ADMIN = token("root", admin=True)


def test_page_names_every_command() -> None:
    """docs/cli.md says of each what it is for, and of no other."""
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    told = re.findall(r"^\| `([a-z]+)` \|", page.partition("Exit status")[0], re.MULTILINE)
    assert sorted(told) == sorted(name for name in app if not name.startswith("-"))


@asynccontextmanager
async def _server(**options: Any) -> AsyncIterator[tuple[triows.Server, partial[Any]]]:
    """Run a server, and hand out how to ask it as an administrator."""
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0, **options) as server:
            url = f"ws://127.0.0.1:{server.port}/ws"
            yield server, partial(cli, TRIOWS_URL=url, TRIOWS_TOKEN=ADMIN)


async def test_why_tells_how_a_connection_ended(nursery: trio.Nursery) -> None:
    """Code, reason, advice and traffic of a connection that is no more; a prefix will do."""
    async with _server() as (server, ask), connected(nursery, server) as client:
        await client.publish(CHANNEL, triows.log("hello"))
        (connection,) = server.connections()
        async with server.listen("system:connections") as happenings:
            server.disconnect(connection.id, "seen enough\x1b[2J")
            await anext(happenings)
        async with ask("why", connection.id[:18]) as command:
            assert await command.ended() == 0
    assert re.search(r"code +4503", command.out)
    assert re.search(r"reason +seen enough\\x1b\[2J", command.out)
    assert re.search(r"advice +stay away", command.out)
    assert re.search(r"user +me", command.out)
    assert re.search(r"received +1 messages", command.out)
    assert connection.id in command.out


async def test_why_tells_how_a_connection_is_doing(nursery: trio.Nursery) -> None:
    """One that is open, too."""
    async with _server() as (server, ask), connected(nursery, server) as client:
        await client.publish(CHANNEL, triows.log("hello"))
        async with ask("why", server.connections()[0].id) as command:
            assert await command.ended() == 0
    assert re.search(r"state +open", command.out)


async def test_why_of_nobody(nursery: trio.Nursery) -> None:
    """An id that no connection has, or too many begin with, is an error that helps."""
    async with _server() as (server, ask):
        async with ask("why", "nobody") as command:
            assert await command.ended() == 1
        assert "no connection 'nobody'; 0 are open" in command.err
        async with connected(nursery, server) as one, connected(nursery, server) as another:
            for client in (one, another):
                await client.publish(CHANNEL, triows.log("here"))
            async with ask("why", "0") as command:
                assert await command.ended() == 1
    assert "2 connections begin with '0'" in command.err


async def test_revoke_cuts_a_user(nursery: trio.Nursery) -> None:
    """All connections of a user end, and the number is told."""
    async with _server() as (server, ask), connected(nursery, server) as client:
        await client.publish(CHANNEL, triows.log("hello"))
        async with server.listen("system:connections") as happenings:
            async with ask("revoke", "--user", "me") as command:
                assert await command.ended() == 0
            await anext(happenings)
        assert command.out == "revoked; 1 connections were cut at this server\n"
        assert server.closed_connections()[0].code == 4503


async def test_revoke_wants_one_of_two() -> None:
    """Neither whose nor which: refused before anything is asked."""
    async with cli("revoke", TRIOWS_TOKEN=ADMIN) as command:
        assert await command.ended() == 2
    assert "either --user or --token-id" in command.err


async def test_drain_lets_a_server_end() -> None:
    """`triows serve` that is told to drain ends with 0, as on SIGTERM."""
    async with cli("serve", "--dev", "--server.port", "0") as server:
        url = (await server.says(r"listens on (ws://\S+)"))[1]
        admin = (await server.says(r" top .*--token (\S+)", "out"))[1]
        async with (
            triows.open_client(url, token=admin) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            await client.publish(CHANNEL, triows.log("hello"))
            await read(messages, 1)
            async with cli("drain", "--url", url, "--token", admin) as command:
                assert await command.ended() == 0
            assert command.out.startswith("draining: 1 connections")
            assert await server.ended() == 0


@pytest.mark.parametrize("command", ["top", "drain", "why x", "revoke --user x"])
async def test_without_the_right_nothing_is_done(command: str) -> None:
    """A token that is no administrator's is refused, and says so."""
    async with _server() as (server, _):
        url = f"http://127.0.0.1:{server.port}"
        async with cli(*command.split(), "--url", url, TRIOWS_TOKEN=token("ann")) as refused:
            assert await refused.ended() == 1
        assert "403: ann is no administrator" in refused.err
        assert not server.statistics().draining


async def test_no_server() -> None:
    """Nobody there: one line that says where nobody is."""
    async with cli("why", "x", "--url", "ws://127.0.0.1:1/ws", TRIOWS_TOKEN=ADMIN) as command:
        assert await command.ended() == 1
    assert command.err.count("\n") == 1
    assert "no answer from http://127.0.0.1:1: " in command.err


async def test_address_that_is_none() -> None:
    """Said before anything is asked."""
    async with cli("why", "x", "--url", "somewhere", TRIOWS_TOKEN=ADMIN) as command:
        assert await command.ended() == 2
    assert "--url 'somewhere' is no address" in command.err


async def test_top_prints_once_where_there_is_no_terminal(nursery: trio.Nursery) -> None:
    """Channels with their state, connections with their user."""
    async with _server() as (server, ask), connected(nursery, server) as client:
        await client.publish(CHANNEL, triows.log("hello"))
        await client.publish("session:over", triows.end(exit_code=3))
        async with ask("top", "--interval", "0.1") as command:
            assert await command.ended() == 0
    assert "serving: 1 connections" in command.out
    assert re.search(rf"{CHANNEL} +running", command.out)
    assert re.search(r"session:over +exit 3", command.out)
    assert re.search(r"[0-9a-f-]{36} +me ", command.out)


def test_units() -> None:
    """Numbers as people read them."""
    assert [amount(0), amount(1234567)] == ["0", "1,234,567"]
    assert [size(0), size(1023), size(1024), size(5 << 20), size(7 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "7168.0 GiB",
    ]
    assert [ago(-1), ago(59.9), ago(60), ago(3661), ago(90061)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 1 min",
        "1 d 1 h",
    ]
