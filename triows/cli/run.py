"""`triows run`: a command whose output is watched while it runs."""

from __future__ import annotations

import codecs
import contextlib
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
from triows.cli.output import note, program, readable

MAX_LINE: Final = 64 * 1024  # characters; a longer line is published in pieces
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
        note(f"  {program()} tail {channel} --url {server.url} --token {token}", "bold")

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
    await publish([triows.status({"state": "started", "command": readable(shlex.join(command))})])
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
        nursery.start_soon(_pass_signals_on, process, nursery.cancel_scope)
        async with trio.open_nursery() as work:
            work.start_soon(_publish_lines, receive, publish)
            async with send:
                async with trio.open_nursery() as pumps:
                    pumps.start_soon(_pump, process.stdout, sys.stdout, "stdout", send)
                    pumps.start_soon(_pump, process.stderr, sys.stderr, "stderr", send)
                    await process.wait()
                    # Something it left running may keep the pipes open for ever.
                    pumps.cancel_scope.deadline = trio.current_time() + PIPE_GRACE
        await _publish_end(process.returncode or 0, publish)
        nursery.cancel_scope.cancel(reason="the command has ended, and that is published")
    return _exit_status(process.returncode or 0)


def _exit_status(returncode: int) -> int:
    """Return what a shell would: 128 and the signal's number for a command that was killed."""
    return returncode if returncode >= 0 else 128 - returncode


async def _publish_end(returncode: int, publish: Publish) -> None:
    reason = None
    if returncode < 0:
        known = {number.value: number.name for number in signal.Signals}
        reason = f"killed by {known.get(-returncode, f'signal {-returncode}')}"
    try:
        await publish([triows.end(exit_code=_exit_status(returncode), reason=reason)])
    except triows.TriowsError as error:
        note(f"the end could not be published: {error}", "yellow")


async def _pass_signals_on(process: trio.Process, publishing: trio.CancelScope) -> None:
    """Pass SIGTERM on to the command (Ctrl-C is sent to it by the terminal); once it has ended,
    a signal ends the wait for a server that does not answer.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if process.returncode is not None:
                note("stopped before everything was published", "yellow")
                publishing.cancel(reason="a signal, after the command has ended")
            elif number == signal.SIGTERM:
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
    lines = LineCutter()
    try:
        async for chunk in pipe:
            await trio.to_thread.run_sync(_show, screen, bytes(chunk))
            for line in lines.cut(bytes(chunk)):
                await send.send(triows.log({"stream": stream, "text": line}))
    finally:
        last = lines.finish()
        if last:
            with contextlib.suppress(trio.WouldBlock):
                send.send_nowait(triows.log({"stream": stream, "text": last}))


class LineCutter:
    """Makes lines of text out of bytes; what is no UTF-8 is replaced, what is too long cut."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def cut(self, chunk: bytes) -> list[str]:
        """Take the next bytes and return the lines they complete."""
        *lines, rest = (self._rest + self._decode(chunk)).split("\n")
        pieces = [piece for line in lines for piece in _pieces(line)]
        whole = len(rest) - len(rest) % MAX_LINE if len(rest) > MAX_LINE else 0
        pieces += [rest[at : at + MAX_LINE] for at in range(0, whole, MAX_LINE)]
        self._rest = rest[whole:]
        return pieces

    def finish(self) -> str:
        """Return the last line, if it had no end."""
        return self._rest + self._decode(b"", final=True)


def _pieces(line: str) -> list[str]:
    line = line.removesuffix("\r")
    return [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [""]


def _show(screen: TextIO, chunk: bytes) -> None:
    try:
        screen.buffer.write(chunk)
        screen.flush()
    except BrokenPipeError:  # nobody looks any more; those who watch elsewhere still do
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.fileno())
