"""hypercorn, as far as it is used: it frames requests and answers of HTTP/1.1 for an ASGI app.

The only file that knows hypercorn. Its class for one accepted stream is not documented, so the
version is pinned, and these are the things it is kept from: HTTP/2 and its upgrade, WebSockets
(no head of a peer reaches it, see `exchange`), deadlines of its own (the exchange has them), and
sends that cannot be cancelled (the exchange breaks them off).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from triows.http.exchange import PIECE, Exchange

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = Callable[[Receive, Send], Awaitable[None]]
"""Answers one request, in the words of ASGI."""

_SPARE: Final = 16  # places in the queue of a request's pieces, beside those of its body


def configure(max_body: int) -> Config:
    """Return the configuration for bodies of at most `max_body` bytes."""
    config = Config()
    config.include_server_header = False
    config.keep_alive_timeout = math.inf
    config.keep_alive_max_requests = 2**63
    # Never full: its reader would wait for ever for an app that has ended.
    config.max_app_queue_size = 2 * max_body // PIECE + _SPARE
    config.errorlog = logging.getLogger("triows.http")
    return config


class _Ended:
    """hypercorn's sign to let a connection end: set by the exchange."""

    def __init__(self, event: trio.Event) -> None:
        self._event = event

    async def wait(self) -> None:
        await self._event.wait()

    async def set(self) -> None:
        self._event.set()

    async def clear(self) -> None:
        raise NotImplementedError

    def is_set(self) -> bool:
        return self._event.is_set()


async def serve(exchange: Exchange, config: Config, answer: Answer) -> None:
    """Serve all requests of one connection; its transport is left open.

    Cancelled, whatever is under way is broken off.
    """
    served = False

    async def app(scope: Any, receive: Receive, send: Send, *_: Any) -> None:
        nonlocal served
        try:
            await answer(receive, send)
        finally:
            if exchange.lost or exchange.is_closed:
                # hypercorn would wait for ever to read a request that has come already.
                served = True
                nursery.cancel_scope.cancel(reason="no further request will be answered")

    context = WorkerContext(None)
    context.terminated = _Ended(exchange.ended)

    async def abort_when_cancelled() -> None:
        """End a send that is shielded."""
        try:
            await trio.sleep_forever()
        finally:
            if not served:
                exchange.break_off()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_when_cancelled)
        server = TCPServer(app, config, context, {}, exchange)  # type: ignore[arg-type]
        await server.run()
        served = True
        nursery.cancel_scope.cancel(reason="all requests were answered")
