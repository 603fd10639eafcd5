"""The HTTP API of a server, for the commands that ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx2

import triows

_TIMEOUT: Final = 10  # seconds for each request


@asynccontextmanager
async def open_api(url: str, token: str) -> AsyncIterator[Api]:
    """Open a server's API, to be asked with one token.

    Args:
        url: address of the server, as for WebSockets (`ws://host:8080/ws`) or of its page.
        token: an administrator's.
    """
    address = _http_address(url)
    async with httpx2.AsyncClient(
        base_url=address,
        headers={"Authorization": f"Bearer {token}"},
        timeout=_TIMEOUT,
        trust_env=False,  # a proxy of the environment is for pages, not for this
    ) as client:
        yield Api(address, client)


class Api:
    """A server's API, see `open_api`."""

    def __init__(self, address: str, client: httpx2.AsyncClient) -> None:
        self._address = address
        self._client = client

    async def get(self, path: str, **query: str | int) -> Any:
        """Return what is at `path`.

        Raises:
            TriowsError: the server is out of reach, or refuses, and why.
        """
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: object = None) -> Any:
        """Have something done; answers and errors as of `get`."""
        return await self._ask("POST", path, json={} if body is None else body)

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self._client.request(method, path, **options)
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise triows.TriowsError(f"no answer from {self._address}: {reason}") from None
        try:
            answer = response.json() if response.content else None
        except ValueError:
            answer = None
        if response.is_success:
            return answer
        raise triows.TriowsError(f"{self._address}{path}: {_reason(response, answer)}")


def _http_address(url: str) -> str:
    """Return where the API is, given where the WebSocket is."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.netloc or " " in url:
        expected = "expected ws://host:port/ws, of one server"
        raise triows.ConfigError(f"--url {url!r} is no address: {expected}")
    path = parts.path.removesuffix("/").removesuffix("/ws")
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def _reason(response: httpx2.Response, answer: Any) -> str:
    try:
        return f"{response.status_code}: {answer['data']['message']}"
    except (TypeError, KeyError):
        return f"answered {response.status_code} {response.reason_phrase}"
