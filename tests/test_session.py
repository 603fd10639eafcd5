"""The protocol of one connection, over memory streams."""

from __future__ import annotations

import trio

import triows
from tests.support import connect, memory_server


async def test_subscriber_gets_what_is_published(nursery: trio.Nursery) -> None:
    """A published message reaches a subscriber with channel, offset, timestamp and its data."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        ack = await peer.ask("subscribe", id="1", channel="session:42")
        position = await server.publish("session:42", triows.log({"a": 1}))

        assert ack["data"] == {
            "epoch": position.epoch,
            "offset": 0,
            "earliest": 1,
            "ended": None,
        }
        message = await peer.hear()
        assert (message["type"], message["channel"], message["offset"], message["data"]) == (
            "log",
            "session:42",
            1,
            {"a": 1},
        )
        await peer.stream.aclose()
