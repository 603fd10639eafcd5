"""What tests of the conformance kit need: the kit as a process, and a proxy that tells lies."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.support import SECRET, TEXT
from triows.conformance.raw import CLOSE, Socket
from triows.frames import encode_frame

Sent = list[tuple[int, bytes]]
Lie = Callable[[int, bytes], Sent]
"""What is passed on in place of a message or close frame of the server: opcode and payload."""


@attrs.frozen
class Run:
    """A run of the kit that has ended."""

    status: int
    out: str
    err: str

    @property
    def failed(self) -> list[str]:
        """The lines of what failed."""
        return [line for line in self.out.splitlines() if line.startswith("FAILED")]

    @property
    def summary(self) -> str:
        """The last line."""
        return self.out.splitlines()[-1]


async def kit(url: str, tmp_path: Path, *arguments: object, **variables: str) -> Run:
    """Run the kit with the secret of the tests; it is killed after 60 s."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    return await bare_kit(url, "--secret-file", secret, *arguments, **variables)


async def bare_kit(*arguments: object, **variables: str) -> Run:
    """Run the kit with these arguments; it is killed after 60 s."""
    with trio.fail_after(60):
        ended = await trio.run_process(
            [sys.executable, "-m", "triows.conformance", *map(str, arguments)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **variables},
        )
    return Run(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Any]) -> AsyncIterator[str]:
    """Serve on a port of its own; yields the address of a WebSocket there."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def lying(
    url: str, lie: Lie | None = None, head: Callable[[bytes], bytes] = bytes
) -> AsyncIterator[str]:
    """Stand between the kit and a server, and change what the server says.

    Args:
        url: of the server.
        lie: what is passed on instead; None passes all bytes on as they are.
        head: changes the heads of the requests.
    """
    port = int(url.split(":")[2].partition("/")[0])

    async def serve(client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", port)
        async with client, server, trio.open_nursery() as nursery:
            try:
                await server.send_all(head(await _until(client, b"\r\n\r\n")))
                nursery.start_soon(_pump, client, server)
                if lie is None:
                    await _pump(server, client)
                else:
                    await _tell(server, client, lie)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one of them has hung up
            nursery.cancel_scope.cancel()

    async with listening(serve) as here:
        yield here


async def _tell(server: trio.abc.Stream, client: trio.abc.Stream, lie: Lie) -> None:
    # The answer of the opening ends where the first frame begins.
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await server.receive_some(1)
    await client.send_all(answer)
    socket = Socket(server)
    while True:
        opcode, payload = await socket.receive()
        if (opcode, payload) == (CLOSE, b""):
            return
        for sent_opcode, sent in lie(opcode, payload):
            await client.send_all(encode_frame(sent, sent_opcode))


async def _until(stream: trio.abc.Stream, end: bytes) -> bytes:
    data = b""
    while end not in data:
        if not (more := await stream.receive_some()):
            raise trio.BrokenResourceError("ended early")
        data += more
    return data


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    try:
        async for chunk in source:
            await sink.send_all(chunk)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(sink)  # noqa: ASYNC102 it does not wait


def lie_about(change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Lie:
    """Change messages of the server; close frames are passed on."""

    def lie(opcode: int, payload: bytes) -> Sent:
        if opcode != TEXT:
            return [(opcode, payload)]
        return [(TEXT, json.dumps(message).encode()) for message in change(json.loads(payload))]

    return lie
