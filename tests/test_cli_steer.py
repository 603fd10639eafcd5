"""`triows run --allow-commands`: what commands do, who may send them, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import triows
from tests.support import memory_server, token
from tests.support_client import Network
from triows.cli import steer
from triows.cli.run import publish_by, run_command
from triows.cli.steer import MAX_INPUT, Steering, steered

CHANNEL = "session:7"
React = Callable[["_Session", triows.Message], Any]
both = pytest.mark.parametrize("pty", [False, True], ids=["pipes", "terminal"])


class _Session:
    """A command that runs here, published to nobody but a function that may steer it."""

    def __init__(self, react: React) -> None:
        self.messages: list[triows.Message] = []
        self.steering = Steering()
        self._react = react

    async def publish(self, messages: list[triows.Message]) -> None:
        """Keep messages, and let the test react to each."""
        await trio.lowlevel.checkpoint()
        for message in messages:
            self.messages.append(message)
            await self._react(self, message)

    async def run(self, script: str, *, pty: bool) -> int:
        """Run a shell script."""
        with trio.fail_after(60):
            return await run_command(
                ["sh", "-c", script], self.publish, pty=pty, steering=self.steering
            )

    async def ask(self, data: object) -> dict[str, Any]:
        """Send a command."""
        return await self.steering.obey(triows.command(data, id="c1"), "ann")

    @property
    def lines(self) -> list[str]:
        """Finished lines of output."""
        logs = [m.data for m in self.messages if m.type == "log"]
        return [data["text"] for data in logs if not data.get("partial")]

    @property
    def told(self) -> list[dict[str, Any]]:
        """What was told of commands."""
        return [m.data for m in self.messages if m.type == "event"]


def _when_ready(*commands: object) -> React:
    """React to a line that says `ready` with commands."""

    async def react(session: _Session, message: triows.Message) -> None:
        if message.type == "log" and message.data["text"] == "ready":
            for data in commands:
                await session.ask(data)

    return react


async def _nothing(session: _Session, message: triows.Message) -> None:
    await trio.lowlevel.checkpoint()


@both
async def test_interrupt(pty: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGINT to what runs in front; and it is told who asked for it."""
    session = _Session(_when_ready({"action": "interrupt"}))
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    assert await session.run(script, pty=pty) == 5
    assert session.messages[0].data["commands"] == ["interrupt", "input", "terminate"]
    assert session.lines == ["ready", "caught"]
    assert session.told == [
        {
            "event": "command",
            "action": "interrupt",
            "outcome": "obeyed",
            "user": "ann",
            "id": "c1",
        }
    ]


@both
async def test_interrupt_reaches_the_whole_group(
    pty: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the command has started gets it too."""
    session = _Session(_when_ready({"action": "interrupt"}))
    script = "trap 'echo parent' INT; (trap 'echo child; exit' INT; echo ready; sleep 60 & wait)"
    assert await session.run(script, pty=pty) in (0, 130)
    assert set(session.lines) == {"ready", "parent", "child"}


@both
async def test_terminate(pty: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM, and the end says so."""
    session = _Session(_when_ready({"action": "terminate"}))
    assert await session.run("echo ready; exec sleep 60", pty=pty) == 143
    assert session.messages[-1].data == {"exit_code": 143, "reason": "killed by SIGTERM"}
    assert [told["action"] for told in session.told] == ["terminate"]


@both
async def test_terminate_kills_what_does_not_listen(
    pty: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What ignores SIGTERM is killed after the grace period, however often it was asked."""
    monkeypatch.setattr(steer, "TERMINATE_GRACE", 1.0)
    session = _Session(_when_ready({"action": "terminate"}, {"action": "terminate"}))
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    assert await session.run(script, pty=pty) == 137
    assert [told["outcome"] for told in session.told] == ["obeyed", "obeyed", "killed"]
    assert session.told[-1]["reason"] == "still there 1 s after SIGTERM"


@both
async def test_input(pty: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """Text is what the command reads; it is not repeated in what is told."""
    session = _Session(_when_ready({"action": "input", "text": "Zoë\n"}))
    assert await session.run("echo ready; read name; echo hello $name", pty=pty) == 0
    assert session.lines[-1] == "hello Zoë"
    assert session.told[0]["bytes"] == 5
    assert "text" not in session.told[0]


async def test_input_of_control_keys(capfd: pytest.CaptureFixture[str]) -> None:
    """In a terminal, keys such as Ctrl-D can be sent as what they are."""
    session = _Session(_when_ready({"action": "input", "text": "\x04"}))
    assert await session.run("echo ready; cat; echo over", pty=True) == 0
    assert session.lines[-1].endswith("over")


@both
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "`data` is to be an object"),
        ("interrupt", "`data` is to be an object"),
        ([["deep"]], "`data` is to be an object"),
        ({}, "unknown action 'None'"),
        ({"action": "reboot\x1b[2J" + "x" * 999}, "unknown action"),
        ({"action": ["interrupt"]}, "unknown action"),
        ({"action": "input"}, "`input` needs `text`"),
        ({"action": "input", "text": 5}, "`input` needs `text`"),
        ({"action": "input", "text": "é" * MAX_INPUT}, f"the limit is {MAX_INPUT}"),
    ],
)
async def test_refused(
    data: object, reason: str, pty: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """What makes no sense does nothing, and it is told why, in bounded words."""
    session = _Session(_when_ready(data, {"action": "input", "text": "go on\n"}))
    assert await session.run("echo ready; read line; echo got $line", pty=pty) == 0
    assert session.lines[-1] == "got go on"
    refused = session.told[0]
    assert refused["outcome"] == "refused"
    assert reason in refused["reason"]
    assert len(refused["reason"]) < 200


@both
async def test_input_that_is_not_read(pty: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """A command that does not read holds nobody up, and memory is bounded."""
    full = [{"action": "input", "text": "x" * (MAX_INPUT - 1) + "\n"}] * 60
    session = _Session(_when_ready(*full, {"action": "terminate"}))
    assert await session.run("echo ready; exec sleep 60", pty=pty) == 143
    refused = [told for told in session.told if told["outcome"] == "refused"]
    assert len(refused) >= 50
    assert "does not read" in refused[-1]["reason"]


async def test_input_that_nobody_will_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once the command has closed its input, that is said."""

    async def react(session: _Session, message: triows.Message) -> None:
        if message.type == "log" and message.data["text"] == "ready":
            asked = {"action": "input", "text": "a"}
            while (await session.ask(asked))["outcome"] == "obeyed":
                pass
            await session.ask({"action": "terminate"})

    session = _Session(react)
    assert await session.run("exec 0<&-; echo ready; exec sleep 60", pty=False) == 143
    assert "reads no input any more" in session.told[-2]["reason"]


async def test_nothing_runs() -> None:
    """Before its start and after its end there is nothing to steer."""
    session = _Session(_nothing)
    assert (await session.ask({"action": "interrupt"}))["reason"] == "the command is not running"
    assert await session.run("exit 0", pty=False) == 0
    assert (await session.ask({"action": "interrupt"}))["outcome"] == "refused"


async def test_what_cannot_be_told_is_said_here(capfd: pytest.CaptureFixture[str]) -> None:
    """A server that takes no more does not keep a command from being obeyed."""

    async def react(session: _Session, message: triows.Message) -> None:
        if message.type == "event":
            raise triows.ConnectionClosed(4503, "revoked")
        await _when_ready({"action": "interrupt"})(session, message)

    assert await _Session(react).run("echo ready; exec sleep 60", pty=False) == 130
    assert "could not be told" in capfd.readouterr().err


@both
async def test_not_permitted(
    pty: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command that became another user's cannot be signalled; that is said, and all goes on."""

    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    session = _Session(
        _when_ready(
            {"action": "interrupt"}, {"action": "terminate"}, {"action": "input", "text": "\n"}
        )
    )
    with monkeypatch.context() as patch:
        patch.setattr("triows.cli.child.os.killpg", refuse)
        assert await session.run("echo ready; read line", pty=pty) == 0
    assert ["another user" in t.get("reason", "") for t in session.told] == [True, True, False]


async def test_each_command_is_obeyed_once(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    """Old ones are not obeyed, and those over a lost connection once, when it is back."""
    with trio.fail_after(60):
        async with (
            memory_server() as server,
            triows.open_client(
                "ws://server.test/ws",
                token=token(),
                open_stream=(network := Network(nursery, server)).open,
            ) as client,
        ):
            await server.publish(CHANNEL, triows.command({"action": "terminate"}))

            async def say(text: str) -> None:
                data = {"action": "input", "text": f"{text}\n"}
                await server.publish(CHANNEL, triows.command(data))

            async def steer_it() -> None:
                async with server.listen(CHANNEL) as messages:
                    async for message in messages:
                        text = message.data.get("text") if message.type == "log" else None
                        if text == "ready":
                            await say("one")
                        elif text == "got one":
                            network.cut()
                            await say("two")
                        elif text == "got two":
                            await say("three")

            nursery.start_soon(steer_it)
            steering = Steering()
            script = "echo ready; for n in 1 2 3; do read line; echo got $line; done"
            async with steered(client, CHANNEL, steering):
                publish = publish_by(client, CHANNEL)
                assert await run_command(["sh", "-c", script], publish, steering=steering) == 0
            page = await client.history(CHANNEL, limit=100)
        nursery.cancel_scope.cancel()
    told = [m["data"] for m in page["messages"] if m["type"] == "event"]
    texts = [m["data"]["text"] for m in page["messages"] if m["type"] == "log"]
    assert texts == ["ready", "got one", "got two", "got three"]
    assert [t["outcome"] for t in told] == ["obeyed"] * 3
    commands = [m["offset"] for m in page["messages"] if m["type"] == "command"]
    assert [t["offset"] for t in told] == commands[1:]
