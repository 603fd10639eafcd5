"""Opens the file of the SQLite engine: locked, checked, its tables made if it is new."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from triows.bus.database import Database
from triows.errors import ConfigError

APPLICATION_ID: Final = 0x74726977  # "triw": says whose file it is
VERSION: Final = 2  # of the tables; a file of a higher one is let be
CHECKED_BYTES: Final = 256 * 1024 * 1024
"""A larger file is not read through at the start, only its list of channels is."""

_REVOCATIONS: Final = """
CREATE TABLE revocations (
    kind TEXT NOT NULL,
    name BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID
"""  # kind is `token` or `user`
_CHANGES: Final[dict[int, tuple[str, ...]]] = {2: (_REVOCATIONS,)}
"""What each version of the tables has changed: a file of an older one is brought up to date."""

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    head INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    ended BLOB,
    opened_at INTEGER NOT NULL,
    touched_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE messages (
    channel INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    key TEXT,
    text BLOB NOT NULL,
    PRIMARY KEY (channel, offset)
) WITHOUT ROWID;
CREATE TABLE journal (
    channel INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    key TEXT,
    text BLOB NOT NULL
);
CREATE TABLE ids (
    channel INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (channel, offset)
) WITHOUT ROWID;
{_REVOCATIONS};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""  # times are microseconds since 1970; `ids` has those whose messages are given up already


def open_database(path: Path) -> Database:
    """Open the store, making it if there is none, and check it.

    Raises:
        ConfigError: naming the file, what is wrong with it, and what to do.
    """
    lock = _lock(path)
    try:
        database = Database(path, lock)
    except sqlite3.Error as error:
        os.close(lock)
        raise _refusal(path, error) from error
    try:
        _prepare(database)
    except sqlite3.Error as error:
        database.abandon()
        raise _refusal(path, error) from error
    except BaseException:
        database.abandon()
        raise
    return database


def _prepare(database: Database) -> None:
    """Check whose file it is and that it is sound; make the tables of a new one."""
    path = database.path
    ours = database.pragma("application_id"), database.pragma("user_version")
    is_new = ours == (0, 0) and database.is_empty()
    if not is_new:
        _check_owner(path, *ours)
        small = path.stat().st_size <= CHECKED_BYTES
        found = database.pragma("quick_check(1)" if small else "quick_check(channels)")
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is corrupt: {found}")
    if database.pragma("journal_mode = WAL") != "wal":
        raise ConfigError(
            f"cannot open the store {path}: its file system has no shared memory; set store to a "
            "file on a local disk"
        )
    if is_new:
        database.make_tables(_SCHEMA)
    first = VERSION + 1 if is_new else ours[1] + 1
    changes = [change for v in range(first, VERSION + 1) for change in _CHANGES[v]]
    database.upgrade(changes, VERSION)  # a file that cannot be written is found out now, too
    database.file_journal()


def _lock(path: Path) -> int:
    """Lock the store against other processes; the lock dies with this one."""
    if path.is_dir():
        raise ConfigError(f"the store {path} is a directory; set store to a file in it")
    place = path.with_name(path.name + "-lock")
    try:
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot open the store {path}: {place}: {error.strerror}; its directory must be "
            "there, and writable for the server"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigError(
            f"the store {path} is in use by process {holder}; one server can have it at a time: "
            "stop that one, or set store to another file"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _check_owner(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise ConfigError(
            f"the store {path} is a database of another application; set store to another file"
        )
    if version > VERSION:
        raise ConfigError(
            f"the store {path} was written by a newer triows (version {version} of the tables, "
            f"this one knows {VERSION}); upgrade triows, or set store to another file"
        )


def _refusal(path: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"cannot open the store {path}: {error}; {_advice(error)}")


def _advice(error: sqlite3.Error) -> str:
    """Say what to do about a store that cannot be opened."""
    name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "restore it from a backup, try `sqlite3 … .recover`, or set store to another file"
    if name.startswith("SQLITE_FULL"):
        return "make room on its disk"
    return "the file and its directory must be readable and writable for the server"
