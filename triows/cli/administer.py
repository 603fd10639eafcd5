"""The commands of an administrator, which ask a server's HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from cyclopts import App

import triows
from triows.cli import admin
from triows.cli.api import Api, open_api
from triows.cli.connect import DEFAULT_URL, TokenFile, TokenOption, Url, read_token
from triows.cli.output import wants_colour
from triows.cli.top import top as top_


def add_to(app: App) -> None:
    """Add the commands to `app`."""
    for command in (top, why, revoke, drain):
        app.command(command)


def top(
    *,
    interval: float = 1.0,
    once: bool = False,
    url: Url = DEFAULT_URL,
    token: TokenOption = None,
    token_file: TokenFile = None,
) -> int:
    """Show channels and connections, live, until Ctrl-C; with an administrator's token.

    Args:
        interval: seconds between two looks.
        once: print them once, and end; so does output that is no terminal.
    """
    if not 0.1 <= interval <= 3600:
        raise triows.ConfigError(f"--interval {interval:g}: expected 0.1 to 3600 seconds")
    return _with_api(lambda api: top_(api, interval=interval, once=once), url, token, token_file)


def why(
    connection: str,
    *,
    url: Url = DEFAULT_URL,
    token: TokenOption = None,
    token_file: TokenFile = None,
) -> int:
    """Print why a connection was closed, or how it is doing; with an administrator's token.

    Args:
        connection: its id, or the first characters of it.
    """
    colour = wants_colour(sys.stdout)
    return _with_api(lambda api: admin.why(api, connection, colour=colour), url, token, token_file)


def revoke(
    *,
    user: str | None = None,
    token_id: str | None = None,
    url: Url = DEFAULT_URL,
    token: TokenOption = None,
    token_file: TokenFile = None,
) -> int:
    """Make tokens worthless, and cut their connections; with an administrator's token.

    Args:
        user: whose: all tokens with this `sub` that were issued until now.
        token_id: which: the token with this `jti`.
    """
    if (user is None) == (token_id is None):
        raise triows.ConfigError("whose tokens? give either --user or --token-id")
    return _with_api(lambda api: admin.revoke(api, user, token_id), url, token, token_file)


def drain(
    *, url: Url = DEFAULT_URL, token: TokenOption = None, token_file: TokenFile = None
) -> int:
    """Have a server finish in peace, as SIGTERM does; with an administrator's token.

    It takes no new connections, gives each client what is still its own, and asks it to come
    back a little later, each at another moment.
    """
    return _with_api(admin.drain, url, token, token_file)


def _with_api(
    work: Callable[[Api], Awaitable[int]], url: str, token: str | None, token_file: Path | None
) -> int:
    async def run() -> int:
        async with open_api(url, read_token(token, token_file)) as api:
            return await work(api)

    return trio.run(run)
