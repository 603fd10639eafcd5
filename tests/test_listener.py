"""The bus inside the process: an application listens as a viewer does."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, connect, frame, memory_server
from triows.config import LogLimits

A, B = "session:a", "session:b"


async def test_listen(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The application hears what is published from now on, on the channels it names."""
    async with memory_server() as server:
        await server.publish("session:w1/a", triows.log("before"))
        async with server.listen("session:w1/*", B) as messages:
            for channel in ("session:w1/a", "session:w2/a", B, A, "session:w1/a"):
                await server.publish(channel, triows.status(channel))
            heard = [await messages.__anext__() for _ in range(3)]
            with trio.move_on_after(1) as nothing_more:
                await messages.__anext__()
        await server.publish(B, triows.log("after"))
        assert nothing_more.cancelled_caught
        assert sorted((m.channel, m.offset, m.data) for m in heard) == [
            (B, 1, B),
            ("session:w1/a", 2, "session:w1/a"),
            ("session:w1/a", 3, "session:w1/a"),
        ]
        assert {m.type for m in heard} == {"status"}


async def test_listener_that_lags(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A listener that fell behind what is kept is told so, as a viewer is."""
    async with memory_server(log=LogLimits(max_messages=3)) as server:
        async with server.listen("session:*") as messages:
            for i in range(10):
                await server.publish(A, triows.log(i))
            gap, *rest = [await messages.__anext__() for _ in range(4)]
        assert (gap.type, gap.channel) == ("gap", A)
        assert (gap.data["from"], gap.data["to"], gap.data["count"]) == (1, 7, 7)
        assert [m.offset for m in rest] == [8, 9, 10]


@pytest.mark.parametrize("ticks", range(5))
async def test_listener_cancelled(nursery: Nursery, autojump_clock: MockClock, ticks: int) -> None:
    """Whenever waiting for the next message is cancelled, none is lost and none comes twice."""
    heard: list[int | None] = []

    async with memory_server() as server, server.listen("session:*") as messages:

        async def listen(scope: trio.CancelScope) -> None:
            with scope:
                async for message in messages:
                    heard.append(message.offset)  # noqa: PERF401 what was heard must stay

        for _ in range(10):
            async with trio.open_nursery() as listening:
                scope = trio.CancelScope()
                listening.start_soon(listen, scope)
                server._bus.submit(A, triows.log(1), "", trio.current_time(), lambda *outcome: None)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                server._bus.submit(A, triows.log(2), "", trio.current_time(), lambda *outcome: None)
                scope.cancel()
        with trio.move_on_after(1):
            await listen(trio.CancelScope())
        assert heard == list(range(1, 21))


async def test_listener_has_one_reader(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Two tasks cannot wait for the same listener's next message."""
    async with memory_server() as server, server.listen("session:*") as messages:
        nursery.start_soon(messages.__anext__)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await messages.__anext__()


async def test_listener_is_not_poisoned(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Nothing that a client or the application may publish keeps a listener from what follows."""
    deepest = "[" * 99 + "]" * 99
    deeper = "[" * 200 + "]" * 200
    async with memory_server() as server, server.listen("session:*") as messages:
        peer = await connect(server, nursery)
        await peer.send(frame(f'{{"type":"log","channel":"{A}","data":{deepest}}}'))
        await peer.send(frame(f'{{"type":"log","channel":"{A}","data":{deeper}}}'))
        await peer.send(frame(f'{{"type":"log","channel":"{A}","data":1e999}}'))
        assert (await peer.hear())["data"]["code"] == "bad_json"
        heard = [await messages.__anext__() for _ in range(2)]
        for raw in (deeper, "[" * 5000 + "]" * 5000):
            with suppress(triows.RequestError):  # refusing it is as good
                await server.publish(A, triows.Message("log", raw.encode()))
            await server.publish(A, triows.log("after"))
            while (message := await messages.__anext__()).data != "after":
                pass
            heard.append(message)
        assert heard[0].raw.decode() == deepest
        assert heard[1].data == math.inf
