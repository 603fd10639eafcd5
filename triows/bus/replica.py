"""What a node has of a log that is kept in Redis: its end, as far as it was told."""

from __future__ import annotations

from array import array
from typing import Final, final

import trio

from triows.bus.envelope import Entry, News
from triows.bus.tail import Shelved
from triows.codec import published_head
from triows.config import LogLimits
from triows.errors import RequestError
from triows.logs import MESSAGE_OVERHEAD, OVERHEAD

AHEAD_BYTES: Final = 1024 * 1024
"""Bytes of messages put by while what comes before them is read; more is read again."""


@final
class Replica(Shelved):
    """The end of a log, and what was heard that does not follow on it yet.

    Attributes:
        announced: offset from which on it is told of, of a log that nobody here had asked for; 0.
        doubts: how often it was doubted, so that an answer asked for before is not believed.
        at: time of its newest message, in Redis' microseconds; 0 if it was not seen.
        is_known: whether Redis has told how it stands, once.
        is_current: whether what is heard follows on what is here; else Redis is asked.
        stored_bytes: of messages, as Redis counts them.
        used: monotonic time at which it was asked for last.
        looked: set when Redis has told how it stands, or did not.
        error: why it did not, the last time.
    """

    __slots__ = (
        "_ahead",
        "_ahead_size",
        "announced",
        "at",
        "doubts",
        "error",
        "is_current",
        "is_known",
        "looked",
        "stored_bytes",
        "used",
    )

    def __init__(self, channel: str, limits: LogLimits, now: float) -> None:
        super().__init__(channel, limits, now)
        self.announced = 0
        self.at = 0
        self.doubts = 0
        self.is_known = False
        self.is_current = False
        self.stored_bytes = 0
        self.used = now
        self.looked = trio.Event()
        self.error: RequestError | None = None
        self._ahead: dict[tuple[str, int], News] = {}
        self._ahead_size = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of all its messages in Redis, as of the last look."""
        return self.stored_bytes

    @property
    def may_leave(self) -> bool:
        """Whether nobody watches it."""
        return not self.watchers and self.is_known

    def trim(self, now: float) -> None:
        """Give up memory; the newest message stays."""
        while self.size > self._most_bytes and self.held < self.head:
            self.drop_oldest()

    def release(self) -> None:
        """Give up all memory."""
        while self.held <= self.head:
            self.drop_oldest()

    def begin(self, epoch: str, earliest: int, ended: bytes | None) -> None:
        """Be the log of another epoch, of which nothing is in memory yet."""
        self.epoch = epoch
        self.earliest = earliest
        self.ended = ended
        self.skip_to(earliest)

    def skip_to(self, offset: int) -> None:
        """Hold nothing in memory; the next message to come is that of `offset`."""
        self._frames.clear()
        self._times = array("d")
        self._skip = 0
        self.size = OVERHEAD
        self.head = offset - 1
        self.held = offset
        self.at = 0

    def add(self, entry: Entry, now: float) -> None:
        """Keep the message of the next offset, given its place at the monotonic time `now`."""
        self.keep(entry.message, None, entry.encode(self._prefix), now)
        self.at = entry.at

    def move_earliest(self, earliest: int) -> None:
        """Take note that nothing before `earliest` is kept any more."""
        if earliest > self.earliest:
            self.earliest = earliest
            while self.held < earliest and self.held <= self.head:
                self.drop_oldest()

    # What does not follow yet

    def put_by(self, news: News) -> None:
        """Put a message by until what comes before it is here; too many are read again."""
        size = len(news.entry.message.raw) + MESSAGE_OVERHEAD
        self._ahead[news.epoch, news.entry.offset] = news
        self._ahead_size += size
        while self._ahead_size > AHEAD_BYTES and len(self._ahead) > 1:
            # The newest stays: it says up to where there is something to read.
            gone = self._ahead.pop(next(iter(self._ahead)))
            self._ahead_size -= len(gone.entry.message.raw) + MESSAGE_OVERHEAD

    def take_ahead(self) -> list[News]:
        """Return what was put by, and forget it."""
        ahead, self._ahead, self._ahead_size = self._ahead, {}, 0
        return list(ahead.values())


def encode_all(channel: str, entries: list[Entry]) -> list[bytes]:
    """Return the frames of messages of a channel."""
    head = published_head(channel)
    return [entry.encode(head) for entry in entries]
