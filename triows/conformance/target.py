"""The server that is checked: its address, and connections to it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from triows.conformance.matcher import Mismatch
from triows.conformance.raw import Socket, request_head
from triows.conformance.talk import PATIENCE, Journal, Talk
from triows.errors import ConfigError

_TLS: Final = {"ws": False, "wss": True}


@attrs.define
class Target:
    """A server at an address.

    Attributes:
        patience: seconds it has for each answer.
        journal: what it has said.
    """

    host: str
    port: int
    path: str
    tls: bool
    patience: float = PATIENCE
    journal: Journal = attrs.field(factory=Journal)

    @classmethod
    def parse(cls, url: str, patience: float = PATIENCE) -> Target:
        """Read an address, `ws://host:port/ws` or `wss://…`.

        Raises:
            ConfigError: it is none.
        """
        try:
            parts = urlsplit(url)
            tls, port = _TLS[parts.scheme], parts.port
        except (KeyError, ValueError):
            raise ConfigError(f"{url!r} is no address: expected ws://host:port/ws") from None
        if not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
            raise ConfigError(f"{url!r} is no address: expected ws://host:port/ws")
        path = parts.path if parts.path not in ("", "/") else "/ws"
        return cls(parts.hostname, port or (443 if tls else 80), path, tls, patience)

    async def connect(self) -> Socket:
        """Open a connection: TCP, and TLS that is checked against the system's certificates.

        Raises:
            Mismatch: nobody answers, or not in time.
        """
        try:
            with trio.fail_after(self.patience):
                if not self.tls:
                    return Socket(await trio.open_tcp_stream(self.host, self.port))
                stream = await trio.open_ssl_over_tcp_stream(
                    self.host,
                    self.port,
                    ssl_context=ssl.create_default_context(),
                    https_compatible=True,
                )
                await stream.do_handshake()
                return Socket(stream)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            reason = error.__cause__ or error
            raise Mismatch(f"no connection to {self.host}:{self.port}: {reason!r}") from None

    async def open(
        self, token: str | None, headers: Mapping[str, str] | None = None, path: str = "/ws"
    ) -> tuple[Talk, int, dict[str, str], Any]:
        """Open a WebSocket; return it with the answer: status, headers, body.

        Args:
            token: for the header `Authorization`, unless `headers` says otherwise.
            headers: over the usual ones; '' takes one away.
            path: that of the address stands for `/ws` at its beginning.

        Raises:
            Mismatch: nobody answers, or not in time.
        """
        socket = await self.connect()
        here = self.path + path[3:] if path.startswith("/ws") else path
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = request_head(token, path=here, headers=headers, host=f"{host}:{self.port}")
        answered = False
        try:
            with trio.fail_after(self.patience):
                await socket.send(head)
                status, answer, body = await socket.response()
            answered = True
        except trio.TooSlowError:
            raise Mismatch(f"no answer to an opening within {self.patience:g} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Mismatch("the server has hung up during an opening") from None
        finally:
            if not answered:
                await trio.aclose_forcefully(socket.stream)  # noqa: ASYNC102 it does not wait
        return Talk(socket, self.journal, self.patience), status, answer, body
