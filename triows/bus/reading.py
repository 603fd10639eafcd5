"""What is read from the file of the SQLite engine; each function one step or two."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, final

import msgspec

from triows.bus import ChannelState
from triows.bus.database import Bounds, ChannelRow
from triows.logs import MAX_IDS

_MOST_MESSAGES: Final = 1000  # looked at for one page
_CHANNELS: Final = 256  # looked at in one look for what is out of bounds


class Stored(NamedTuple):
    """What is stored of a channel.

    Attributes:
        row: the channel as a whole.
        ids: offset, time and key of each id that is remembered, oldest first.
    """

    row: ChannelRow
    ids: list[tuple[int, int, str]]


class Overdue(NamedTuple):
    """Channels that are out of bounds, of some that were looked at.

    Attributes:
        names: theirs.
        last: number of the last channel that was looked at; None if there are no more.
    """

    names: list[str]
    last: int | None


@final
class Reader:
    """One connection for reading: sees what was committed, and waits for no writer."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def load(self, channel: str, since: int) -> Stored | None:
        """Return what is stored of a channel, with the ids given since then; None if nothing."""
        found = self._one("SELECT * FROM channels WHERE name = ?", channel)
        if found is None:
            return None
        row = ChannelRow(*found)
        return Stored(row, self._ids(row, since))

    def _ids(self, row: ChannelRow, since: int) -> list[tuple[int, int, str]]:
        """Times go up with the offsets, so where the window begins is searched for by halving."""
        first = bisect_left(
            range(row.earliest, row.head + 1), since, key=lambda offset: self._time(row.id, offset)
        )
        offsets, times, keys = self._one(
            "SELECT group_concat(offset), group_concat(at), json_group_array(key) FROM"
            " (SELECT offset, at, key FROM ids WHERE channel = ?1 AND at >= ?2"
            " UNION ALL SELECT offset, at, key FROM messages"
            " WHERE channel = ?1 AND offset >= ?3 AND key NOT NULL"
            " ORDER BY offset DESC LIMIT ?4)",
            *(row.id, since, row.earliest + first, MAX_IDS),
        )
        if offsets is None:
            return []
        decoded = msgspec.json.decode(keys, type=list[str])
        both = zip(map(int, offsets.split(",")), map(int, times.split(",")), strict=True)
        # With a longer window than before, or the clock set back, one may be there twice.
        newest: dict[str, tuple[int, int]] = {}
        for place, key in zip(both, decoded, strict=True):
            newest.setdefault(key, place)
        return [(offset, at, key) for key, (offset, at) in reversed(newest.items())]

    def _time(self, channel: int, offset: int) -> int:
        found = self._one(
            "SELECT at FROM messages WHERE channel = ? AND offset = ?", channel, offset
        )
        return found[0] if found else 0

    def page(self, channel: int, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the texts from `first` to `last`, in order and without a hole.

        Stops before `max_bytes` are passed, but returns at least one if there is one; nothing
        if the first is not stored any more.
        """
        sizes = self._one(
            "SELECT group_concat(size) FROM (SELECT length(text) AS size FROM messages"
            " WHERE channel = ? AND offset BETWEEN ? AND ? ORDER BY offset)",
            *(channel, first, min(last, first + _MOST_MESSAGES - 1)),
        )[0]
        if sizes is None:
            return []
        ends = list(accumulate(map(int, sizes.split(","))))
        count = max(1, bisect_left(ends, max_bytes + 1))
        stop = first + count - 1
        least, most, joined = self._one(
            "SELECT min(offset), max(offset), CAST(group_concat(text, '') AS BLOB) FROM"
            " (SELECT offset, text FROM messages"
            " WHERE channel = ? AND offset BETWEEN ? AND ? ORDER BY offset)",
            *(channel, first, stop),
        )
        if (least, most) != (first, stop) or len(joined) != ends[count - 1]:
            return []  # the oldest were given up between the two looks
        return [joined[at:end] for at, end in pairwise([0, *ends[:count]])]

    def earliest(self, channel: int) -> int | None:
        """Return the offset of the oldest message that is stored; None if the channel is not."""
        found = self._one("SELECT earliest FROM channels WHERE id = ?", channel)
        return None if found is None else int(found[0])

    def channels(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how the channels stand that are stored, by name, without what is not filed yet."""
        found = self._one(
            _CHANNELS_BY_NAME,
            max(prefix, after + "\0"),  # the first name that is wanted, if there is one of it
            prefix + "\x7f",  # names have characters below that one only
            limit,
        )[0]
        rows = msgspec.json.decode(found, type=list[_Row])
        return [
            ChannelState(
                name, epoch, head, earliest, None if ended is None else ended.encode(), size,
                opened / 1e6, touched / 1e6,
            )
            for name, epoch, head, earliest, ended, size, opened, touched in rows
        ]  # fmt: skip

    def overdue(self, after: int, bounds: Bounds, dead: int) -> Overdue:
        """Look through the next channels after number `after` for what is out of bounds.

        Args:
            after: 0 begins.
            bounds: what is kept.
            dead: an empty channel that was touched before then is out of bounds altogether.
        """
        last = self._one(
            "SELECT max(id) FROM (SELECT id FROM channels WHERE id > ? ORDER BY id LIMIT ?)",
            *(after, _CHANNELS),
        )[0]
        if last is None:
            return Overdue([], None)
        names = self._one(_OVERDUE, after, last, *bounds[:4], dead)[0]
        return Overdue(msgspec.json.decode(names, type=list[str]), last)

    def _one(self, sql: str, *values: object) -> Any:
        return self._connection.execute(sql, values).fetchone()


_Row: TypeAlias = tuple[str, str, int, int, str | None, int, int, int]
_CHANNELS_BY_NAME: Final = """
SELECT json_group_array(json_array(
    name, epoch, head, earliest, CAST(ended AS TEXT), bytes, opened_at, touched_at
)) FROM (SELECT * FROM channels WHERE name >= ? AND name < ? ORDER BY name LIMIT ?)
"""
_OVERDUE: Final = """
SELECT json_group_array(name) FROM channels AS c WHERE id > ?1 AND id <= ?2 AND (
    (?3 > 0 AND head - earliest + 1 > ?3)
    OR (?4 > 0 AND bytes > ?4 AND earliest < head)
    OR (?5 > 0 AND (SELECT at FROM messages WHERE channel = c.id ORDER BY offset LIMIT 1) < ?5)
    OR (SELECT at FROM ids WHERE channel = c.id ORDER BY offset LIMIT 1) < ?6
    OR (?7 > 0 AND earliest > head AND touched_at < ?7)
)
"""
