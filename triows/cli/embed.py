"""The server that `triows run` opens when there is none: on loopback, for one command."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import triows
from triows.cli.lines import Publish
from triows.cli.output import note, program
from triows.cli.steer import Steering

EMBEDDED_PORTS: Final = range(8080, 8180)
EMBEDDED_TTL: Final = 86_400  # seconds the printed tokens are good for


@asynccontextmanager
async def embedded_server(
    channel: str, settings: triows.Settings, steering: Steering | None
) -> AsyncIterator[tuple[Publish, str]]:
    """Open a server on loopback for as long as the command runs, and say how to watch; yields
    how to publish, and the link to watch it in a browser.

    Those who watch may only watch; a second token, which is for `steering` if that is wanted,
    may send commands.
    """
    secret = secrets.token_hex(32)
    async with triows.open_server(
        auth=triows.JWTAuth(secret),
        host="127.0.0.1",
        port=_free_port(),
        settings=settings,
        on_command=steering.handle if steering is not None else None,
    ) as server:
        at = f"--url {server.url} --token"
        page = server.url.replace("ws", "http", 1).removesuffix("/ws")
        watch = triows.make_token(secret, "viewer", ttl=EMBEDDED_TTL, subscribe=[channel])
        note("watch it in a browser, or from another terminal:")
        link = f"{page}/#token={watch}&channel={channel}"
        note(f"  {link}", "bold")
        note(f"  {program()} tail {channel} {at} {watch}", "bold")
        if steering is not None:
            steer = triows.make_token(
                secret, "operator", ttl=EMBEDDED_TTL, subscribe=[channel], command=[channel]
            )
            ask = """--type command --json '{"action": "interrupt"}'"""
            note("steer it:")
            note(f"  {program()} publish {channel} {ask} {at} {steer}", "bold")
            note(f"  {page}/#token={steer}&channel={channel}", "bold")

        async def publish(messages: list[triows.Message]) -> None:
            for message in messages:
                await server.publish(channel, message)

        yield publish, link


def _free_port() -> int:
    """Return the first port of `EMBEDDED_PORTS` that nobody listens on."""
    for port in EMBEDDED_PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise triows.ConfigError(f"no port is free from {EMBEDDED_PORTS[0]} to {EMBEDDED_PORTS[-1]}")
