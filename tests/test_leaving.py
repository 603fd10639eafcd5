"""Leaving while the server is still talking."""

from __future__ import annotations

import trio
from trio.testing import MockClock

import triows
from tests.support import CLOSE, PING, memory_server, token
from tests.support_client import CHANNEL, URL, FaultyStream, Network

_CLOSE = 0x80 | CLOSE


class Crossing(FaultyStream):
    """A stream on which a ping of the server comes right after our close frame went out."""

    ping = bytes((0x80 | PING, 0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; after a close frame, the ping is on its way."""
        await super().send_all(data)
        if data[0] == _CLOSE:
            self.crossing = self.ping

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what comes, the ping first."""
        data = await super().receive_some(max_bytes)
        data, self.crossing = self.crossing + data, b""
        return data

    crossing = b""


async def test_ping_that_crosses_our_goodbye(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A ping of the server that meets our close frame on its way disturbs nobody."""
    async with memory_server() as server:
        network = Network(nursery, server)

        async def open_stream() -> trio.abc.Stream:
            return Crossing(await network.open(), None, None)

        async with triows.open_client(URL, token=token(), open_stream=open_stream) as client:
            await client.publish(CHANNEL, triows.log(1))
        await trio.testing.wait_all_tasks_blocked()
        assert [c.code for c in server.closed_connections()] == [1000]
