"""How the channels of the SQLite engine stand: what the file says, and what memory knows better."""

from __future__ import annotations

from typing import Final

import trio

from triows.bus import ChannelState
from triows.bus.store import Store
from triows.bus.tail import Shelf, Tail

_AT_ONCE: Final = 1000  # logs looked at before others get a turn


async def list_channels(
    store: Store, shelf: Shelf[Tail], prefix: str, after: str, limit: int
) -> list[ChannelState]:
    """Return how channels stand, by name, without loading any; see `Bus.channels`.

    Raises:
        RequestError: `unavailable`, it cannot be read now.
    """
    # A log may be filed and leave memory while the file is read: what it was then counts.
    logs = await _in_memory(shelf, prefix, after)
    stored = await store.read(lambda reader: reader.channels(prefix, after, limit))
    found = {state.channel: state for state in stored}
    last = stored[-1].channel if len(stored) == limit else None
    for name in {*found, *logs}:
        log = shelf.get(name) or logs.get(name)
        if log is not None and (log.head or log.watchers) and (last is None or name <= last):
            found[name] = ChannelState.of(log)
    return [found[name] for name in sorted(found)[:limit]]


async def _in_memory(shelf: Shelf[Tail], prefix: str, after: str) -> dict[str, Tail]:
    found: dict[str, Tail] = {}
    for number, log in enumerate(list(shelf), 1):
        if not number % _AT_ONCE:
            await trio.lowlevel.checkpoint()
        if log.channel > after and log.channel.startswith(prefix):
            found[log.channel] = log
    return found
