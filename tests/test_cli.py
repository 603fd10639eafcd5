"""The command line as processes: servers and viewers, started, killed and started again."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import trio

import triows
from tests.support import SECRET, Peer, request_head, token
from tests.support_client import CHANNEL, cli, offsets, read
from tests.support_ports import free_port


@asynccontextmanager
async def _server() -> AsyncIterator[triows.Server]:
    with trio.fail_after(60):
        async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
            yield server


async def test_serve_without_a_key_is_refused() -> None:
    """No key, no server: status 2 and one line that says what to do."""
    async with cli("serve") as command:
        assert await command.ended() == 2
        assert command.err.count("\n") == 1
        assert "auth.secret_file" in command.err
        assert command.out == ""


async def test_serve_drains_on_sigterm() -> None:
    """SIGTERM ends with 0, after every viewer got what was published before."""
    async with cli("serve", "--dev", "--server.port", "0") as command:
        url = (await command.says(r"listens on (ws://\S+)"))[1]
        speak = (await command.says(r"publish session:demo hello .*--token (\S+)", "out"))[1]
        async with (
            triows.open_client(url, token=speak) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            await client.publish_many(CHANNEL, [triows.log("x" * 10_000) for _ in range(80)])
            command.process.send_signal(signal.SIGTERM)
            assert offsets(await read(messages, 80)) == list(range(1, 81))
            assert await command.ended() == 0
        assert "Traceback" not in command.err


async def test_dev_prints_what_the_examples_want() -> None:
    """The token to publish with may do all that those of docs/http.md ask of TOKEN."""
    async with cli("serve", "--dev", "--server.port", "0") as command:
        speak = (await command.says(r"publish session:demo hello .*--token (\S+)", "out"))[1]
    grants = jwt.decode(speak, options={"verify_signature": False})["triows"]
    assert set(grants) == {"subscribe", "publish", "command", "presence"}


async def test_serve_aborts_on_a_second_signal() -> None:
    """A viewer that reads nothing holds the drain up; the second signal does not wait for it."""
    async with cli("serve", "--dev", "--server.port", "0") as command:
        url = (await command.says(r"listens on (ws://\S+)"))[1]
        speak = (await command.says(r"publish session:demo hello .*--token (\S+)", "out"))[1]
        stalled = Peer(await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2][:-3])))
        await stalled.send(request_head(speak))
        assert (await stalled.response())[0] == 101
        await stalled.hear()
        await stalled.ask("subscribe", id="1", channel=CHANNEL)
        async with triows.open_client(url, token=speak) as client:
            await client.publish_many(CHANNEL, [triows.log("x" * 900_000) for _ in range(9)])
        command.process.send_signal(signal.SIGINT)
        await command.says("draining")
        command.process.send_signal(signal.SIGTERM)
        assert await command.ended() == 1
        await stalled.stream.aclose()
        assert "aborted" in command.err
        assert "Traceback" not in command.err


async def test_publish_then_tail() -> None:
    """Lines go in at one end and come out at the other; `end` ends the viewer with 0."""
    async with _server() as server:
        access = {"TRIOWS_URL": server.url, "TRIOWS_TOKEN": token()}
        async with cli("publish", CHANNEL, **access) as command:
            await command.tell("one\ntwo  \nlast")
            assert await command.ended() == 0
            assert "published 3" in command.err
        async with cli("tail", CHANNEL, **access) as command:
            await command.says("last\n", "out")
            await server.publish(CHANNEL, triows.end(exit_code=3, reason="done"))
            assert await command.ended() == 0
            assert command.out == "one\ntwo  \nlast\n-- ended with exit code 3: done\n"


async def test_publish_refused_says_why() -> None:
    """A refusal is one line on standard error, and status 1."""
    async with _server() as server:
        bearer = token(subscribe=["*"])
        arguments = ("publish", CHANNEL, "hello", "--url", server.url, "--token", bearer)
        async with cli(*arguments) as command:
            assert await command.ended() == 1
            assert command.err.startswith("triows: ")
            assert "publish" in command.err
            assert command.err.count("\n") == 1


async def test_two_viewers_one_killed_and_resumed() -> None:
    """Killed in the middle and resumed after its last line: together every line, once."""
    async with _server() as server:
        access = {"TRIOWS_URL": server.url, "TRIOWS_TOKEN": token()}
        position = await server.publish(CHANNEL, triows.log(1))
        async with cli("tail", CHANNEL, "--from-start", "--json", **access) as whole:
            async with cli("tail", CHANNEL, "--from-start", "--json", **access) as killed:
                for number in range(2, 301):
                    await server.publish(CHANNEL, triows.log(number))
                await killed.says(r"\n.*\n.*\n", "out")
                killed.process.kill()
                await killed.ended()
            *lines, _ = killed.out.split("\n")
            since = f"{position.epoch}:{json.loads(lines[-1])['offset']}"
            await server.publish(CHANNEL, triows.end())
            async with cli("tail", CHANNEL, "--since", since, "--json", **access) as resumed:
                assert await resumed.ended() == 0
            lines += resumed.out.splitlines()
            assert await whole.ended() == 0
        assert [json.loads(line)["offset"] for line in lines] == list(range(1, 302))
        assert lines == whole.out.splitlines()


async def test_viewer_survives_a_killed_server(tmp_path: Path) -> None:
    """Its server killed and started again, a viewer goes on, and shows that the log is new."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    port = free_port()
    url = f"ws://127.0.0.1:{port}/ws"
    serve = ("serve", "--server.port", port, "--auth.secret-file", secret)
    async with cli(*serve) as first:
        await first.says("listens on")
        async with cli("tail", CHANNEL, "--url", url, "--token", token()) as tail:
            async with triows.open_client(url, token=token()) as client:
                await client.publish(CHANNEL, triows.log("before"))
            await tail.says("before\n", "out")
            first.process.kill()
            await first.ended()
            async with cli(*serve) as second:
                await second.says("listens on")
                async with triows.open_client(url, token=token()) as client:
                    await client.publish(CHANNEL, triows.log("after"))
                    await client.publish(CHANNEL, triows.end())
                assert await tail.ended() == 0
    assert tail.out == "before\n-- the log began anew\nafter\n-- ended\n"
    assert "no connection" in tail.err
    assert "connected again" in tail.err
