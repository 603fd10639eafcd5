"""Which channels there are in Redis: an index of names, swept of those that are kept no more."""

from __future__ import annotations

import logging
from typing import Any, Final, final

import trio

from triows.bus import ChannelState
from triows.bus.keys import Keys
from triows.bus.link import Call, Link
from triows.bus.scripts import LIST, fit
from triows.errors import RequestError

logger = logging.getLogger("triows.redis")

SWEEP_INTERVAL: Final = 10.0
"""Seconds between two looks at a part of the index."""

_AT_ONCE: Final = 250  # names looked at by one script
_ROW: Final = (str, str, int, int, bytes, int, int, int)


@final
class ChannelList:
    """The index of all channels.

    Args:
        link: the connection.
        keys: names.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def read(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how channels stand, by name; see `Bus.channels`.

        Raises:
            RequestError: `unavailable`.
        """
        found: list[ChannelState] = []
        last: str | None = after
        while last is not None and len(found) < limit:
            last, rows = await self._page(prefix, last, min(_AT_ONCE, limit - len(found)))
            found += filter(None, map(_try_state, rows))
        return found

    async def run(self) -> None:
        """Look at a part of the index now and then, until cancelled: what is kept no more leaves
        it when it is looked at.
        """
        last: str | None = None
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            try:
                last, _ = await self._page("", last or "", _AT_ONCE)
            except RequestError:
                pass  # the link has logged it

    async def _page(self, prefix: str, after: str, count: int) -> tuple[str | None, list[Any]]:
        """Return the name to go on after, None at the end, and what there is up to it."""
        lowest = f"({after}" if after >= prefix and after else f"[{prefix}" if prefix else "-"
        highest = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
        values = (self._keys.prefix.encode(), lowest.encode(), highest, count)
        (reply,) = await self._link.run_scripts([Call(LIST, (self._keys.index,), values)])
        if isinstance(reply, RequestError):
            raise reply
        last, rows = reply
        return last or None, rows


def _try_state(row: list[Any]) -> ChannelState | None:
    """Read how a channel stands; None, and a line in the log, if that is not understood."""
    try:
        values = fit(_ROW, row)
    except ValueError as error:
        logger.warning("a channel in Redis is damaged, and left out: %s", error)
        return None
    name, epoch, head, earliest, ended, size, opened, latest = values
    return ChannelState(
        channel=name,
        epoch=epoch,
        head=head,
        earliest=earliest,
        ended=ended or None,
        bytes=size,
        opened_at=opened / 1e6,
        touched_at=latest / 1e6,
    )
