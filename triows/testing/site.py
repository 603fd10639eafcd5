"""A server in this process, and a network in memory that leads to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, final

import attrs

from triows.client import Client, OnState, open_client
from triows.server import Server, open_server
from triows.testing.network import Network
from triows.testing.tokens import Tokens

URL: Final = "ws://server.test/ws"


@final
@attrs.frozen
class Site:
    """A server and all that lead to it. Made by `open_site`.

    Attributes:
        server: as `open_server` yields it.
        network: the connections to it, which can be made to fail.
        tokens: makes the tokens it believes.
    """

    server: Server
    network: Network
    tokens: Tokens

    def connect(
        self,
        user: str = "me",
        *,
        ttl: float = 3600,
        admin: bool = False,
        on_state: OnState | None = None,
        **grants: list[str],
    ) -> AbstractAsyncContextManager[Client]:
        """Open a client, a real one: what `open_client` returns. It gets a new token in time.

        Args:
            user: who it is; `network.of(user)` are its connections.
            ttl: seconds that each token is good for.
            admin, grants: what it may do, see `Tokens.make`.
            on_state: as of `open_client`.
        """

        async def token() -> str:  # noqa: ASYNC124 a client takes no other
            return self.tokens.make(user, ttl=ttl, admin=admin, **grants)

        opener = self.network.opener(user)
        return open_client(URL, token=token, open_stream=opener, on_state=on_state)


@asynccontextmanager
async def open_site(network: Network | None = None, **options: Any) -> AsyncIterator[Site]:
    """Open a server that is reached over a network in memory, for the duration of an `async with`.

    Leaving it drains, as leaving `open_server` does.

    Args:
        network: where it is; None makes one.
        options: as of `open_server`. Without `auth` it believes the tokens of `Site.tokens`.
    """
    network, tokens = network or Network(), Tokens()
    options.setdefault("auth", tokens)
    port = network.port()
    try:
        async with open_server(listen=port, **options) as server:
            yield Site(server, network, tokens)
    finally:
        port.close()
