"""The open file of the SQLite engine, worked on in threads: one that writes, some that read."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from triows.auth import Revocation
from triows.bus.database import Database
from triows.bus.opening import open_database
from triows.bus.reading import Reader
from triows.errors import ConfigError, ErrorCode, RequestError

logger = logging.getLogger("triows.store")

READERS: Final = 4  # threads that read at the same time
RETRY_AFTER: Final = 1.0  # seconds after which those who were refused may try again
_T = TypeVar("_T")
in_thread = trio.to_thread.run_sync


@final
class Store:
    """The file while the server runs.

    Nothing here is torn apart by cancellation: what a thread has begun it finishes, and its
    result is returned.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: Database | None = None
        self._readers: list[Reader] = []
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(READERS)
        self._failures: dict[str, str] = {}  # by what failed: what the log was told last

    async def open(self) -> list[Revocation]:
        """Open the file and return the revocations that are in it.

        Raises:
            ConfigError: it cannot be opened, or not be used.
        """
        return await in_thread(self._open)

    def _open(self) -> list[Revocation]:
        self._database = open_database(self._path)
        try:
            self._readers = [Reader(self._path) for _ in range(READERS)]
            return self._database.revocations()
        except sqlite3.Error as error:
            raise ConfigError(f"cannot open the store {self._path} for reading: {error}") from error

    async def close(self) -> None:
        """Close it; not to be cancelled. Nobody reads or writes any more."""
        with trio.CancelScope(shield=True):
            await in_thread(self._close)

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()
        if self._database is not None:
            self._database.close()

    async def write(self, work: Callable[[Database], _T]) -> _T:
        """Have `work` done in a thread, after all that was begun before.

        Raises:
            RequestError: `unavailable`: it failed, and has changed nothing.
        """
        database = self._database
        assert database is not None
        try:
            result = await in_thread(work, database, limiter=self._writing)
        except (sqlite3.Error, OSError) as error:
            raise self.failure("written", error) from error
        self._worked("written")
        return result

    async def read(self, work: Callable[[Reader], _T]) -> _T:
        """Have `work` done in a thread, beside the one that writes.

        Raises:
            RequestError: `unavailable`: it failed.
        """

        def run() -> _T:
            reader = self._readers.pop()
            try:
                return work(reader)
            finally:
                self._readers.append(reader)

        try:
            result = await in_thread(run, limiter=self._reading)
        except (sqlite3.Error, OSError) as error:
            raise self.failure("read", error) from error
        self._worked("read")
        return result

    def failure(self, what: str, error: Exception) -> RequestError:
        """Return how a failure is told to clients; the log is told once, until it works again."""
        reason = f"the store cannot be {what}: {error}"
        if self._failures.get(what) != reason:
            self._failures[what] = reason
            logger.error("%s (%s); this is refused until it can be", reason, self._path)
        return RequestError(ErrorCode.UNAVAILABLE, reason, retry_after=RETRY_AFTER)

    def _worked(self, what: str) -> None:
        if self._failures.pop(what, None) is not None:
            logger.info("the store can be %s again", what)


@final
class WallClock:
    """Between the monotonic time of this process and that on disk: microseconds since 1970.

    Args:
        wall: returns the seconds since 1970.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    def stored(self, moment: float) -> int:
        """Return how a moment is stored."""
        return int((self._wall() - trio.current_time() + moment) * 1e6)

    def moment(self, stored: int) -> float:
        """Return the moment that was stored, now at the latest."""
        now = trio.current_time()
        return min(now, now - self._wall() + stored / 1e6)
