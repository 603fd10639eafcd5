"""The rival python-socketio on uvicorn: fan-out to a room, and events that are acknowledged."""

from __future__ import annotations

import socketio

from benchmarks.servers import announce, ping_interval
from benchmarks.servers.on_uvicorn import listen, run

NEVER = 86_400.0


def main(interval: float) -> None:
    """Serve until killed."""
    server = socketio.AsyncServer(
        async_mode="asgi",
        transports=["websocket"],
        http_compression=False,
        ping_interval=interval or NEVER,
    )

    async def subscribe(sid: str) -> str:
        await server.enter_room(sid, "bench")
        return "subscribed"

    async def publish(sid: str, message: str) -> None:
        await server.emit("message", message, room="bench")

    def echo(sid: str, message: str) -> str:
        return message

    server.on("subscribe", subscribe)
    server.on("publish", publish)
    server.on("echo", echo)
    listening, port = listen()

    def start() -> None:
        announce(port)

    run(socketio.ASGIApp(server, on_startup=start), listening)


if __name__ == "__main__":
    main(ping_interval())
