"""A connection cancelled at any await leaves nothing behind and disturbs nobody."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

import triows
from tests.support import CLOSE, PING, Peer, connect, frame, memory_server, request_head, token

BIG = "x" * 100_000  # more than a piece of a log, so that the writer task has work


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the n-th step of a task or of any task below it."""

    def __init__(self, scope: trio.CancelScope, root: trio.lowlevel.Task, step: int) -> None:
        self.left = step
        self._scope = scope
        self._root = root

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of our tasks."""
        if self._is_ours(task):
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self._root:
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        return task is not None


async def serve_cancelled_at(server: triows.Server, stream: trio.abc.Stream, step: int) -> bool:
    """Serve one connection, cancelled before its n-th step; return whether it came to that."""
    with trio.CancelScope() as scope:
        at = CancelAtStep(scope, trio.lowlevel.current_task(), step)
        trio.lowlevel.add_instrument(at)
        try:
            await server.serve_stream(stream, "test")
        finally:
            trio.lowlevel.remove_instrument(at)
    return at.left <= 0


async def talk(peer: Peer) -> None:
    """Do a bit of everything, as far as the server plays along, and read to the end."""
    try:
        await peer.send(request_head(token()))
        await peer.say("subscribe", id="s", channel="session:1", data={"tail": 5})
        for number in range(3):
            await peer.say("log", id=f"p{number}", channel="session:1", data=number)
        await peer.say("log", id="big", channel="session:1", data=BIG)
        await peer.send(frame(b"", PING))
        await peer.say("history", id="h", channel="session:1")
        await peer.say("command", id="c", channel="session:1", data="stop")
        await peer.send(frame((1000).to_bytes(2, "big"), CLOSE))
        while await peer.stream.receive_some(65536):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def on_command(request: triows.Request) -> str:
    """Take a moment, so that a handler can be cancelled, too."""
    await trio.sleep(0.001)
    return "stopped"


async def test_cancelled_at_any_await(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it was doing: hub and registry are empty, the log is whole, the stream closed,
    no task is left, nothing is logged as an error, and another connection works as before.
    """
    caplog.set_level(logging.ERROR)
    step, reached = 0, True
    while reached:
        step += 1
        async with memory_server(on_command=on_command) as server, trio.open_nursery() as others:
            witness = await connect(server, others)
            ours, theirs = trio.testing.memory_stream_pair()
            with trio.fail_after(60):  # the talk ends only when the stream is closed
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(talk, Peer(ours))
                    reached = await serve_cancelled_at(server, theirs, step)

            assert [c.channels for c in server.connections()] == [()]  # the witness
            assert not server._hub._topics
            log = await server._bus.open("session:1")
            texts = await server._bus.history(log, 1, log.head, 1 << 30)
            assert len(texts) == log.head
            ack = await witness.ask("subscribe", id="w", channel="session:2")
            assert ack["type"] == "ack"
            others.cancel_scope.cancel()
    assert step > 60  # it did go through everything
    assert not caplog.records
