"""Who may steer what `triows run` runs: those with the grant, and only if it was allowed here."""

from __future__ import annotations

import shlex
import signal

import pytest
import trio

import triows
from tests.support import SECRET, token
from tests.support_client import cli, read_all

pytestmark = pytest.mark.slow

CHANNEL = "session:7"


async def test_commands_from_elsewhere_need_the_grant() -> None:
    """At a server elsewhere: with the grant, obeyed; with every other one, refused there."""
    watch = token("eve", subscribe=["*"], publish=["*"], presence=["*"])
    steer_ = token("ann", command=["*"])
    with trio.fail_after(60):
        async with (
            triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
            triows.open_client(server.url, token=watch) as stranger,
            triows.open_client(server.url, token=steer_) as ann,
            stranger.subscribe(CHANNEL, from_start=True) as messages,
            cli(
                *("run", "--pty", "--allow-commands", "--id", "7", "--url", server.url),
                *("--token", token(), "--", "sh", "-c", "echo ready; exec sleep 60"),
            ) as command,
        ):
            await command.says("ready", "out")
            with pytest.raises(triows.RequestError, match="may not command"):
                await stranger.command(CHANNEL, {"action": "terminate"})
            await ann.command(CHANNEL, {"action": "interrupt"})
            assert await command.ended() == 130
            received = await read_all(messages)
    told = [m.data for m in received if m.type == "event"]
    assert [t["outcome"] for t in told] == ["obeyed"]
    assert [m.offset for m in received if m.type == "command"] == [told[0]["offset"]]
    assert received[-1].data["reason"] == "killed by SIGINT"


async def test_nothing_is_obeyed_unless_allowed() -> None:
    """Without the option even who has the grant steers nothing."""
    with trio.fail_after(60):
        async with (
            triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
            triows.open_client(server.url, token=token()) as ann,
            cli(
                *("run", "--id", "7", "--url", server.url, "--token", token(), "--"),
                *("sh", "-c", "echo ready; read line; echo got $line"),
            ) as command,
        ):
            await command.says("ready", "out")
            await ann.command(CHANNEL, {"action": "terminate"})
            await command.tell("it\n")
            assert await command.ended() == 0
            page = await ann.history(CHANNEL, limit=100)
    kinds = [m["type"] for m in page["messages"]]
    assert sorted(kinds) == ["command", "end", "log", "log", "status"]
    assert "commands" not in page["messages"][0]["data"]


async def test_who_may_not_see_commands_is_told_before_anything_runs() -> None:
    """A token that may publish only cannot obey; that is said, and nothing is started."""
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
            access = ("--url", server.url, "--token", token(publish=["*"]))
            async with cli("run", "--allow-commands", *access, "--", "echo", "it ran") as command:
                assert await command.ended() == 1
            assert "may not subscribe" in command.err
            assert command.out == ""


async def test_embedded_server_has_a_token_to_steer() -> None:
    """Who watches cannot steer; who was given the other token can, and is answered."""
    received: list[triows.Message] = []

    async def collect(messages: triows.Subscription) -> None:
        received.extend(await read_all(messages))

    arguments = ("run", "--allow-commands", "--id", "7", "--", "sh", "-c", "echo ready; cat")
    async with cli(*arguments) as command:
        url, watch = (await command.says(r" tail \S+ --url (\S+) --token (\S+)")).groups()
        hint = (await command.says(r"steer it:\n +(.*)\n"))[1]
        await command.says("ready", "out")
        steer_ = hint.split()[-1]
        async with triows.open_client(url, token=watch) as viewer:
            with pytest.raises(triows.RequestError, match="viewer may not command"):
                await viewer.command(CHANNEL, {"action": "terminate"})
        async with triows.open_client(url, token=steer_) as operator:
            answer = await operator.command(CHANNEL, {"action": "input", "text": "hello\n"})
            assert answer["result"]["outcome"] == "obeyed"
            await command.says("hello", "out")
            with pytest.raises(triows.RequestError, match="operator may not publish"):
                await operator.publish(CHANNEL, triows.log("forged"))
            async with (
                operator.subscribe(CHANNEL, from_start=True) as messages,
                trio.open_nursery() as nursery,
            ):
                # Read to the end as it comes: then another server may have the same port.
                nursery.start_soon(collect, messages)
                words = shlex.split(hint)
                async with cli(*words[words.index("publish") :]) as asking:
                    assert await asking.ended() == 0
        assert await command.ended() == 130
    told = [m.data for m in received if m.type == "event"]
    assert [(t["action"], t["user"]) for t in told] == [
        ("input", "operator"),
        ("interrupt", "operator"),
    ]


async def test_embedded_server_steers_nothing_by_itself() -> None:
    """Without the option there is no token to steer with."""
    async with cli("run", "--id", "7", "--", "sh", "-c", "echo ready; read line") as command:
        url, watch = (await command.says(r" tail \S+ --url (\S+) --token (\S+)")).groups()
        await command.says("ready", "out")
        async with triows.open_client(url, token=watch) as viewer:
            with pytest.raises(triows.RequestError, match="viewer may not command"):
                await viewer.command(CHANNEL, {"action": "terminate"})
        await command.tell("\n")
        assert await command.ended() == 0
    assert "steer" not in command.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_reach_a_group_of_its_own(number: signal.Signals) -> None:
    """With commands allowed, the command is in another group; signals to us are still its."""
    # Not Python's own sleep: a signal between its last look at signals and the system's sleep is
    # heeded only when that is over. What leaves signals to the system misses none.
    script = "echo ready; exec sleep 60"
    async with cli("run", "--allow-commands", "--", "sh", "-c", script) as command:
        await command.says("ready", "out")
        command.process.send_signal(number)
        assert await command.ended() == 128 + number
