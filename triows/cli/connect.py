"""What the commands that connect have in common: which server, whose token, and what to say."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import trio
from cyclopts import Parameter

import triows
from triows.cli.output import note

DEFAULT_URL: Final = "ws://127.0.0.1:8080/ws"
NOT_GIVEN: Final = "no token: give --token or --token-file, or set TRIOWS_TOKEN"
WHICH_SERVER: Final = (
    "a token, but for which server? give --url or set TRIOWS_URL; or leave the token out "
    "(--token, --token-file, TRIOWS_TOKEN, TRIOWS_TOKEN_FILE) to open a server here"
)

Url = Annotated[str, Parameter(env_var="TRIOWS_URL", help="Address of the server.")]
Urls = Annotated[
    tuple[str, ...],
    Parameter(
        env_var="TRIOWS_URL",
        negative=(),
        help="Address of the server; repeated, of several that share one store: tried in turn.",
    ),
]
TokenOption = Annotated[
    str | None,
    Parameter(env_var="TRIOWS_TOKEN", help="Token; other users of this machine may see it."),
]
TokenFile = Annotated[
    Path | None,
    Parameter(env_var="TRIOWS_TOKEN_FILE", help="File with the token, read at each connection."),
]


def token_source(
    token: str | None, token_file: Path | None
) -> str | Callable[[], Awaitable[str]] | None:
    """Return what `open_client` takes: the token, or how to read it again."""
    if token_file is None:
        return token

    async def read() -> str:
        text = await trio.Path(token_file).read_text(errors="replace")
        return text.strip()

    if not (token_file.is_file() and os.access(token_file, os.R_OK)):
        raise triows.ConfigError(f"cannot read the token file {token_file}")
    return read


def read_token(token: str | None, token_file: Path | None) -> str:
    """Return the token, for what asks once only.

    Raises:
        ConfigError: there is none.
    """
    if token_file is None:
        if token is None:
            raise triows.ConfigError(NOT_GIVEN)
        return token
    try:
        return token_file.read_text(errors="replace").strip()
    except OSError as error:
        raise triows.ConfigError(f"token file {token_file}: {error.strerror}") from None


class StateTeller:
    """Tells the person at the terminal when the connection is lost and found, once each."""

    def __init__(self) -> None:
        self._lost = False

    def __call__(self, state: str, reason: triows.TriowsError | None) -> None:
        """Called by the client."""
        if state == "connected" and self._lost:
            note("connected again")
            self._lost = False
        elif state == "disconnected" and not self._lost:
            note(f"no connection: {reason}; trying again", "yellow")
            self._lost = True
