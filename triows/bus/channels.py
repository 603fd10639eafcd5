"""Which channels there are in Redis: an index of names, swept of those that are kept no more."""

from __future__ import annotations

import logging
from typing import Any, Final, final

import trio

from triows.bus import ChannelState
from triows.bus.keys import Keys
from triows.bus.links import Call, Links
from triows.bus.scripts import LIST, fit
from triows.errors import RequestError

logger = logging.getLogger("triows.redis")

SWEEP_INTERVAL: Final = 10.0
"""Seconds between two looks at a part of the index."""

_AT_ONCE: Final = 250  # names looked at by one script
_SPARE: Final = 8  # more names than are wanted of each part: some have more than others
_SWEPT: Final = 16  # parts of the index looked at at once
_ROW: Final = (str, str, int, int, bytes, int, int, int)


@final
class ChannelList:
    """The index of all channels.

    Args:
        link: the connection.
        keys: names.
    """

    def __init__(self, link: Links, keys: Keys) -> None:
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
            wanted = limit - len(found)
            last, states = await self._page(self._keys.indexes, prefix, last, wanted)
            found += states
        return found[:limit]

    async def run(self) -> None:
        """Look at a part of the index now and then, until cancelled: what is kept no more leaves
        it when it is looked at.
        """
        indexes, first, last = self._keys.indexes, 0, ""
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            try:
                some = indexes[first : first + _SWEPT]
                end, _ = await self._page(some, "", last, _AT_ONCE)
            except RequestError:
                continue  # the link has logged it
            last = end or ""
            if end is None:
                first = (first + _SWEPT) % len(indexes)

    async def _page(
        self, indexes: tuple[bytes, ...], prefix: str, after: str, wanted: int
    ) -> tuple[str | None, list[ChannelState]]:
        """Return the name to go on after, None at the end, and what there is up to it: some more
        than wanted, or less.
        """
        lowest = f"({after}" if after >= prefix and after else f"[{prefix}" if prefix else "-"
        highest = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
        count = min(_AT_ONCE, wanted // len(indexes) + _SPARE)
        replies = await self._link.run_scripts(
            [
                Call(LIST, (index,), (*self._keys.around(index), lowest.encode(), highest, count))
                for index in indexes
            ]
        )
        lasts: list[str] = []
        states: list[ChannelState] = []
        for reply in replies:
            if isinstance(reply, RequestError):
                raise reply
            lasts += filter(None, reply[:1])
            states += filter(None, map(_try_state, reply[1]))
        # Up to where the first of them stopped nothing is missing.
        end = min(lasts, default=None)
        complete = [state for state in states if end is None or state.channel <= end]
        return end, sorted(complete, key=lambda state: state.channel)


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
