"""Plain trio-websocket as one would write it at first: a set, and a task for every send."""

from __future__ import annotations

from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from benchmarks.servers import announce, ping_interval

subscribers: set[WebSocketConnection] = set()


async def handle(request: WebSocketRequest, interval: float) -> None:
    """Serve one connection, as its path says."""
    connection = await request.accept()
    try:
        async with trio.open_nursery() as nursery:
            if interval:
                nursery.start_soon(heartbeat, connection, interval)
            await serve(connection, request.path)
    except* (ConnectionClosed, trio.TooSlowError):
        pass


async def serve(connection: WebSocketConnection, path: str) -> None:
    """Do what the path says until it is closed."""
    if path == "/sub":
        await watch(connection)
    while True:
        message = await connection.get_message()
        if path == "/pub":
            await broadcast(message)
        else:
            await connection.send_message(message)


async def watch(connection: WebSocketConnection) -> None:
    """Subscribe the connection for as long as it lasts."""
    subscribers.add(connection)
    try:
        await connection.send_message("subscribed")
        await connection.get_message()
    finally:
        subscribers.discard(connection)


async def broadcast(message: str | bytes) -> None:
    """Send to all subscribers at the same time; done when all have been sent to."""
    async with trio.open_nursery() as nursery:
        for subscriber in subscribers:
            nursery.start_soon(send, subscriber, message)


async def send(subscriber: WebSocketConnection, message: str | bytes) -> None:
    """Send to one that may be gone."""
    try:
        await subscriber.send_message(message)
    except ConnectionClosed:
        pass


async def heartbeat(connection: WebSocketConnection, interval: float) -> None:
    """Ping it as the library's documentation does."""
    while True:
        with trio.fail_after(interval):
            await connection.ping()
        await trio.sleep(interval)


async def main(interval: float) -> None:
    """Serve until killed."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(
                serve_websocket,
                partial(handle, interval=interval),
                "127.0.0.1",
                0,
                ssl_context=None,
            )
        )
        announce(server.port)


if __name__ == "__main__":
    trio.run(main, ping_interval())
