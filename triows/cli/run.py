"""`triows run`: a command whose output is watched while it runs."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TextIO

import trio

import triows
from triows.cli.lines import WAITING, take
from triows.cli.output import note

MAX_LINE: Final = 64 * 1024  # bytes; a longer line is published in pieces
EMBEDDED_PORTS: Final = range(8080, 8180)
EMBEDDED_TTL: Final = 86_400  # seconds the printed token is good for
PIPE_GRACE: Final = 1.0  # seconds after its end for output that is still in the pipes
NOT_FOUND: Final = 127  # exit status for a command that cannot be started, as in a shell

Publish = Callable[[list[triows.Message]], Awaitable[None]]
"""Publishes messages in order; returns when they are kept."""


def publish_by(client: triows.Client, channel: str) -> Publish:
    """Publish through a client to a server elsewhere."""

    async def publish(messages: list[triows.Message]) -> None:
        await client.publish_many(channel, messages)

    return publish


@asynccontextmanager
async def embedded_server(channel: str, settings: triows.Settings) -> AsyncIterator[Publish]:
    """Open a server on loopback for as long as the command runs, and say how to watch."""
    secret = secrets.token_hex(32)
    token = triows.make_token(secret, "viewer", ttl=EMBEDDED_TTL, subscribe=[channel])
    async with triows.open_server(
        auth=triows.JWTAuth(secret), host="127.0.0.1", port=_free_port(), settings=settings
    ) as server:
        note("watch it from another terminal:")
        note(f"  triows tail {channel} --url {server.url} --token {token}", "bold")

        async def publish(messages: list[triows.Message]) -> None:
            for message in messages:
                await server.publish(channel, message)

        yield publish


def _free_port() -> int:
    """Return the first port of `EMBEDDED_PORTS` that nobody listens on."""
    for port in EMBEDDED_PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise triows.ConfigError(f"no port is free from {EMBEDDED_PORTS[0]} to {EMBEDDED_PORTS[-1]}")


async def run_command(command: list[str], publish: Publish) -> int:
    """Run `command`, publish what it prints line by line, and return its exit status.

    Its output also goes where it would have gone. Standard input and Ctrl-C are the command's;
    SIGTERM is passed on to it.

    Raises:
        TriowsError: the server refuses to have it published; then it is not started.
    """
    await publish([triows.status({"state": "started", "command": shlex.join(command)})])
    try:
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        note(f"cannot run {command[0]}: {error.strerror}", "red")
        await publish([triows.end(exit_code=NOT_FOUND, reason=f"cannot run: {error.strerror}")])
        return NOT_FOUND
    assert process.stdout is not None
    assert process.stderr is not None
    send, receive = trio.open_memory_channel[triows.Message](WAITING)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_signals_on, process)
        async with trio.open_nursery() as work:
            work.start_soon(_publish_lines, receive, publish)
            async with send:
                async with trio.open_nursery() as pumps:
                    pumps.start_soon(_pump, process.stdout, sys.stdout, "stdout", send)
                    pumps.start_soon(_pump, process.stderr, sys.stderr, "stderr", send)
                    await process.wait()
                    # Something it left running may keep the pipes open for ever.
                    pumps.cancel_scope.deadline = trio.current_time() + PIPE_GRACE
        nursery.cancel_scope.cancel(reason="the command has ended")
    return await _publish_end(process.returncode or 0, publish)


async def _publish_end(returncode: int, publish: Publish) -> int:
    reason = None
    status = returncode
    if returncode < 0:
        reason = f"killed by {signal.Signals(-returncode).name}"
        status = 128 - returncode
    try:
        await publish([triows.end(exit_code=status, reason=reason)])
    except triows.TriowsError as error:
        note(f"the end could not be published: {error}", "yellow")
    return status


async def _pass_signals_on(process: trio.Process) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if number == signal.SIGTERM:  # the terminal sends SIGINT to the command itself
                process.terminate()


async def _publish_lines(
    receive: trio.MemoryReceiveChannel[triows.Message], publish: Publish
) -> None:
    """Publish in order. Refused, say so once, and let the command go on unwatched."""
    refused = False
    while True:
        try:
            messages = await take(receive)
        except trio.EndOfChannel:
            return
        if refused:
            continue
        try:
            await publish(messages)
        except triows.TriowsError as error:
            refused = True
            note(f"no longer published: {error}", "yellow")


async def _pump(
    pipe: trio.abc.ReceiveStream,
    screen: TextIO,
    stream: str,
    send: trio.MemorySendChannel[triows.Message],
) -> None:
    """Pass output on to the screen, and each line of it to the publisher."""
    rest = b""
    async for chunk in pipe:
        await trio.to_thread.run_sync(_show, screen, bytes(chunk))
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            lines.append(rest)
            rest = b""
        for line in lines:
            await send.send(_line(line, stream))
    if rest:
        await send.send(_line(rest, stream))


def _line(line: bytes, stream: str) -> triows.Message:
    text = line.removesuffix(b"\r").decode(errors="replace")
    return triows.log({"stream": stream, "text": text})


def _show(screen: TextIO, chunk: bytes) -> None:
    try:
        screen.buffer.write(chunk)
        screen.flush()
    except BrokenPipeError:  # nobody looks any more; those who watch elsewhere still do
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.fileno())
