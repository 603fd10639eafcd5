"""What is told at a terminal: on the way out, when a server goes, and of what others have said."""

from __future__ import annotations

import io
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import SECRET, memory_server, token
from tests.support_client import CHANNEL, cli, connected
from triows.cli.app import run_app
from triows.cli.connect import StateTeller
from triows.cli.output import note, program, readable
from triows.cli.publish import publish
from triows.cli.tail import PATIENCE, render, tail

_HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b2J\u202e\n"


async def test_tail_interrupted_at_the_terminal_says_where_to_go_on() -> None:
    """Ctrl-C ends with 130 and the position of the last line that was shown."""
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
            position = await server.publish(CHANNEL, triows.log("a"))
            access = ("--url", server.url, "--token", token())
            async with cli("tail", CHANNEL, *access) as command:
                await command.says("a\n", "out")
                command.process.send_signal(signal.SIGINT)
                assert await command.ended() == 130
    assert command.err == f"go on with --since {position.epoch}:1\n"


async def test_tail_that_was_refused_does_not_try_again() -> None:
    """What is final is said once, and not that it tries again."""
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
            async with cli("tail", CHANNEL, "--url", server.url, "--token", "t") as command:
                assert await command.ended() == 1
    assert command.err.count("\n") == 1
    assert "refused with 401" in command.err
    assert "trying again" not in command.err


def test_state_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Lost and found are told once each; the end is for others to tell."""
    tell = StateTeller()
    lost = triows.ConnectionClosed(1006, "gone")
    for state, reason in [
        *[("connecting", None), ("connected", None)],
        *[("disconnected", lost), ("connecting", None), ("disconnected", lost)],
        *[("connecting", None), ("connected", None), ("failed", lost)],
    ]:
        tell(state, reason)
    assert capsys.readouterr().err.splitlines() == [
        "no connection: closed with 1006 (gone); trying again",
        "connected again",
    ]


def test_state_is_told_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    """A server's reason to close does not steer the terminal."""
    StateTeller()("disconnected", triows.ConnectionClosed(1006, _HOSTILE))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error[:-1].isprintable()


def test_note_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is made of, a note is one line of printable characters."""
    note(f"they said {_HOSTILE}", "red")
    error = capsys.readouterr().err
    assert error == "they said \\x1b]0;owned\\x07\\x1b[2J\\x9b2J\\u202e\\x0a\n"


async def test_what_a_server_says_is_made_harmless() -> None:
    """A refusal of a hostile server is shown, and does not steer the terminal."""
    body = json.dumps({"data": {"code": "not_found", "message": _HOSTILE}}).encode()
    head = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(head + body)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
            async with cli("publish", CHANNEL, "a", "--url", url, "--token", "t") as command:
                assert await command.ended() == 1
            nursery.cancel_scope.cancel()
    assert command.err[:-1].isprintable()
    assert "owned" in command.err


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b'"text"',
        b"[1]",
        b"{}",
        b'{"reason": "lag", "count": "\\u001b[2J", "from": 1, "to": 2}',
        b'{"reason": "epoch", "count": "\\u001b[2J"}',
        b'{"reason": "\\u001b[2J", "count": 1, "from": "\\n", "to": []}',
    ],
)
def test_render_takes_any_gap(raw: bytes) -> None:
    """A gap of whatever shape is one harmless line."""
    shown = render(triows.Message("gap", raw), colour=False)
    assert shown.startswith("-- ")
    assert shown.isprintable()


@pytest.mark.parametrize("raw", [b'{"exit_code": "\\u001b[2J"}', b'{"reason": ["\\u009b2J"]}'])
def test_render_takes_any_end(raw: bytes) -> None:
    """An exit code that is none is one harmless line."""
    assert render(triows.Message("end", raw), colour=False).isprintable()


async def test_tail_json_is_one_harmless_line_for_each_message(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON of several lines is one line, and control characters in it are escaped."""
    data = f'{{\n "a": [1,\r\n\t2], "b": {json.dumps(_HOSTILE, ensure_ascii=False)}\n}}'
    async with memory_server() as server, connected(nursery, server) as client:
        position = await server.publish(CHANNEL, triows.Message("log", data.encode()))
        await server.publish(CHANNEL, triows.Message("log", b'"\x7f\xc2\x9b2J\xe2\x80\xa8"'))
        await server.publish(CHANNEL, triows.end())
        with trio.fail_after(60):
            await tail(client, CHANNEL, lines=None, since=None, as_json=True)
    out = capsys.readouterr().out
    lines = out.split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    parsed = [json.loads(line) for line in lines[:3]]
    assert parsed[0]["data"] == {"a": [1, 2], "b": _HOSTILE}
    assert parsed[1]["data"] == "\x7f\x9b2J\u2028"
    assert {m["epoch"] for m in parsed} == {position.epoch}


async def test_tail_json_has_the_epoch_of_a_new_log(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a gap of reason `epoch` the lines carry the new one."""
    async with memory_server() as server, connected(nursery, server) as client:
        position = await server.publish(CHANNEL, triows.log(1))
        await server.publish(CHANNEL, triows.end())
        old = triows.Position("old", 7)
        with trio.fail_after(60):
            await tail(client, CHANNEL, lines=None, since=old, as_json=True)
    parsed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [m["type"] for m in parsed] == ["gap", "log", "end"]
    assert {m["epoch"] for m in parsed} == {position.epoch}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("before", [0, 1])
async def test_tail_says_that_nothing_was_published(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
    before: int,
    as_json: bool,
) -> None:
    """Of a channel without messages it is said once that it waits; not in JSON, nor of another."""
    async with memory_server() as server, connected(nursery, server) as client:
        for _ in range(before):
            await server.publish(CHANNEL, triows.log("old"))

        async def watch() -> None:
            await tail(client, CHANNEL, lines=0, since=None, as_json=as_json)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            await trio.sleep(PATIENCE - 0.1)
            assert capsys.readouterr().err == ""
            await trio.sleep(60)
            expected = f"nothing has been published to {CHANNEL} yet; waiting\n"
            assert capsys.readouterr().err == ("" if before or as_json else expected)
            await server.publish(CHANNEL, triows.log("new"))
            await server.publish(CHANNEL, triows.end())
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "new" in captured.out
    assert "old" not in captured.out


async def test_tail_waits_for_the_server_first(
    nursery: trio.Nursery, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the server has answered nobody knows whether something was published."""

    async def late() -> str:
        await trio.sleep(PATIENCE + 1)
        return token()

    async with (
        memory_server() as server,
        connected(nursery, server, token=late) as client,
        trio.open_nursery() as watching,
    ):
        watching.start_soon(partial(tail, client, CHANNEL, lines=0, since=None, as_json=False))
        await trio.sleep(PATIENCE + 0.5)
        assert capsys.readouterr().err == ""
        await trio.sleep(PATIENCE)
        assert "nothing has been published" in capsys.readouterr().err
        watching.cancel_scope.cancel()


@given(st.binary())
def test_readable_takes_any_argument(raw: bytes) -> None:
    """What came as an argument can be published, and text stays as it was."""
    text = raw.decode(errors="surrogateescape")
    shown = readable(text)
    shown.encode()
    assert shown == raw.decode(errors="replace")


async def test_publish_takes_arguments_that_are_no_text(nursery: trio.Nursery) -> None:
    """Words that are not UTF-8 are published with a mark for what is none."""
    async with memory_server() as server, connected(nursery, server) as client:
        assert await publish(client, CHANNEL, ("a\udcff", "é"), type_="log", as_json=False) == 0
        page = await client.history(CHANNEL)
    assert [m["data"] for m in page["messages"]] == ["a\ufffd é"]


async def test_publish_takes_input_that_is_no_text(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are not UTF-8 are published with a mark, whatever the locale says."""
    stdin = io.TextIOWrapper(io.BytesIO(b"a\xff\n\xc3\xa9\n"), encoding="ascii")
    monkeypatch.setattr("sys.stdin", stdin)
    async with memory_server() as server, connected(nursery, server) as client:
        assert await publish(client, CHANNEL, (), type_="log", as_json=False) == 0
        page = await client.history(CHANNEL)
    assert [m["data"] for m in page["messages"]] == ["a\ufffd", "é"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail", "session:\udcff", "--token", "t"],
        ["tail", "session:1", "--token", "t\udcff"],
        ["tail", "session:1", "--url", "ws://a/\udcff"],
        ["publish", "session:1", "\udcff{", "--json", "--token", "t"],
        ["publish", "session:1", "\udcff", "--type", "\udcff", "--token", "t"],
    ],
)
def test_arguments_that_are_no_text_are_errors_of_use(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Where bytes cannot be meant, one line says so."""
    assert run_app(arguments) in (1, 2)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("triows: ")


@pytest.mark.parametrize("type", ["ping", "auth", "gap", "nonsense", ""])
def test_publish_of_another_type_is_an_error(capsys: pytest.CaptureFixture[str], type: str) -> None:
    """What is no type of a published message is named, without a wait for a server."""
    at = ["--url", "ws://127.0.0.1:1/ws", "--token", "t"]
    assert run_app(["publish", CHANNEL, "hello", "--type", type, *at]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert repr(type) in error


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a `triows`, alone on the search path."""
    script = tmp_path / "bin" / "triows"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return script.parent


def _called(monkeypatch: pytest.MonkeyPatch, path: Any) -> str:
    monkeypatch.setattr(sys, "argv", [str(path), "run"])
    return program()


def test_program_that_is_on_the_path_is_its_name(
    monkeypatch: pytest.MonkeyPatch, commands: Path
) -> None:
    """Found by its name, it can be called by its name."""
    assert _called(monkeypatch, commands / "triows") == "triows"


def test_program_elsewhere_is_its_path(
    monkeypatch: pytest.MonkeyPatch, commands: Path, tmp_path: Path
) -> None:
    """One that another of the same name hides, or none, is called as it was, quoted."""
    own = tmp_path / "my own" / "triows"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    assert _called(monkeypatch, own) == f"'{own}'"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _called(monkeypatch, commands / "triows") == str(commands / "triows")


async def test_printed_commands_begin_with_the_program() -> None:
    """What `serve --dev` and `run` print can be pasted where they were called."""
    async with cli("serve", "--dev", "--server.port", "0") as command:
        await command.says("#token=", "out")
        command.process.send_signal(signal.SIGTERM)
        assert await command.ended() == 0
    printed = [line for line in command.out.splitlines() if "session:demo" in line]
    assert [line.split()[:2] for line in printed] == [["-c", "tail"], ["-c", "publish"]]
    assert "\n-c run " in command.out
