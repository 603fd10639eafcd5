"""The rival `websockets` on Trio: fan-out by its own `broadcast`, and an echo."""

from __future__ import annotations

from functools import partial

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import ServerConnection, broadcast, serve

from benchmarks.servers import announce, ping_interval

subscribers: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    """Serve one connection, as its path says."""
    path = connection.request.path if connection.request else ""
    try:
        if path == "/sub":
            await watch(connection)
        elif path == "/pub":
            async for message in connection:
                await broadcast(subscribers, message)
        elif path == "/echo":
            async for message in connection:
                await connection.send(message)
    except ConnectionClosed:
        pass


async def watch(connection: ServerConnection) -> None:
    """Subscribe the connection for as long as it lasts."""
    subscribers.add(connection)
    try:
        await connection.send("subscribed")
        await connection.wait_closed()
    finally:
        subscribers.discard(connection)


async def main(interval: float) -> None:
    """Serve until killed."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(
                serve,
                handle,
                0,
                host="127.0.0.1",
                backlog=4096,
                compression=None,
                open_timeout=None,
                ping_interval=interval or None,
            )
        )
        announce(server.listeners[0].socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main, ping_interval())
