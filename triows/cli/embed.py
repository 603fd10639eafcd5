"""The server that `triows run` opens when there is none: on loopback, for one command."""

from __future__ import annotations

import errno
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

import triows
from triows.cli.lines import Publish
from triows.cli.output import note, program
from triows.cli.steer import Steering
from triows.listeners import Listeners

EMBEDDED_PORTS: Final = range(8080, 8180)
_NOT_OURS: Final = {errno.EADDRINUSE, errno.EACCES}
EMBEDDED_TTL: Final = 86_400  # seconds the printed tokens are good for


@asynccontextmanager
async def embedded_server(
    channel: str, settings: triows.Settings, steering: Steering | None
) -> AsyncIterator[tuple[Publish, str]]:
    """Open a server on loopback for as long as the command runs, and say how to watch; yields
    how to publish, and the link to watch it in a browser.

    Those who watch may only watch; a second token, which is for `steering` if that is wanted,
    may send commands.

    Raises:
        ConfigError: no port is free, or what the settings say cannot be had.
    """
    secret = secrets.token_hex(32)
    section = attrs.evolve(settings.server, host="127.0.0.1", workers=1, worker_port=0)
    async with (
        _listening(section) as listeners,
        triows.open_server(
            auth=triows.JWTAuth(secret),
            settings=attrs.evolve(settings, server=section),
            on_command=steering.handle if steering is not None else None,
            listen=listeners,
        ) as server,
    ):
        link = _say_how_to_watch(server.url, channel, secret, steering=steering is not None)

        async def publish(messages: list[triows.Message]) -> None:
            for message in messages:
                await server.publish(channel, message)

        yield publish, link


def _say_how_to_watch(url: str, channel: str, secret: str, *, steering: bool) -> str:
    """Tell how to watch, and how to steer if that is wanted; return the link to watch."""
    at = f"--url {url} --token"
    page = url.replace("ws", "http", 1).removesuffix("/ws")
    watch = triows.make_token(secret, "viewer", ttl=EMBEDDED_TTL, subscribe=[channel])
    link = f"{page}/#token={watch}&channel={channel}"
    note("watch it in a browser, or from another terminal:")
    note(f"  {link}", "bold")
    note(f"  {program()} tail {channel} {at} {watch}", "bold")
    if steering:
        steer = triows.make_token(
            secret, "operator", ttl=EMBEDDED_TTL, subscribe=[channel], command=[channel]
        )
        ask = """--type command --json '{"action": "interrupt"}'"""
        note("steer it:")
        note(f"  {program()} publish {channel} {ask} {at} {steer}", "bold")
        note(f"  {page}/#token={steer}&channel={channel}", "bold")
    return link


@asynccontextmanager
async def _listening(section: triows.ServerSettings) -> AsyncIterator[Listeners]:
    """Listen on the first port of `EMBEDDED_PORTS` that nobody else listens on."""
    listeners = await _open_first(section)
    try:
        yield listeners
    finally:
        listeners.close()


async def _open_first(section: triows.ServerSettings) -> Listeners:
    for port in EMBEDDED_PORTS:
        try:
            return await Listeners.open(attrs.evolve(section, port=port))
        except triows.ConfigError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in _NOT_OURS):
                raise
    raise triows.ConfigError(f"no port is free from {EMBEDDED_PORTS[0]} to {EMBEDDED_PORTS[-1]}")
