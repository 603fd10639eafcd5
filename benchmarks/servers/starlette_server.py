"""The rival Starlette on uvicorn: fan-out by sending to one after the other, and an echo."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.servers import announce, ping_interval
from benchmarks.servers.on_uvicorn import listen, run

subscribers: set[WebSocket] = set()


async def watch(connection: WebSocket) -> None:
    """Subscribe the connection for as long as it lasts."""
    await connection.accept()
    subscribers.add(connection)
    try:
        await connection.send_text("subscribed")
        await connection.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        subscribers.discard(connection)


async def publish(connection: WebSocket) -> None:
    """Send to all what one sends."""
    await connection.accept()
    async for message in connection.iter_text():
        for subscriber in list(subscribers):
            try:
                await subscriber.send_text(message)
            except (WebSocketDisconnect, RuntimeError):  # it is gone
                subscribers.discard(subscriber)


async def echo(connection: WebSocket) -> None:
    """Answer."""
    await connection.accept()
    async for message in connection.iter_text():
        await connection.send_text(message)


def main(interval: float) -> None:
    """Serve until killed."""
    listening, port = listen()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        announce(port)
        yield

    routes = [
        WebSocketRoute("/sub", watch),
        WebSocketRoute("/pub", publish),
        WebSocketRoute("/echo", echo),
    ]
    run(Starlette(routes=routes, lifespan=lifespan), listening, interval)


if __name__ == "__main__":
    main(ping_interval())
