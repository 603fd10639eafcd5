"""Runs an ASGI application on uvicorn, with what `uvicorn[standard]` picks by itself."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn


def run(
    application: Callable[..., Any], listening: socket.socket, ping_interval: float = 0
) -> None:
    """Serve until killed, on a socket that listens already."""
    config = uvicorn.Config(
        application,
        lifespan="on",
        backlog=4096,
        access_log=False,
        log_level="warning",
        ws_ping_interval=ping_interval or None,
        ws_per_message_deflate=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


def listen() -> tuple[socket.socket, int]:
    """Return a socket on a free port, and that port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    return listening, listening.getsockname()[1]
