"""Everything that writes to the file of the SQLite engine.

Plain functions that block: they are run in threads, those that write one at a time.

Every statement that runs while the server is busy does its work in one step. The module
`sqlite3` gives up the interpreter at each step, and a busy main thread gives it back only after
its time slice of 5 ms: a row at a time, a page of 200 messages could take a second.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, final

from triows.auth import Revocation
from triows.logs import MESSAGE_OVERHEAD

TRIMMED_MESSAGES: Final = 1000
"""Messages given up at a time at most, so that no publisher waits long."""

_TRIMMED_BYTES: Final = 4 * 1024 * 1024
_MOST_ROWS: Final = 256  # inserted by one statement; a power of two
_EXACT_ROWS: Final = 80  # up to so many by one statement whatever their number
_STATEMENTS: Final = 256  # that stay prepared: there are fewer
_BUSY_TIMEOUT: Final = 5.0  # seconds to wait for somebody else's lock: a backup, for example


class ChannelRow(NamedTuple):
    """What is stored of a channel as a whole; times in microseconds since 1970."""

    id: int
    name: str
    epoch: str
    head: int
    earliest: int
    ended: bytes | None
    opened_at: int
    touched_at: int
    bytes: int


MessageRow: TypeAlias = tuple[int, int, int, str | None, bytes | memoryview]
"""What is stored of a message: channel, offset, time, user and id, and what viewers get."""


class Bounds(NamedTuple):
    """What of a channel is kept, as numbers and points in time; 0 is no bound.

    Attributes:
        messages, bytes: at most so many.
        since: messages from then on, in microseconds since 1970.
        ids_since, ids_from: ids from that time and that offset on.
    """

    messages: int
    bytes: int
    since: int
    ids_since: int
    ids_from: int


class Trimmed(NamedTuple):
    """How a channel stands after some of it was given up.

    Attributes:
        earliest: offset of the oldest message that is left.
        freed: bytes given up.
        is_done: whether it is within its bounds.
    """

    earliest: int
    freed: int
    is_done: bool


@final
class Database:
    """A store that is open for writing, and locked against other processes."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            _BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def pragma(self, text: str) -> Any:
        """Ask or set something of SQLite itself."""
        return self._execute(f"PRAGMA {text}")[0]

    def is_empty(self) -> bool:
        """Whether it has no tables."""
        return not self._execute("SELECT count(*) FROM sqlite_master")[0]

    def make_tables(self, schema: str) -> None:
        """Make the tables of a new file."""
        self._connection.executescript(schema)

    def upgrade(self, changes: Sequence[str], version: int) -> None:
        """Make changes to the tables and write which version they have: all or nothing."""
        with self.transaction():
            for change in changes:
                self._execute(change)
            self._execute(f"PRAGMA user_version = {version}")

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        return int(self._execute("SELECT ifnull(max(id), 0) FROM channels")[0]) + 1

    def latest(self) -> int:
        """Return the latest time that is stored."""
        return int(self._execute("SELECT ifnull(max(touched_at), 0) FROM channels")[0])

    def commit(self, channels: Sequence[ChannelRow], messages: Sequence[MessageRow]) -> None:
        """Store messages in the journal, and channels that are new or have ended: all or nothing.

        On the disk when this returns.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        if not channels and len(messages) <= _EXACT_ROWS:
            self._insert(_APPEND, messages, "")  # one step: a transaction by itself
            return
        with self.transaction():
            self._insert(_UPSERT, channels, _UPDATE)
            self._insert(_APPEND, messages, "")

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation; on the disk when this returns.

        Raises:
            sqlite3.Error: it was not stored.
        """
        kind = "user" if revocation.token_id is None else "token"
        name = revocation.token_id if revocation.user is None else revocation.user
        assert name is not None
        with self.transaction():
            self._execute(
                "INSERT INTO revocations VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                *(kind, name.encode(*_ANY_TEXT), round(revocation.at * 1e6)),
            )

    def revocations(self) -> list[Revocation]:
        """Return all that are stored."""
        return [
            Revocation(
                token_id=name.decode(*_ANY_TEXT) if kind == "token" else None,
                user=name.decode(*_ANY_TEXT) if kind == "user" else None,
                at=at / 1e6,
            )
            for kind, name, at in self._connection.execute("SELECT * FROM revocations")
        ]

    def file_journal(self) -> None:
        """Put the messages of the journal where they belong.

        Raises:
            sqlite3.Error: they are where they were.
        """
        with self.transaction():
            for statement in _FILE:
                self._connection.execute(statement)

    def _insert(self, head: str, rows: Sequence[tuple[Any, ...]], tail: str) -> None:
        """Insert many rows in few steps: numbers of rows are small or powers of two, so that the
        statements are few too, and stay prepared.
        """
        at = 0
        while at < len(rows):
            count = len(rows) - at
            if count > _EXACT_ROWS:
                count = min(_MOST_ROWS, 1 << count.bit_length() - 1)
            values = list(chain.from_iterable(rows[at : at + count]))
            sql = head + _placeholders(count, len(values) // count) + tail
            self._connection.execute(sql, values)
            at += count

    def trim(self, channel: int, bounds: Bounds) -> Trimmed:
        """Give up some of what a channel's bounds do not cover, oldest first.

        Raises:
            sqlite3.Error: nothing was given up.
        """
        with self.transaction():
            head, earliest, size = self._execute(
                "SELECT head, earliest, bytes FROM channels WHERE id = ?", channel
            ) or (0, 1, 0)
            sizes, times = self._execute(
                "SELECT group_concat(size), group_concat(at) FROM"
                " (SELECT length(text) AS size, at FROM messages"
                " WHERE channel = ? ORDER BY offset LIMIT ?)",
                *(channel, TRIMMED_MESSAGES),
            )
            count, freed, is_done = _excess(
                bounds, head - earliest + 1, size, _numbers(sizes), _numbers(times)
            )
            last = earliest + count - 1
            if count:
                self._give_up(channel, last, bounds)
                self._execute(
                    "UPDATE channels SET earliest = ?, bytes = ? WHERE id = ?",
                    *(last + 1, size - freed, channel),
                )
            self._execute(
                "DELETE FROM ids WHERE channel = ? AND (at < ? OR offset < ?)",
                *(channel, bounds.ids_since, bounds.ids_from),
            )
        return Trimmed(last + 1, freed, is_done)

    def _give_up(self, channel: int, last: int, bounds: Bounds) -> None:
        """Give up the messages up to `last`, but not yet the ids that are still remembered."""
        self._execute(
            "INSERT INTO ids SELECT channel, offset, at, key FROM messages"
            " WHERE channel = ? AND offset <= ? AND key NOT NULL AND at >= ? AND offset >= ?",
            *(channel, last, bounds.ids_since, bounds.ids_from),
        )
        self._execute("DELETE FROM messages WHERE channel = ? AND offset <= ?", channel, last)

    def drop(self, channel: int) -> None:
        """Forget a channel altogether."""
        with self.transaction():
            for table in ("messages", "ids"):
                self._execute(f"DELETE FROM {table} WHERE channel = ?", channel)  # noqa: S608
            self._execute("DELETE FROM channels WHERE id = ?", channel)

    def _execute(self, sql: str, *values: object) -> Any:
        return self._connection.execute(sql, values).fetchone()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that is done in the body, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:  # some failures have rolled it back already
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = self._connect()

    def close(self) -> None:
        """Close the file and let others have it."""
        try:
            with suppress(sqlite3.Error):  # it is filed when the file is opened again
                self.file_journal()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        try:
            self._connection.close()
        finally:
            os.close(self._lock)


_ANY_TEXT: Final = ("utf-8", "surrogatepass")  # a token's JSON may have halves of characters
_APPEND: Final = "INSERT INTO journal VALUES "
_UPSERT: Final = "INSERT INTO channels VALUES "
_UPDATE: Final = " ON CONFLICT (id) DO UPDATE SET ended = excluded.ended"
_FILE: Final = (
    f"""
    UPDATE channels
    SET head = new.head, bytes = channels.bytes + new.bytes, touched_at = new.at
    FROM (
        SELECT channel, max(offset) AS head, max(at) AS at,
            sum(length(text)) + {MESSAGE_OVERHEAD} * count(*) AS bytes
        FROM journal GROUP BY channel
    ) AS new
    WHERE channels.id = new.channel
    """,  # noqa: S608 a number
    """
    INSERT INTO messages
    SELECT channel, offset, at, key, text FROM journal ORDER BY channel, offset
    """,
    "DELETE FROM journal",
)


@lru_cache(maxsize=_STATEMENTS)
def _placeholders(rows: int, columns: int) -> str:
    return ",".join(["(" + ",".join("?" * columns) + ")"] * rows)


def _numbers(joined: str | None) -> list[int]:
    return list(map(int, joined.split(","))) if joined else []


def _excess(
    bounds: Bounds, count: int, size: int, sizes: list[int], times: list[int]
) -> tuple[int, int, bool]:
    """Return how many of the oldest messages are out of bounds, their bytes, and whether
    nothing else is.
    """
    gone = freed = 0
    for length, at in zip(sizes, times, strict=True):
        newest = gone == count - 1  # which no size takes away
        if not (
            at < bounds.since
            or 0 < bounds.messages < count - gone
            or (0 < bounds.bytes < size - freed and not newest)
        ):
            return gone, freed, True
        if freed >= _TRIMMED_BYTES:
            return gone, freed, False
        gone += 1
        freed += length + MESSAGE_OVERHEAD
    return gone, freed, gone == count
