"""An HTTP connection cancelled at any await leaves nothing behind and disturbs nobody."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

import triows
from tests.support import memory_server
from tests.support_http import ADMIN, NDJSON, A, ask, head_of
from tests.test_cancellation import on_command, serve_cancelled_at

BATCH = b'{"type":"log","id":"a"}\n{"type":"command","id":"b"}\n{"type":"log"'
OTHER = "/api/channels/session:2"


async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
    """Take a moment, so that this can be cancelled, too."""
    await trio.sleep(0.001)
    return True


async def talk(stream: trio.abc.Stream, epoch: str) -> None:
    """Do a bit of everything on one connection, as far as the server plays along, and read to
    the end: of a stream of events, as everything else is answered before.
    """
    requests = [
        head_of("POST", f"{A}/messages", BATCH, Content_Type=NDJSON) + BATCH,
        head_of("GET", f"{A}/messages?since={epoch}:0"),
        head_of("GET", f"{A}/messages?since={epoch}:3&wait=0.01"),
        head_of("GET", "/dashboard/vendor/uPlot.iife.min.js", bearer=None),
        head_of("GET", "/metrics", bearer=ADMIN),
        head_of("GET", "/api/channels"),
        head_of("POST", f"{OTHER}/end", b"{}") + b"{}",
        head_of("GET", f"{OTHER}/events?tail=5"),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_the_end, stream)
        try:
            for request in requests:
                await stream.send_all(request[:-1])
                await trio.sleep(0.001)
                await stream.send_all(request[-1:])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def read_to_the_end(stream: trio.abc.Stream) -> None:
    """Take all answers."""
    try:
        while await stream.receive_some(65536):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("narrow", [False, True], ids=["all at once", "every send waits"])
async def test_cancelled_at_any_await(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, narrow: bool
) -> None:
    """Whatever was being answered: nobody is in the pool or watches, no task is left, the stream
    is closed, nothing is logged as an error, and the user is served on another connection.
    """
    limits = triows.Limits(max_connections_per_user=1)
    caplog.set_level(logging.ERROR)
    pair = trio.testing.lockstep_stream_pair if narrow else trio.testing.memory_stream_pair
    step, reached = 0, True
    while reached:
        step += 1
        async with memory_server(
            limits=limits, on_command=on_command, authorize=authorize
        ) as server:
            position = await server.publish("session:1", triows.log("x" * 100_000))
            await server.publish("session:2", triows.log(1))
            ours, theirs = pair()
            with trio.fail_after(60):  # the talk ends only when the stream is closed
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(talk, ours, position.epoch)
                    reached = await serve_cancelled_at(server, theirs, step)

            assert not server.connections()
            assert not server._registry.guests
            assert not server._hub._topics
            async with trio.open_nursery() as others:
                answer = await ask(server, others, "GET", A)
                assert (answer.status, answer.body["viewers"]) == (200, 0)
                others.cancel_scope.cancel()
            await trio.aclose_forcefully(ours)
    assert step > 200  # it did go through everything
    assert not caplog.records
