"""No WebSocket server: what is left of one on Trio when it does nothing, to find the floor.

A connection is a nursery with a reader, a writer and a heartbeat, tied to memory channels, as that
of triows is. What they say was made before, as by `bare_server`.
"""

from __future__ import annotations

import socket

import trio

from benchmarks.servers import announce, ping_interval
from benchmarks.servers.bare_server import ACCEPTED, REPLY, REQUEST

NEVER = 86_400.0
AT_ONCE = 64

subscribers: list[socket.socket] = []


async def serve(connection: socket.socket) -> None:
    """Serve one connection to its end."""
    async with trio.open_nursery() as nursery:
        wake, woken = trio.open_memory_channel[None](1)
        change, changed = trio.open_memory_channel[None](1)
        nursery.start_soon(write, woken)
        nursery.start_soon(beat, changed)
        await read(connection)
        nursery.cancel_scope.cancel()
        wake.close()  # here, so that both were open until now
        change.close()
    trio.lowlevel.notify_closing(connection)
    connection.close()


async def read(connection: socket.socket) -> None:
    """Answer whatever comes by its length, until the peer is gone."""
    path, rest = b"", 0
    while data := await receive(connection):
        if not path:
            path = data.split(b" ", 2)[1]
            if path == b"/sub":
                subscribers.append(connection)
            connection.send(ACCEPTED)
            continue
        count, rest = divmod(rest + len(data), REQUEST)
        if path == b"/pub":
            reply = REPLY * count
            for subscriber in subscribers:
                subscriber.send(reply)
        else:
            connection.send(REPLY * count)


async def receive(connection: socket.socket) -> bytes:
    """Return what came; nothing if the peer is gone."""
    while True:
        await trio.lowlevel.wait_readable(connection)
        try:
            return connection.recv(65536)
        except BlockingIOError:
            continue
        except OSError:
            return b""


async def write(woken: trio.MemoryReceiveChannel[None]) -> None:
    """Wait for what the socket did not take, in vain."""
    async for _ in woken:
        pass


async def beat(changed: trio.MemoryReceiveChannel[None]) -> None:
    """Wait for the next ping, in vain."""
    with trio.move_on_after(NEVER):
        await changed.receive()


async def main() -> None:
    """Serve until killed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)
    announce(listening.getsockname()[1])
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(AT_ONCE):
                try:
                    accepted, _ = listening.accept()
                except BlockingIOError:
                    break
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                nursery.start_soon(serve, accepted)


if __name__ == "__main__":
    ping_interval()
    trio.run(main)
