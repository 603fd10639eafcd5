"""The engine on SQLite: an acknowledged message is on the disk, and so is its id.

One task writes. It takes all that has gathered, gives each message its place, stores them with
one fsync, and only then keeps them in memory, tells the hub and acknowledges; meanwhile the next
ones gather. What is stored goes to a journal first, in the order of arrival: a message costs its
bytes then and not a page of its own, however many channels there are. Now and then the journal
is filed under its channels. What is not filed yet stays in memory: readers never look there.

Every change to a channel is made while its log is in memory and pinned there: so what was loaded
cannot be out of date.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import trio

from triows.auth import Revocation
from triows.bus import Bus, ChannelState, Done, Tell, Told
from triows.bus.database import Database
from triows.bus.listing import list_channels
from triows.bus.loader import Loader
from triows.bus.retention import Retention
from triows.bus.staging import Draft, Staged, Submitted, stage_all
from triows.bus.store import RETRY_AFTER, Store, WallClock
from triows.bus.tail import Shelf, Tail
from triows.config import LogLimits
from triows.errors import ConfigError, ErrorCode, RequestError
from triows.frames import encode_frame, frame_payload
from triows.logs import Log, Slice
from triows.messages import Message, Outcome, Position, Receipt

QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait for the disk, each message counted with `QUEUED_OVERHEAD` as well."""

QUEUED_OVERHEAD: Final = 512
BATCH_MESSAGES: Final = 2048
"""Messages stored at once at most."""

FILED_MESSAGES: Final = 2048
"""Messages after which the journal is filed."""

UNFILED_MESSAGES: Final = 16 * FILED_MESSAGES
"""Messages in the journal, and so in memory, at most: more are refused while it is not filed."""

_BATCH_BYTES: Final = 4 * 1024 * 1024
_TOLD_AT_ONCE: Final = 256  # messages concluded before others get a turn


@final
class SQLiteBus(Bus):
    """Keeps every log in a file, and the ends of those in use in memory.

    Args:
        path: of the file.
        limits: what is kept, and how much of it in memory.
        tell: told of each log that has grown.
        told: told, at the start, of each revocation in the file.
        clock: tells the time on disk.
    """

    def __init__(
        self,
        path: Path,
        limits: LogLimits,
        tell: Tell,
        told: Told,
        clock: WallClock | None = None,
    ) -> None:
        self._path = path
        self._clock = clock or WallClock()
        self._store = Store(path)
        self._shelf: Shelf[Tail] = Shelf(limits.total_bytes)
        self._loader = Loader(self._store, self._shelf, limits, self._clock)
        self._retention = Retention(limits, self._store, self._shelf, self._loader, self._clock)
        self._tell = tell
        self._told = told
        self._queue: deque[Submitted] = deque()
        self._queued = 0  # bytes, those being stored included
        self._unfiled: dict[Tail, None] = {}  # logs that have messages in the journal
        self._journal = 0  # messages in it
        self._latest = 0  # time on disk; never goes back
        self._lot = trio.lowlevel.ParkingLot()  # the engine's task, when there is nothing to do
        self._settled = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            ConfigError: naming the file, what is wrong with it, and what to do.
        """
        try:
            revocations = await self._store.open()
            self._loader.next_number, self._latest = await self._store.write(
                lambda database: (database.next_channel(), database.latest())
            )
        except RequestError as error:
            await self._store.close()  # noqa: ASYNC120 as below
            raise ConfigError(
                f"cannot open the store {self._path}: {error.message}; see to its disk"
            ) from error
        except BaseException:
            await self._store.close()  # noqa: ASYNC102 it is shielded; a thread has no timeout
            raise
        for revocation in revocations:
            self._told(revocation)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file; not to be cancelled."""
        await self._store.close()  # noqa: ASYNC102 as above

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes the logs in memory are counted with."""
        return self._shelf.size

    def submit(self, channel: str, message: Message, user: str, now: float, done: Done) -> None:
        """Have `message` stored; `done` is told when it is, or at once if too much waits."""
        size = len(message.raw) + QUEUED_OVERHEAD
        if self._queued + size > QUEUE_BYTES:
            reason = (
                f"the disk does not keep up: {self._queued} bytes wait, the limit is {QUEUE_BYTES}"
            )
            done(message, RequestError(ErrorCode.UNAVAILABLE, reason, retry_after=RETRY_AFTER))
            return
        self._queued += size
        if not self._queue:
            self._lot.unpark()
        self._queue.append(Submitted(channel, message, user, done, size))

    async def open(self, channel: str, since: Position | None = None) -> Log:
        """Return the channel's log; waits for the disk if it is not in memory.

        Raises:
            RequestError: `unavailable`, it cannot be read.
        """
        failed = await self._loader.bring([channel])
        if failed:
            raise failed[channel]
        log = self._shelf.get(channel)
        assert log is not None
        return log

    async def find(self, channel: str, since: Position | None = None) -> Log | None:
        """Return the channel's log, if something was published to it or somebody watches it.

        Raises:
            RequestError: `unavailable`, it cannot be read.
        """
        log = await self.open(channel)
        return log if log.head or log.watchers else None

    async def history(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the texts from `first` to `last`; waits for the disk for what memory lacks."""
        assert isinstance(log, Tail)
        if first >= log.held:
            return log.read(first, last, max_bytes)
        texts = await self._read(log, first, last, max_bytes)
        following = first + len(texts)
        if texts and log.held <= following <= last:
            room = max_bytes - sum(map(len, texts))
            more = log.read(following, last, room)
            texts += more if more and len(more[0]) <= room else []
        return texts

    async def fetch(self, log: Log, cursor: int, max_bytes: int) -> Slice:
        """Return what follows `cursor`; waits for the disk for what memory lacks."""
        assert isinstance(log, Tail)
        if cursor + 1 >= log.held:
            return log.slice(cursor, max_bytes)
        texts = await self._read(log, cursor + 1, log.filed, max_bytes)
        if not texts:
            raise _unreadable(log, cursor + 1)
        return Slice(b"".join(map(encode_frame, texts)), cursor + len(texts))

    async def _read(self, log: Tail, first: int, last: int, max_bytes: int) -> list[bytes]:
        number, stop = log.number, min(last, log.filed)
        texts = await self._store.read(lambda reader: reader.page(number, first, stop, max_bytes))
        if not texts and log.earliest <= first <= stop:
            # Given up just now, perhaps, and the log is still to be told.
            earliest = await self._store.read(lambda reader: reader.earliest(number))
            if earliest is None:  # all of it, and the channel forgotten
                earliest = log.head + 1
            if earliest <= first:
                raise _unreadable(log, first)
            log.move_earliest(earliest)
        return texts

    def logs(self) -> Iterable[Log]:
        """Return the logs in memory, quiet for longest first."""
        return self._shelf

    async def channels(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how the channels stand, by name; waits for the disk."""
        return await list_channels(self._store, self._shelf, prefix, after, limit)

    async def revoke(self, revocation: Revocation) -> None:
        """Have a revocation stored; on the disk when this returns. Begun, it is finished."""
        with trio.CancelScope(shield=True):
            await self._store.write(partial(Database.revoke, revocation=revocation))

    async def run(self) -> None:
        """Store what is submitted, and give up what the limits do not cover, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retention.run, self._lot.unpark)
            while True:
                if not self._queue and not self._retention.overdue:
                    await self._lot.park()
                await trio.lowlevel.checkpoint()  # all that are ready now get into the batch
                if self._queue:
                    await self._publish(self._take())
                if self._journal >= FILED_MESSAGES:
                    await self._file()
                if self._retention.overdue:
                    await self._retention.step()

    async def settle(self) -> None:
        """Return when everything submitted before has been answered; needs `run`."""
        while self._queued:
            await self._settled.park()

    def _take(self) -> list[Submitted]:
        """Take the next batch off the queue."""
        batch: list[Submitted] = []
        room = _BATCH_BYTES
        while self._queue and len(batch) < BATCH_MESSAGES and room > 0:
            batch.append(self._queue.popleft())
            room -= batch[-1].size
        return batch

    async def _publish(self, batch: list[Submitted]) -> None:
        """Store a batch and answer for it; only the former can be cancelled, before it began."""
        self._shelf.pinned = {submitted.channel for submitted in batch}
        try:
            failed = await self._loader.bring(self._shelf.pinned)
            now = trio.current_time()
            outcomes = stage_all(self._shelf, batch, failed, now)
            failure = await self._store_drafts([o for o in outcomes if isinstance(o, Draft)], now)
            await self._conclude(batch, outcomes, failure, now)
        finally:
            self._shelf.unpin()
            self._queued -= sum(submitted.size for submitted in batch)
            if not self._queued:
                self._settled.unpark_all()

    async def _store_drafts(self, drafts: list[Draft], now: float) -> RequestError | None:
        """Store messages; return why not."""
        if not drafts:
            return None
        if self._journal >= UNFILED_MESSAGES:
            reason = f"the store's journal has {self._journal} messages and cannot be filed"
            return RequestError(ErrorCode.UNAVAILABLE, reason, retry_after=RETRY_AFTER)
        self._latest = at = max(self._latest, self._clock.stored(now))
        channels = {d.log: d.channel_row(at) for d in drafts if not d.log.is_known or d.is_end}
        rows = [(d.log.number, d.offset, at, d.key, frame_payload(d.frame)) for d in drafts]
        try:
            await self._store.write(
                partial(Database.commit, channels=list(channels.values()), messages=rows)
            )
        except RequestError as error:
            return error
        for log in channels:
            log.is_known = True
        return None

    async def _conclude(
        self,
        batch: list[Submitted],
        outcomes: list[Staged],
        failure: RequestError | None,
        now: float,
    ) -> None:
        """Keep what was stored, tell of it and answer, in the order of submission."""
        for number, (submitted, outcome) in enumerate(zip(batch, outcomes, strict=True), 1):
            if isinstance(outcome, Draft):
                submitted.done(submitted.message, failure or self._keep(outcome, now))
            elif failure is not None and self._hung_on_it(submitted.channel, outcome):
                submitted.done(submitted.message, failure)
            else:
                submitted.done(submitted.message, outcome)
            if not number % _TOLD_AT_ONCE:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _hung_on_it(self, channel: str, outcome: Outcome) -> bool:
        """Whether an answer follows from a message of the batch, which could not be stored."""
        log = self._shelf.get(channel)
        if isinstance(outcome, Receipt):
            return log is not None and outcome.offset > log.head
        return outcome.code is ErrorCode.ENDED and log is not None and log.ended is None

    def _keep(self, draft: Draft, now: float) -> Receipt:
        log = draft.log
        log.keep(draft.message, draft.key, draft.frame, now)
        self._unfiled[log] = None
        self._journal += 1
        self.published += 1
        self._shelf.touch(log)
        self._tell(log, 1)
        return Receipt(log.epoch, draft.offset)

    async def _file(self) -> None:
        """File the journal; what is filed may leave memory."""
        try:
            await self._store.write(Database.file_journal)
        except RequestError:
            return  # the log has been told; it is tried again after the next batch
        self._journal = 0
        logs, self._unfiled = self._unfiled, {}
        for log in logs:
            log.filed = log.head
            log.trim(trio.current_time())
            self._shelf.count(log)
            self._retention.check(log)


def _unreadable(log: Log, offset: int) -> RequestError:
    return RequestError(ErrorCode.UNAVAILABLE, f"{log.channel}: offset {offset} cannot be read")
