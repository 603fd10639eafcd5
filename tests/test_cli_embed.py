"""The server that `triows run` opens when there is none: on a port that nobody has."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest
import trio

import triows
from tests.support_client import cli, read_all
from triows import listeners
from triows.cli.embed import EMBEDDED_PORTS, embedded_server
from triows.listeners import bind


def _take(stack: ExitStack, port: int) -> bool:
    """Listen on a port until `stack` is closed; false if others do."""
    listening = stack.enter_context(socket.socket())
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError:
        return False
    return True


async def test_run_opens_a_server_on_a_free_port() -> None:
    """Without a server it opens one, says how to watch, and passes the status on."""
    with ExitStack() as stack:
        taken = [port for port in EMBEDDED_PORTS[:5] if _take(stack, port)]  # or others have it
        script = "read line; echo got $line; exit 4"
        async with cli("run", "--id", "42", "--", "sh", "-c", script) as command:
            hint = await command.says(r" tail (\S+) --url (\S+) --token (\S+)")
            channel, url, bearer = hint.groups()
            assert channel == "session:42"
            assert int(url.split(":")[2].split("/")[0]) in set(EMBEDDED_PORTS) - set(taken)
            async with (
                triows.open_client(url, token=bearer) as client,
                client.subscribe(channel, from_start=True) as messages,
            ):
                first = await anext(messages)  # so we are connected before the command ends
                await command.tell("it\n")
                received = [first, *await read_all(messages)]
            assert await command.ended() == 4
        assert command.out == "got it\n"
        assert [m.type for m in received] == ["status", "log", "end"]
        assert received[1].data == {"stream": "stdout", "text": "got it"}
        assert received[2].data == {"exit_code": 4}


async def test_run_takes_the_next_port_when_another_was_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two that start in one moment: both can bind a port, and one can listen on it."""
    taken: list[int] = []

    async def bind_slowly(host: str, port: int, **options: Any) -> list[socket.socket]:
        bound = await bind(host, port, **options)
        if not taken and _take(stack, port):
            taken.append(port)
        return bound

    monkeypatch.setattr(listeners, "bind", bind_slowly)
    with ExitStack() as stack:
        async with embedded_server("session:1", triows.Settings(), None) as (_, link):
            assert int(link.split(":")[2].split("/")[0]) in set(EMBEDDED_PORTS) - set(taken)
        assert taken


def _refused(number: int) -> triows.ConfigError:
    error = triows.ConfigError("cannot listen")
    error.__cause__ = OSError(number, "")
    return error


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
async def test_run_leaves_ports_that_are_not_for_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of somebody else, or kept from us: it takes the next, until there is none."""
    asked: list[int] = []

    async def bind_none(host: str, port: int, **options: Any) -> list[socket.socket]:
        await trio.lowlevel.checkpoint()
        asked.append(port)
        raise _refused(number)

    monkeypatch.setattr(listeners, "bind", bind_none)
    with pytest.raises(triows.ConfigError, match="no port is free from 8080 to 8179"):
        async with embedded_server("session:1", triows.Settings(), None):
            pass
    assert asked == list(EMBEDDED_PORTS)


async def test_run_says_why_it_cannot_listen_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another port would not mend is told at once."""

    async def bind_none(host: str, port: int, **options: Any) -> list[socket.socket]:
        await trio.lowlevel.checkpoint()
        raise _refused(errno.EMFILE)

    monkeypatch.setattr(listeners, "bind", bind_none)
    with pytest.raises(triows.ConfigError, match="cannot listen"):
        async with embedded_server("session:1", triows.Settings(), None):
            pass
