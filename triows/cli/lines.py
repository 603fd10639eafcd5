"""Lines on their way from a source to the server, as many at a time as are waiting."""

from __future__ import annotations

from typing import Final, TypeVar

import trio

T = TypeVar("T")

BATCH: Final = 64  # lines published at once
WAITING: Final = 10_000  # lines that may wait for the server; then their source has to


async def take(receive: trio.MemoryReceiveChannel[T]) -> list[T]:
    """Wait for one item and return it with all that wait behind it, at most `BATCH`.

    Raises:
        trio.EndOfChannel: there will be none.
    """
    items = [await receive.receive()]
    while len(items) < BATCH:
        try:
            items.append(receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return items
