"""`triows run --pty`: a terminal for the command, and ours as it was when that is over."""

from __future__ import annotations

import os
import signal
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import trio

import triows
from triows.cli import terminal
from triows.cli.run import run_command

pytestmark = pytest.mark.slow


class _Published:
    """Keeps what `run_command` publishes."""

    def __init__(self) -> None:
        self.messages: list[triows.Message] = []

    async def publish(self, messages: list[triows.Message]) -> None:
        await trio.lowlevel.checkpoint()
        self.messages += messages

    @property
    def logs(self) -> list[dict[str, Any]]:
        """What was published of the terminal."""
        return [m.data for m in self.messages if m.type == "log"]

    @property
    def lines(self) -> list[str]:
        """Its finished lines."""
        return [data["text"] for data in self.logs if not data.get("partial")]


async def _run(*command: str) -> tuple[int, _Published]:
    published = _Published()
    with trio.fail_after(60):
        status = await run_command(list(command), published.publish, pty=True)
    return status, published


async def _shell(script: str) -> tuple[int, _Published]:
    return await _run("sh", "-c", script)


async def _python(script: str) -> tuple[int, _Published]:
    return await _run(sys.executable, "-c", script)


@pytest.fixture(autouse=True)
def size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no size from wherever the tests run."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)


async def test_pty_is_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """All three streams are a terminal that the command controls, of the size there is."""
    script = "for n in 0 1 2; do test -t $n && echo yes $n; done; stty size < /dev/tty; tty -s"
    status, published = await _shell(script)
    assert status == 0
    assert published.lines == ["yes 0", "yes 1", "yes 2", "24 80"]
    assert published.messages[0].data["terminal"] == {"columns": 80, "rows": 24}
    assert {data["stream"] for data in published.logs} == {"terminal"}
    assert capfd.readouterr().out.endswith("24 80\r\n")


async def test_pty_takes_its_size_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, $COLUMNS and $LINES say; nonsense in them does no harm."""
    monkeypatch.setenv("COLUMNS", "99999999")
    monkeypatch.setenv("LINES", "50")
    _, published = await _shell("stty size")
    assert published.lines == ["50 65535"]
    monkeypatch.setenv("COLUMNS", "wide")
    _, published = await _shell("stty size")
    assert published.lines == ["50 80"]


async def test_pty_keeps_escape_sequences(capfd: pytest.CaptureFixture[str]) -> None:
    """Colours and all else are published as written: what is safe is for a viewer to decide."""
    _, published = await _shell(r"printf '\033[1;31mred\033[0m\n\033]0;title\007x\n'")
    assert published.lines == ["\x1b[1;31mred\x1b[0m", "\x1b]0;title\x07x"]


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("exit 0", 0, None),
        ("exit 7", 7, None),
        ("kill -TERM $$", 143, "killed by SIGTERM"),
        ("kill -INT $$", 130, "killed by SIGINT"),
        ("kill -HUP $$", 129, "killed by SIGHUP"),
        ("kill -KILL $$", 137, "killed by SIGKILL"),
    ],
)
async def test_pty_passes_the_status_on(script: str, status: int, reason: str | None) -> None:
    """Its exit code, or 128 and the signal, is returned and published with the end."""
    ours, published = await _shell(script)
    expected = {"exit_code": status} | ({"reason": reason} if reason else {})
    assert ours == status
    assert published.messages[-1].data == expected


@pytest.mark.parametrize("command", ["/nowhere/at/all", "/"])
async def test_pty_without_a_command_to_run(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be started ends with 127, and leaves no terminal behind."""
    before = os.listdir("/proc/self/fd")
    status, published = await _run(command)
    assert status == 127
    assert published.messages[-1].data["exit_code"] == 127
    assert f"cannot run {command}" in capsys.readouterr().err
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_pty_leaves_no_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    """A command that ended leaves nothing open in us."""
    before = os.listdir("/proc/self/fd")
    await _shell("echo a")
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_pty_publishes_an_unfinished_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A prompt is told although its line has not ended, as partial; then the whole line."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    published = _Published()

    async def publish(messages: list[triows.Message]) -> None:
        await published.publish(messages)
        if published.logs and published.logs[-1]["text"] == "Name? ":
            await trio.Path(gate).write_text("Ann\n")

    with trio.fail_after(60):
        await run_command(["sh", "-c", f"printf 'Name? '; cat {gate}"], publish, pty=True)
    assert published.logs == [
        {"stream": "terminal", "text": "Name? ", "partial": True},
        {"stream": "terminal", "text": "Name? Ann"},
    ]


async def test_pty_tells_of_progress_ten_times_a_second(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A line that is overwritten again and again is told now and then, and its last state."""
    script = "for n in range(30_000): print(f'\\r{n} of 30000', end='', flush=True)\nprint()"
    started = trio.current_time()
    _, published = await _python(script)
    seconds = trio.current_time() - started
    assert published.lines == ["29999 of 30000"]
    assert len(published.logs) <= 10 * seconds + 2
    assert all("\r" not in data["text"] for data in published.logs)


async def test_pty_bounds_a_line_without_end(capfd: pytest.CaptureFixture[str]) -> None:
    """It comes in pieces with nothing lost; of what is unfinished only the end is told."""
    script = "import sys\nfor n in range(40): sys.stdout.write('0123456789' * 5_000)"
    _, published = await _python(script)
    assert "".join(published.lines) == "0123456789" * 200_000
    assert max(map(len, published.lines)) <= 65_536
    assert all(len(data["text"]) <= 4096 for data in published.logs if data.get("partial"))


async def test_pty_takes_any_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    """Characters that are split over reads arrive whole; what is no text is replaced."""
    text = "é€😀" * 20_000
    script = (
        "import os, tty\n"
        "tty.setraw(1)\n"
        f"data = {text[:3]!r}.encode() * 20_000 + b'\\n\\xff\\xfe\\x00\\x80\\n'\n"
        "for at in range(0, len(data), 997): os.write(1, data[at:at + 997])\n"
    )
    _, published = await _python(script)
    *pieces, garbage = published.lines
    assert "".join(pieces) == text
    assert garbage == "\ufffd\ufffd\x00\ufffd"


async def test_pty_publishes_the_last_line_without_newline(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the command did not finish is finished by its end."""
    _, published = await _shell("printf 'a\\nb'")
    assert published.lines == ["a", "b"]
    assert published.messages[-1].type == "end"


@pytest.mark.parametrize("left", ["sleep 300", "yes"])
async def test_pty_does_not_wait_for_what_was_left_running(
    left: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither something silent nor something chatty that keeps the terminal holds the end up."""
    pid = tmp_path / "pid"
    script = f"echo before; trap '' HUP; {left} & echo $! > {pid}; exit 3"
    try:
        status, published = await _shell(script)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert status == 3
    assert published.lines[0] == "before"
    assert published.messages[-1].data == {"exit_code": 3}


async def test_pty_that_was_let_go_and_opened_again(capfd: pytest.CaptureFixture[str]) -> None:
    """A command may close its terminal and open it again; nothing of it is lost."""
    script = "echo a; exec 0<&- 1>&- 2>&-; sleep 0.1; echo b > /dev/tty"
    _, published = await _shell(script)
    assert published.lines == ["a", "b"]


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said, it fits into what the kernel keeps."""
    ours, theirs = os.openpty()
    try:
        terminal.set_size(theirs, terminal.Size(terminal.MAX_SIZE, terminal.MAX_SIZE))
        assert termios.tcgetwinsize(ours) == (0xFFFF, 0xFFFF)
    finally:
        os.close(ours)
        os.close(theirs)
