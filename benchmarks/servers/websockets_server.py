"""The rival `websockets` on asyncio: fan-out by its own `broadcast`, and an echo."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

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
                broadcast(subscribers, message)
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
    async with serve(
        handle,
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=interval or None,
        backlog=4096,
    ) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(ping_interval()))
