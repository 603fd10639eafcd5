"""What tests of the client need: a network that can fail, and servers that follow a script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing
import trio_websocket

import triows
from tests.support import token

URL = "ws://server.test/ws"
CHANNEL = "session:42"


class FaultyStream(trio.abc.Stream):
    """A client's end of a stream that can break after some bytes, or lose what passes.

    Attributes:
        deaf: what comes in is lost.
        mute: what goes out is lost.
    """

    def __init__(self, stream: trio.abc.Stream, receives: int | None, sends: int | None) -> None:
        self._stream = stream
        self._receives = receives
        self._sends = sends
        self.deaf = False
        self.mute = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, until the limit is reached."""
        if self.mute:
            await trio.lowlevel.checkpoint()
            return
        if self._sends is not None:
            if len(data) > self._sends:
                await self._stream.send_all(bytes(data)[: self._sends])
                await self._break()
            self._sends -= len(data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Part of the interface."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, until the limit is reached."""
        while True:
            if self._receives == 0:
                await self._break()
            data = bytes(await self._stream.receive_some(self._receives or max_bytes))
            if self._receives is not None:
                self._receives -= len(data)
            if not self.deaf or not data:
                return data

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()

    async def _break(self) -> None:
        await self._stream.aclose()
        raise trio.BrokenResourceError("the network broke")


class Network:
    """Leads clients to a server, which can be replaced; every connection can be cut.

    Attributes:
        server: to which the next connection goes; None: nobody listens.
        limits: bytes that the next connections receive and send, first one first.
        opened: when each connection was asked for.
        streams: the clients' ends.
    """

    def __init__(self, nursery: trio.Nursery, server: triows.Server | None) -> None:
        self.server = server
        self.limits: list[tuple[int | None, int | None]] = []
        self.opened: list[float] = []
        self.streams: list[FaultyStream] = []
        self._nursery = nursery
        self._theirs: list[Any] = []

    async def open(self) -> trio.abc.Stream:
        """Open a stream: what `open_client` takes as `open_stream`."""
        self.opened.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.server is None:
            raise OSError("connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._theirs.append(theirs)
        self._nursery.start_soon(self.server.serve_stream, theirs, "test")
        receives, sends = self.limits.pop(0) if self.limits else (None, None)
        self.streams.append(FaultyStream(ours, receives, sends))
        return self.streams[-1]

    def cut(self) -> None:
        """Break the newest connection, in both directions; what is on its way arrives."""
        self._theirs[-1].send_stream.close()
        self._theirs[-1].receive_stream.close()

    def client(self, **options: Any) -> AbstractAsyncContextManager[triows.Client]:
        """Open a client over this network."""
        options.setdefault("token", token())
        return triows.open_client(URL, open_stream=self.open, **options)


def connected(
    nursery: trio.Nursery, server: triows.Server, **options: Any
) -> AbstractAsyncContextManager[triows.Client]:
    """Open a client that speaks to `server`."""
    return Network(nursery, server).client(**options)


async def read(messages: triows.Subscription, count: int) -> list[triows.Message]:
    """Return the next `count` messages."""
    received: list[triows.Message] = []
    with trio.fail_after(600):
        while len(received) < count:
            received.append(await anext(messages))
    return received


async def read_all(messages: triows.Subscription) -> list[triows.Message]:
    """Return all messages until the end."""
    with trio.fail_after(600):
        return [message async for message in messages]


def offsets(messages: list[triows.Message]) -> list[int | None]:
    """Return where they stand."""
    return [message.offset for message in messages]


class Script:
    """One connection of a server that does what a test says."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    async def greet(self, **session: Any) -> None:
        """Send the first message, with some of it otherwise."""
        clocks = {"ping_interval": 30, "pong_timeout": 10, "idle_timeout": 300}
        limits = {"messages_per_second": 0}
        data = {"connection": "1", "expires_at": 4e9, "heartbeat": clocks, "limits": limits}
        await self.say("auth", data={**data, **session})

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = json.loads(await self._websocket.get_message())
        return message

    async def say(self, type: str, **fields: Any) -> None:
        """Send a message."""
        await self.send(json.dumps({"type": type, **fields}))

    async def send(self, message: str | bytes) -> None:
        """Send anything."""
        await self._websocket.send_message(message)

    async def ack(self, request: dict[str, Any], **data: Any) -> None:
        """Answer a request."""
        await self.say("ack", id=request["id"], channel=request.get("channel"), data=data)

    async def ack_subscribe(self, request: dict[str, Any], head: int) -> None:
        """Answer a `subscribe` to a log of epoch `e`."""
        assert request["type"] == "subscribe"
        await self.ack(request, epoch="e", offset=head, earliest=1, ended=None)

    async def log(self, *numbers: int) -> None:
        """Send messages of the log of `CHANNEL`."""
        for number in numbers:
            await self.say("log", channel=CHANNEL, offset=number, data=number)

    async def close(self, code: int) -> None:
        """Say goodbye."""
        await self._websocket.aclose(code, "so it goes")


Serve = Callable[[trio.abc.Stream], Awaitable[None]]


def play(act: Callable[[Script], Awaitable[None]]) -> Serve:
    """Serve a WebSocket that follows `act`, and breaks off after it."""

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(nursery, stream)
                await act(Script(await request.accept(subprotocol="triows.v1")))
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio_websocket.ConnectionClosed):
            pass

    return serve


def answer(status: int, body: object = None, *, raw: bytes = b"", more: str = "") -> Serve:
    """Answer the opening with a status, a body (JSON, or raw) and more lines in the head."""
    text = raw if body is None else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} No\r\n{more}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"

    async def serve(stream: trio.abc.Stream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some()
        await stream.send_all(head.encode() + text)

    return serve


def refuse(status: int, code: str = "unavailable", **data: Any) -> Serve:
    """Refuse the opening as the server does it."""
    return answer(status, {"type": "error", "data": {"code": code, "message": "no", **data}})


async def welcome(script: Script) -> None:
    """Greet, acknowledge whatever is published at offset 1, and stay."""
    await script.greet()
    while True:
        await script.ack(await script.hear(), epoch="e", offset=1)


class Stage:
    """Servers by script: each connection is served by the next one, the last again and again.

    Attributes:
        opened: when each connection was asked for.
    """

    def __init__(self, nursery: trio.Nursery, *serves: Serve) -> None:
        self.opened: list[float] = []
        self._nursery = nursery
        self._serves = list(serves)

    async def open(self) -> trio.abc.Stream:
        """Open a stream: what `open_client` takes as `open_stream`."""
        self.opened.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        serve = self._serves.pop(0) if len(self._serves) > 1 else self._serves[0]
        self._nursery.start_soon(self._run, serve, theirs)
        return ours

    async def _run(self, serve: Serve, stream: trio.abc.Stream) -> None:
        try:
            await serve(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @property
    def pauses(self) -> list[float]:
        """Seconds between the openings."""
        return [b - a for a, b in zip(self.opened, self.opened[1:], strict=False)]

    def client(self, **options: Any) -> AbstractAsyncContextManager[triows.Client]:
        """Open a client that comes here."""
        options.setdefault("token", "t")
        return triows.open_client(URL, open_stream=self.open, **options)


class Command:
    """A `triows` process, with what it has said so far.

    Attributes:
        out: standard output.
        err: standard error.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._changed = trio.Event()
        self._open = 2

    async def collect(self, pipe: trio.abc.ReceiveStream | None, name: str) -> None:
        """Read one of its outputs to the end."""
        assert pipe is not None
        async for chunk in pipe:
            setattr(self, name, getattr(self, name) + bytes(chunk).decode())
            self._tell()
        self._open -= 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def says(self, pattern: str, where: str = "err") -> re.Match[str]:
        """Wait until it has said something."""
        while True:
            found = re.search(pattern, getattr(self, where))
            if found is not None:
                return found
            assert self._open, f"never said {pattern!r}: {self.out}{self.err}"
            await self._changed.wait()

    async def tell(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def ended(self) -> int:
        """Close its input, wait for its end, and return its exit status."""
        if self.process.stdin is not None:
            await self.process.stdin.aclose()
        status = await self.process.wait()
        while self._open:
            await self._changed.wait()
        return status


@asynccontextmanager
async def cli(*arguments: object, **variables: str) -> AsyncIterator[Command]:
    """Run `triows` with arguments and environment variables; it is killed after 60 s."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIOWS_")}
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", "from triows.cli import main; main()", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, **variables},
        )
        try:
            async with trio.open_nursery() as nursery:
                command = Command(process)
                nursery.start_soon(command.collect, process.stdout, "out")
                nursery.start_soon(command.collect, process.stderr, "err")
                yield command
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    assert pipe is not None
                    await pipe.aclose()
