"""`triows run --pty` as somebody at a terminal sees it: keys, sizes, and how it is left."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import triows
from tests.support import SECRET, token
from tests.support_client import cli, read_all
from tests.support_terminal import Window, window, window_of

pytestmark = pytest.mark.slow

CHANNEL = "session:7"


@asynccontextmanager
async def _watched(*command: str) -> AsyncIterator[tuple[Window, triows.Subscription]]:
    """Run a command in a terminal in a terminal, and watch it at a server."""
    async with (
        triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
        triows.open_client(server.url, token=token()) as client,
        client.subscribe(CHANNEL, from_start=True) as messages,
        window(
            "run", "--pty", "--id", "7", "--url", server.url, "--token", token(), "--", *command
        ) as screen,
    ):
        yield screen, messages


async def test_pty_ends_the_input_of_what_reads(capfd: pytest.CaptureFixture[str]) -> None:
    """Input that is no keyboard reaches the command, and so does its end, within a line too."""
    for text, shown in (("one\ntwo\n", "one\r\ntwo\r\n"), ("partial", "partial")):
        async with (
            triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
            cli(
                *("run", "--pty", "--url", server.url, "--token", token(), "--"),
                *("sh", "-c", "stty -echo; echo ready; cat; echo over"),
            ) as command,
        ):
            await command.says("ready", "out")
            await command.tell(text)
            assert await command.ended() == 0
        assert command.out == f"ready\r\n{shown}over\r\n"


async def test_pty_in_a_terminal() -> None:
    """Keys go through, Ctrl-C too; it looks as without us, and the terminal is as before."""
    script = (
        "trap 'echo caught; exit 5' INT; stty size; read line; echo got $line; "
        "while :; do sleep 0.05; done"
    )
    async with _watched("sh", "-c", script) as (screen, messages):
        await screen.shows("24 80\r\n")
        assert screen.is_raw
        await screen.type("hello\r")
        await screen.shows("hello\r\ngot hello\r\n")
        await screen.type("\x03")
        assert await screen.process.wait() == 5
        assert screen.is_as_before
        received = await read_all(messages)
    texts = [m.data["text"] for m in received if m.type == "log" and not m.data.get("partial")]
    assert texts == ["24 80", "hello", "got hello", "^Ccaught"]
    assert received[-1].data == {"exit_code": 5}


async def test_pty_passes_on_that_the_window_changed() -> None:
    """The command gets the new size and SIGWINCH; those who watch are told."""
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    async with _watched("sh", "-c", script) as (screen, messages):
        await screen.shows("ready")
        screen.resize(40, 132)
        await screen.shows("40 132")
        screen.process.terminate()
        assert await screen.process.wait() == 143
        received = await read_all(messages)
    assert received[0].data["terminal"] == {"columns": 80, "rows": 24}
    told = [m.data for m in received if m.type == "event"]
    assert told == [{"event": "resized", "columns": 132, "rows": 40}]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGINT, 130),
        (signal.SIGQUIT, 131),
    ],
)
async def test_pty_killed_restores_the_terminal(number: signal.Signals, status: int) -> None:
    """A signal to us is the command's; its end is published, and the terminal is as before."""
    async with _watched("sh", "-c", "ulimit -c 0; echo ready; exec sleep 60") as (screen, messages):
        await screen.shows("ready")
        assert screen.is_raw
        screen.process.send_signal(number)
        assert await screen.process.wait() == status
        assert screen.is_as_before
        received = await read_all(messages)
    assert received[-1].type == "end"
    assert received[-1].data["reason"] == f"killed by {number.name}"


async def test_pty_reaches_what_runs_in_front() -> None:
    """When the command has put a job of its own in front, as a shell does, SIGINT is the job's."""
    script = (
        "import os, signal, subprocess\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "job = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "os.tcsetpgrp(0, job.pid)\n"
        "print('in front', flush=True)\n"
        "print('job', job.wait(), flush=True)\n"
        "raise SystemExit(4)\n"
    )
    async with _watched(sys.executable, "-c", script) as (screen, _):
        await screen.shows("in front")
        screen.process.send_signal(signal.SIGINT)
        assert await screen.process.wait() == 4
        await screen.shows("job -2")


async def test_terminal_is_restored_after_an_exception() -> None:
    """However it ends: an exception, here."""
    program = (
        "from triows.cli.terminal import raw_keyboard\n"
        "with raw_keyboard(wanted=True):\n"
        "    print('raw', flush=True)\n"
        "    input()\n"
        "    raise SystemExit(3)\n"
    )
    async with window_of([sys.executable, "-c", program]) as screen:
        await screen.shows("raw")
        assert screen.is_raw
        await screen.type("\n")
        assert await screen.process.wait() == 3
        assert screen.is_as_before


async def test_pty_whose_window_is_closed() -> None:
    """The terminal gone, the command is told to hang up, and its end is published."""
    async with _watched("sh", "-c", "echo ready; exec sleep 60") as (screen, messages):
        await screen.shows("ready")
        await screen.close()
        received = await read_all(messages)
        assert await screen.process.wait() == 129
    assert received[-1].data["reason"] == "killed by SIGHUP"
