"""An application: builds that are watched line by line, and can be stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import triows


@asynccontextmanager
async def open_builds(**options: Any) -> AsyncIterator[triows.Server]:
    """Open a server for builds: `options` are those of `triows.open_server`."""

    async def stop(request: triows.Request) -> str:
        if request.message.data != "stop":
            raise ValueError("a build can be stopped, and nothing else")
        assert request.message.channel is not None
        await server.publish(request.message.channel, triows.end(reason="stopped"))
        return f"stopped for {request.identity.user}"

    async with triows.open_server(on_command=stop, **options) as server:
        yield server


async def follow(client: triows.Client, channel: str, show: Callable[[str], None]) -> None:
    """Show the lines of a build, to its end."""
    async with client.subscribe(channel, from_start=True) as messages:
        async for message in messages:
            if message.type == "gap":
                show(f"… {message.data['count']} lines are gone …")
            elif message.type == "end":
                show(f"({message.data['reason']})")
            else:
                show(message.data)
