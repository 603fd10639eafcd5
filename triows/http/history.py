"""What channels hold: pages of their logs."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import trio
from starlette.responses import Response

from triows.errors import ErrorCode, RequestError
from triows.http.answers import answer, empty
from triows.http.call import Call
from triows.http.channels import outline
from triows.http.cursors import start, write_cursor
from triows.http.head import PeerGone
from triows.http.static import has_etag
from triows.http.waiter import Waiter
from triows.logs import Log

PAGE_BYTES: Final = 1024 * 1024  # of messages in one answer
_PAGE: Final = 100  # messages in one answer, unless more are asked for


async def history(call: Call) -> Response:
    """Answer with a page of a log; with `wait`, once there is something after `since`."""
    query = call.query
    if "wait" in query and ("since" not in query or "before" in query):
        raise RequestError(
            ErrorCode.BAD_REQUEST, "`wait` needs `since`, and does not go with `before`"
        )
    log = await call.log(query.get("since"))
    cursor, gap = start(log, query.get("since"), query.get("tail"))
    if query.get("wait") and gap is None:
        await _wait(call, log, cursor, query["wait"])
        cursor, gap = start(log, query["since"])
    if "since" in query:
        first, texts = await _following(call, log, cursor)
    else:
        first, texts = await _newest(call, log)
    call.check_again()
    if gap is not None:
        call.rooms.services.hub.gaps += 1
    position = write_cursor(log, first - 1 + len(texts))
    headers = {"ETag": f'"{position}"', "Cache-Control": "private, no-cache"}
    if gap is None and has_etag(call.head, headers["ETag"]):
        return empty(304, headers)
    messages = [msgspec.Raw(text) for text in texts]
    found = {**outline(log), "messages": messages, "cursor": position, "gap": gap}
    return answer(found, headers=headers)


async def _following(call: Call, log: Log, cursor: int) -> tuple[int, list[bytes]]:
    """Return what follows a cursor, and the offset of the first."""
    last = min(log.head, cursor + call.query.get("limit", _PAGE))
    last = min(last, call.query.get("before", last + 1) - 1)
    texts = await call.rooms.services.bus.history(log, cursor + 1, last, PAGE_BYTES)
    return cursor + 1, texts


async def _newest(call: Call, log: Log) -> tuple[int, list[bytes]]:
    """Return the newest messages, or those before an offset, and the offset of the first."""
    query, bus = call.query, call.rooms.services.bus
    count = min(query.get("tail", 1000), query.get("limit", query.get("tail", _PAGE)))
    end = min(log.head, query.get("before", log.head + 1) - 1)
    following = max(end - count + 1, log.earliest)
    texts: list[bytes] = []
    size = 0
    while following <= end:
        piece = await bus.history(log, following, end, PAGE_BYTES)
        if not piece:
            break
        following += len(piece)
        texts += piece
        size += sum(map(len, piece))
        while size > PAGE_BYTES and len(texts) > 1:
            size -= len(texts.pop(0))
    return following - len(texts), texts


async def _wait(call: Call, log: Log, cursor: int, seconds: float) -> None:
    """Wait until something follows `cursor` or nothing ever will, but not for too long.

    Raises:
        PeerGone: nobody waits any more.
    """
    waiter, exchange, hub = Waiter(call.user), call.exchange, call.rooms.services.hub
    seconds = min(seconds, call.user.expires_at - time.time())
    subscription = hub.subscribe(waiter, log, cursor)
    exchange.identity, exchange.interrupt = call.identity, waiter.wake

    def is_over() -> bool:
        hopeless = log.ended is not None or waiter.gone or exchange.refused is not None
        leaving = exchange.ended.is_set() or call.rooms.administration.registry.draining
        return subscription.lag > 0 or hopeless or leaving

    try:
        with trio.move_on_after(max(0, seconds)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.watch_peer, call.receive)
                while not is_over():
                    await waiter.wait()
                nursery.cancel_scope.cancel(reason="nobody waits any more")
    finally:
        exchange.identity = exchange.interrupt = None
        hub.unsubscribe(subscription)
    if waiter.gone:
        raise PeerGone
