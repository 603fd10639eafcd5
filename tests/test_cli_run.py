"""`triows run`: what a command prints is published line by line, and its exit status is ours."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import trio

import triows
from tests.support import SECRET, token
from tests.support_client import cli, read_all
from triows.cli import child, lines, run
from triows.cli.lines import MAX_LINE
from triows.cli.run import run_command


class _Published:
    """Keeps what `run_command` publishes."""

    def __init__(self) -> None:
        self.messages: list[triows.Message] = []

    async def publish(self, messages: list[triows.Message]) -> None:
        await trio.lowlevel.checkpoint()
        self.messages += messages

    def lines(self, stream: str) -> list[str]:
        """Return what was published of one of the outputs."""
        logs = [m.data for m in self.messages if m.type == "log"]
        return [data["text"] for data in logs if data["stream"] == stream]


async def _run(*command: str) -> tuple[int, _Published]:
    published = _Published()
    with trio.fail_after(60):
        status = await run_command(list(command), published.publish)
    return status, published


async def _shell(script: str) -> tuple[int, _Published]:
    return await _run("sh", "-c", script)


async def test_run_publishes_each_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The state, both outputs line by line, and the end; and all of it on the screen too."""
    status, published = await _shell("echo one; echo; echo ' two'; echo three >&2")
    first, *_, last = published.messages
    assert status == 0
    assert (first.type, first.data["state"]) == ("status", "started")
    assert "echo one" in first.data["command"]
    assert published.lines("stdout") == ["one", "", " two"]
    assert published.lines("stderr") == ["three"]
    assert (last.type, last.data) == ("end", {"exit_code": 0})


async def test_run_shows_what_it_publishes(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Byte for byte what the command wrote, each output where it belongs."""
    await _shell(r"printf 'a\377\033[1mb'; printf 'c' >&2")
    captured = capsysbinary.readouterr()
    assert captured.out == b"a\xff\x1b[1mb"
    assert captured.err == b"c"


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("exit 0", 0, None),
        ("exit 7", 7, None),
        ("kill -TERM $$", 143, "killed by SIGTERM"),
        ("kill -KILL $$", 137, "killed by SIGKILL"),
        ("kill -INT $$", 130, "killed by SIGINT"),
        ("kill -40 $$", 168, "killed by signal 40"),
    ],
)
async def test_run_passes_the_status_on(script: str, status: int, reason: str | None) -> None:
    """Its exit code, or 128 and the signal, is returned and published with the end."""
    ours, published = await _shell(script)
    expected = {"exit_code": status} | ({"reason": reason} if reason else {})
    assert ours == status
    assert published.messages[-1].data == expected


@pytest.mark.parametrize("command", ["/nowhere/at/all", "/"])
async def test_run_without_a_command_to_run(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be started ends with 127, as in a shell, and is said and published."""
    status, published = await _run(command, "an argument")
    assert status == 127
    assert [m.type for m in published.messages] == ["status", "end"]
    assert published.messages[-1].data["exit_code"] == 127
    assert f"cannot run {command}" in capsys.readouterr().err


async def test_run_cuts_long_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """A line without end arrives in pieces of bounded size, with nothing lost."""
    script = "import sys; sys.stdout.write('0123456789' * 100_000 + '\\nshort\\n')"
    _, published = await _run(sys.executable, "-c", script)
    *pieces, last = published.lines("stdout")
    assert "".join(pieces) == "0123456789" * 100_000
    assert max(map(len, pieces)) <= 2 * MAX_LINE
    assert last == "short"


async def test_run_publishes_a_last_line_without_newline(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the command did not finish with a newline is a line as well."""
    _, published = await _shell("printf 'a\\r\\nb\\rc'; printf d >&2")
    assert published.lines("stdout") == ["a", "b\rc"]
    assert published.lines("stderr") == ["d"]


async def test_run_replaces_what_is_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes that are not UTF-8 are published as the mark for that, and the rest as it is."""
    _, published = await _shell(r"printf '\377\376 ok \303\251\n\000\n'")
    assert published.lines("stdout") == ["\ufffd\ufffd ok é", "\x00"]


async def test_run_publishes_before_the_command_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line is published when it was written, not when the command has ended."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    published = _Published()

    async def publish(messages: list[triows.Message]) -> None:
        await published.publish(messages)
        if published.lines("stdout") == ["first"]:
            await trio.Path(gate).write_text("go on\n")

    with trio.fail_after(60):
        await run_command(["sh", "-c", f"echo first; cat {gate}"], publish)
    assert published.lines("stdout") == ["first", "go on"]


async def test_run_does_not_wait_for_a_grandchild(capfd: pytest.CaptureFixture[str]) -> None:
    """Something left running that keeps the pipe open does not hold the end up."""
    status, published = await _shell("echo before; sleep 300 & echo $!; exit 3")
    *lines, pid = published.lines("stdout")
    os.kill(int(pid), signal.SIGKILL)
    assert status == 3
    assert lines == ["before"]
    assert published.messages[-1].data == {"exit_code": 3}


async def test_run_publishes_a_last_line_although_the_pipe_stays_open(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the command wrote last, without newline, is not lost to what it left running."""
    _, published = await _shell("sleep 300 & echo $!; printf partial; printf oh >&2; exit 0")
    pid, *lines = published.lines("stdout")
    os.kill(int(pid), signal.SIGKILL)
    assert lines == ["partial"]
    assert published.lines("stderr") == ["oh"]
    assert published.messages[-1].type == "end"


async def test_run_keeps_the_characters_of_a_long_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Where a long line is cut, no character is."""
    script = "import sys; sys.stdout.buffer.write(b'a' + 'é€😀'.encode() * 50_000)"
    _, published = await _run(sys.executable, "-c", script)
    pieces = published.lines("stdout")
    assert "".join(pieces) == "a" + "é€😀" * 50_000
    assert len(pieces) > 1


async def test_run_takes_arguments_that_are_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    """Arguments that are not UTF-8 reach the command as they are, and are published readably."""
    status, published = await _run("sh", "-c", "printf '%s' \"$1\"; exit 3", "sh", "a\udcff")
    assert status == 3
    assert published.messages[0].data["command"].endswith("'a\ufffd'")
    assert published.lines("stdout") == ["a\ufffd"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_run_can_be_stopped_while_the_server_is_gone(number: signal.Signals) -> None:
    """When the command has ended, nothing but a server that is gone is waited for: one signal."""
    async with cli("serve", "--dev", "--server.port", "0") as server:
        url = (await server.says(r"listens on (ws://\S+)"))[1]
        speak = (await server.says(r"publish session:demo hello .*--token (\S+)", "out"))[1]
        script = "echo a; read line; echo b"
        access = ("--url", url, "--token", speak)
        async with cli("run", *access, "--", "sh", "-c", script) as command:
            await command.says("a\n", "out")
            server.process.kill()
            await server.ended()
            await command.says("trying again")
            await command.tell("go on\n")
            await command.says("b\n", "out")
            with trio.fail_after(60):
                while not command.err.endswith("everything was published\n"):
                    command.process.send_signal(number)
                    with trio.move_on_after(0.2):
                        await command.says("before everything was published\n")
                await command.ended()
            assert "Traceback" not in command.err


async def test_run_goes_on_when_it_is_no_longer_published(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Refused in the middle, the command runs to its end unwatched; that is said once."""
    calls = 0

    async def refuse(messages: list[triows.Message]) -> None:
        nonlocal calls
        await trio.lowlevel.checkpoint()
        calls += 1
        if calls > 1:
            raise triows.ConnectionClosed(4503, "revoked")

    with trio.fail_after(60):
        status = await run_command(["sh", "-c", "echo a; echo b; exit 5"], refuse)
    captured = capfd.readouterr()
    assert status == 5
    assert captured.out == "a\nb\n"
    assert captured.err.count("no longer published") == 1


async def test_run_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When the command has ended and the server is slow, one is told how much is left."""
    said: list[str] = []
    enough = trio.Event()

    def note(text: str, style: str = "dim") -> None:
        said.append(text)
        if len(said) == 2:
            enough.set()

    async def publish(messages: list[triows.Message]) -> None:
        if messages[0].type == "log":
            await enough.wait()

    monkeypatch.setattr(run, "note", note)
    monkeypatch.setattr(run, "SAY_AFTER", 0.01)
    monkeypatch.setattr(run, "SAY_EVERY", 0.01)
    with trio.fail_after(60):
        assert await run_command(["seq", "100"], publish) == 0
    assert re.fullmatch(r"the command has ended; \d+ messages still wait to be published", said[0])
    assert int(said[1].split()[4]) >= 36  # all but what is under way


async def test_run_keeps_what_was_written_although_the_server_is_slow(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is in the pipe when the command ends is published, however long that takes."""
    monkeypatch.setattr(lines, "WAITING", 64)
    monkeypatch.setattr(child, "GRACE", 0.01)
    published = _Published()

    async def publish(messages: list[triows.Message]) -> None:
        await trio.sleep(0.002)  # slower than the grace period, taken together
        await published.publish(messages)

    with trio.fail_after(60):
        await run_command(["seq", "20000"], publish)
    assert published.lines("stdout") == [str(n) for n in range(1, 20_001)]


async def test_run_refused_from_the_start_runs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Who may not publish learns it before anything has happened."""

    async def refuse(messages: list[triows.Message]) -> None:
        await trio.lowlevel.checkpoint()
        raise triows.RequestError(triows.ErrorCode.FORBIDDEN, "no")

    with pytest.raises(triows.RequestError):
        await run_command(["sh", "-c", "echo it ran"], refuse)
    assert capfd.readouterr().out == ""


async def test_run_publishes_to_a_server_elsewhere_and_passes_sigterm_on() -> None:
    """With --url it publishes there; SIGTERM is the command's, and its own end follows."""
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
            script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
            access = ("--url", server.url, "--token", token())
            async with cli("run", "--id", "7", *access, "--", "sh", "-c", script) as command:
                await command.says("ready\n", "out")
                command.process.send_signal(signal.SIGTERM)
                assert await command.ended() == 9
            async with (
                triows.open_client(server.url, token=token()) as client,
                client.subscribe("session:7", from_start=True) as messages,
            ):
                received = await read_all(messages)
    texts = [m.data["text"] for m in received if m.type == "log"]
    assert texts == ["ready", "bye"]
    assert received[-1].data == {"exit_code": 9}


async def test_run_without_arguments_is_an_error_of_use() -> None:
    """Nothing to run is told with an example."""
    async with cli("run") as command:
        assert await command.ended() == 2
        assert "triows run -- make test" in command.err


async def test_run_can_be_watched_after_its_end() -> None:
    """With --keep it serves on, and says again where: the output has driven the link away."""
    async with cli("run", "--keep", "--id", "7", "--", "sh", "-c", "exit 4") as command:
        url, bearer = (await command.says(r" tail \S+ --url (\S+) --token (\S+)")).groups()
        link = (await command.says(r"has ended.*\n  (http\S+)"))[1]
        assert link == f"http{url[2:-3]}/#token={bearer}&channel=session:7"
        async with (
            triows.open_client(url, token=bearer) as client,
            client.subscribe("session:7", from_start=True) as messages,
        ):
            assert [m.type for m in await read_all(messages)] == ["status", "end"]
        command.process.send_signal(signal.SIGINT)
        assert await command.ended() == 130


@pytest.mark.parametrize("variable", ["TRIOWS_TOKEN", "TRIOWS_TOKEN_FILE"])
async def test_run_with_a_token_wants_to_know_the_server(variable: str) -> None:
    """Nobody who gives a token means a server of its own, which would ignore it."""
    async with cli("run", "--", "echo", "it ran", **{variable: "x"}) as command:
        assert await command.ended() == 2
    assert "--url" in command.err
    assert command.out == ""
