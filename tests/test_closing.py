"""How connections end: one close frame, nothing after it, whoever is first, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import (
    CLOSE,
    TEXT,
    Nursery,
    Peer,
    frame,
    memory_server,
    request_head,
    token,
)
from triows.sender import Sender
from triows.testing.streams import CAPACITY, FaultySocket, FaultyStream, Pipe

A = "session:a"
NORMAL = frame((1000).to_bytes(2, "big"), CLOSE)


class Watched(Peer):
    """A client on a stream that takes what it can at once, as a socket does.

    Attributes:
        sent: all bytes that the server has sent.
    """

    def __init__(self, server: triows.Server, nursery: Nursery, capacity: int = CAPACITY) -> None:
        self.sent = bytearray()
        self.up, self.down = Pipe(), Pipe(capacity, self.sent.extend)
        super().__init__(FaultyStream(self.down, self.up))
        nursery.start_soon(server.serve_stream, FaultySocket(self.up, self.down), "test")

    @classmethod
    async def open(
        cls, server: triows.Server, nursery: Nursery, capacity: int = CAPACITY
    ) -> Watched:
        """Return one that is connected, with its greeting read."""
        peer = cls(server, nursery, capacity)
        await peer.send(request_head(token()))
        assert (await peer.response())[0] == 101
        assert (await peer.hear())["type"] == "auth"
        return peer

    async def read_on(self) -> None:
        """Read all that comes, until the end."""
        try:
            while await self.stream.receive_some(CAPACITY):
                pass
        except trio.BrokenResourceError:
            pass

    def opcodes(self) -> list[int]:
        """Return what kinds of frames the server has sent."""
        rest, found = bytes(self.sent).partition(b"\r\n\r\n")[2], []
        while len(rest) >= 2:
            size, start = rest[1], 2
            if size == 126:
                size, start = int.from_bytes(rest[2:4], "big"), 4
            found.append(rest[0] & 0x0F)
            rest = rest[start + size :]
        return found


async def test_no_ping_after_the_close_frame(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A ping that gets due while the answer to a close waits for a full socket is not sent."""
    async with memory_server() as server:
        peer = await Watched.open(server, nursery, capacity=2000)
        await peer.ask("subscribe", channel=A)
        await trio.sleep(server.settings.limits.ping_interval - 3)
        await server.publish(A, triows.log("x" * 5000))
        await trio.sleep(1)
        await peer.send(NORMAL)
        await trio.sleep(4)
        await peer.read_on()
        assert peer.opcodes() == [TEXT, TEXT, TEXT, CLOSE]


class _At(trio.abc.Instrument):
    """Cancels a scope before a step of a task, counted from now."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@contextmanager
def cancelled_after(steps: int, scope: trio.CancelScope) -> Iterator[None]:
    """Have a scope cancelled after so many steps of tasks."""
    instrument = _At(scope, steps)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


@pytest.mark.parametrize("steps", range(1, 40))
async def test_aborted_while_opening(
    nursery: Nursery, autojump_clock: MockClock, steps: int
) -> None:
    """A server that is stopped while it serves others says nothing before its 101."""
    with trio.CancelScope() as process:
        async with memory_server() as server, trio.open_nursery() as tasks:
            for _ in range(150):
                await server.publish(A, triows.log("x" * 60_000))
            other = await Watched.open(server, tasks, capacity=1 << 30)
            peer = Watched(server, tasks)
            await other.say("subscribe", channel=A, data={"from": "start"})
            with cancelled_after(steps, process):
                await peer.send(request_head(token()))
                await peer.read_on()
    assert not peer.sent or peer.sent.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("ticks", range(5))
async def test_closes_that_cross_do_not_wait(
    nursery: Nursery, autojump_clock: MockClock, ticks: int
) -> None:
    """Who has said goodbye is not waited for, at whatever moment the server says it, too."""
    async with memory_server() as server:
        for _ in range(8):  # tasks run in any order
            peer = await Watched.open(server, nursery)
            (mine,) = server.connections()
            began = trio.current_time()
            peer.up.put(NORMAL)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            server.disconnect(mine.id)
            while server.connections():  # noqa: ASYNC110 virtual time
                await trio.sleep(0.001)
            assert trio.current_time() - began < 0.1
            assert peer.opcodes() == [TEXT, CLOSE]


@pytest.mark.parametrize("steps", range(1, 40))
async def test_aborted_while_closing(
    nursery: Nursery, autojump_clock: MockClock, steps: int
) -> None:
    """A server that is stopped while it answers a close says no second one."""
    with trio.CancelScope() as process:
        async with memory_server() as server, trio.open_nursery() as tasks:
            peer = await Watched.open(server, tasks)
            with cancelled_after(steps, process):
                await peer.send(NORMAL)
                await peer.read_on()
    assert peer.opcodes() == [TEXT, CLOSE]


async def test_gone_before_the_answer(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A peer that takes no answer to its opening any more has left, at once."""
    async with memory_server() as server:
        peer = Watched(server, nursery)
        peer.down.abandon()
        peer.up.put(request_head(token()))
        await trio.sleep(0.001)
        (closed,) = server.closed_connections()
        assert (closed.code, server.connections()) == (1006, [])


async def test_code_that_is_not_known(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A close with a code that trio-websocket does not know is answered all the same."""
    async with memory_server() as server:
        peer = await Watched.open(server, nursery)
        await peer.send(frame((1014).to_bytes(2, "big"), CLOSE))
        assert await peer.close_code() == 1002


async def test_writer_that_fails(
    nursery: Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A connection whose writer fails is closed with 1011, and is in no list any more."""

    async def fail(self: Sender) -> None:
        await trio.sleep(1)
        raise ValueError("a test says so")

    monkeypatch.setattr(Sender, "run", fail)
    async with memory_server() as server:
        peer = await Watched.open(server, nursery)
        await peer.ask("subscribe", channel=A)
        assert await peer.close_code() == 1011
        await trio.sleep(0.1)
        (closed,) = server.closed_connections()
        assert (closed.code, closed.last.channels) == (1011, (A,))
        assert server.connections() == []
        assert [r.levelname for r in caplog.records] == ["ERROR"]


async def test_abort_is_recorded_with_its_lag(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What a connection watched, and how it lagged, is known of one that was cut short, too."""
    with trio.CancelScope() as process:
        async with memory_server() as server, trio.open_nursery() as tasks:
            peer = await Watched.open(server, tasks, capacity=2000)
            await peer.ask("subscribe", channel=A)
            for _ in range(20):
                await server.publish(A, triows.log("x" * 400))
                await trio.sleep(0.1)
            process.cancel()
            await trio.lowlevel.checkpoint()
    (closed,) = server.closed_connections()
    assert closed.last.channels == (A,)
    assert closed.last.lag > 10


async def test_drain_does_not_wait_for_what_comes_later(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A slow viewer gets what was published until the drain, whatever is published after it."""
    async with memory_server() as server:
        peer = await Watched.open(server, nursery, capacity=3000)
        await peer.ask("subscribe", channel=A)
        for number in range(20):
            await server.publish(A, triows.log(f"{number}{'x' * 400}"))

        async def publish_on() -> None:
            for number in range(20, 400):
                await server.publish(A, triows.log(f"{number}{'x' * 400}"))
                await trio.sleep(0.05)

        nursery.start_soon(publish_on)
        server.drain()
        heard, opcode = 0, TEXT
        with trio.fail_after(20):
            while opcode != CLOSE:
                opcode, _ = await peer.receive()
                heard += opcode == TEXT
                await trio.sleep(0.1)
        assert 20 + 1 <= heard < 100
        nursery.cancel_scope.cancel()
