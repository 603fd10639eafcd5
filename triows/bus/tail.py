"""What a durable engine has in memory: the ends of logs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import ClassVar, Final, Generic, TypeVar, final

from triows.config import LogLimits
from triows.logs import ID_OVERHEAD, MESSAGE_OVERHEAD, Log
from triows.messages import Message

_HEADERS: Final = {126: 4, 127: 10}  # bytes before a frame's payload, if they are not 2
_LOOKS: Final = 64  # logs looked at to get below the limit, at a time


class Shelved(Log):
    """A log of which the end is in memory and all that is kept is elsewhere.

    Attributes:
        counted: the shelf's: bytes of it that are in the sum.
    """

    __slots__ = ("counted",)

    is_stored: ClassVar[bool] = True

    def __init__(self, channel: str, limits: LogLimits, now: float) -> None:
        super().__init__(channel, limits, now)
        self.counted = 0

    def release(self) -> None:
        """Give up all the memory that can be given up."""
        raise NotImplementedError

    @property
    def may_leave(self) -> bool:
        """Whether nothing is lost if the log is forgotten, to be loaded again."""
        raise NotImplementedError


@final
class Tail(Shelved):
    """A log of which the end is in memory and all that is kept is on disk.

    Attributes:
        number: the channel's, in the file.
        filed: offset up to which messages can be read from the file; the others are in its
            journal, and stay in memory.
        stored_bytes: of messages, as the file counts them.
        is_known: whether the file has the channel.
        knows_ids: whether its ids are in memory.
        opened_at: microseconds since 1970.
    """

    __slots__ = (
        "filed",
        "is_known",
        "knows_ids",
        "number",
        "opened_at",
        "stored_bytes",
    )

    def __init__(self, channel: str, limits: LogLimits, now: float, number: int) -> None:
        super().__init__(channel, limits, now)
        self.number = number
        self.filed = 0
        self.stored_bytes = 0
        self.is_known = False
        self.knows_ids = True
        self.opened_at = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of all its messages in the file."""
        return self.stored_bytes

    def keep(self, message: Message, key: str | None, frame: bytes, now: float) -> None:
        """Keep the message of the next offset: it is on the disk."""
        super().keep(message, key, frame, now)
        self.stored_bytes += stored_size(frame)

    def trim(self, now: float) -> None:
        """Give up memory, as far as what is in it can be had from the file."""
        most = self._most_bytes + len(self._ids) * ID_OVERHEAD
        while self.size > most and self.held <= self.filed:
            self.drop_oldest()

    def move_earliest(self, earliest: int) -> None:
        """Take note that the file has nothing before `earliest` any more."""
        self.earliest = earliest
        while self.held < earliest:
            self.drop_oldest()

    def release(self) -> None:
        """Give up all the memory that can be given up."""
        while self.held <= self.filed:
            self.drop_oldest()
        if self.filed == self.head:  # else the file could not tell all of them
            self.forget_all_ids()
            self.knows_ids = False

    @property
    def may_leave(self) -> bool:
        """Whether the file can tell all of it."""
        return not self.watchers and self.filed == self.head

    def learn(self, offset: int, key: str, at: float) -> None:
        """Remember an id, given at that monotonic time; oldest first."""
        self._ids[key] = offset
        self._id_keys.append(key)
        self._id_times.append(at)
        self.size += ID_OVERHEAD

    @property
    def oldest_id(self) -> int:
        """Offset from which on ids are remembered; 0 if that is not known."""
        if not self.knows_ids:
            return 0
        return self._ids[self._id_keys[0]] if self._id_keys else self.head + 1


def stored_size(frame: bytes) -> int:
    """Return with how many bytes the file counts a message."""
    return len(frame) - _HEADERS.get(frame[1], 2) + MESSAGE_OVERHEAD


_L = TypeVar("_L", bound=Shelved)


@final
class Shelf(Generic[_L]):
    """The logs in memory, all together within a limit, as far as they can give way.

    Args:
        limit: bytes; 0 is none.
        gone: told of each log that is on it no more.

    Attributes:
        size: bytes that all are counted with.
        pinned: channels whose logs stay as they are: something is being done with them.
    """

    def __init__(self, limit: int, gone: Callable[[_L], None] = lambda _: None) -> None:
        self.size = 0
        self.pinned: set[str] = set()
        self._limit = limit
        self._gone = gone
        self._logs: OrderedDict[str, _L] = OrderedDict()  # quiet for longest first

    def __iter__(self) -> Iterator[_L]:
        return iter(self._logs.values())

    def __len__(self) -> int:
        return len(self._logs)

    def get(self, channel: str) -> _L | None:
        """Return the channel's log, if it is in memory."""
        return self._logs.get(channel)

    def add(self, log: _L) -> None:
        """Take in a log; it is the newest."""
        self._logs[log.channel] = log
        self.count(log)

    def touch(self, log: _L) -> None:
        """Count a log as the newest, and as large as it is now."""
        self._logs.move_to_end(log.channel)
        self.count(log)

    def count(self, log: _L) -> None:
        """Count a log as large as it is now, and have others give way for it."""
        self.size += log.size - log.counted
        log.counted = log.size
        if self._limit and self.size > self._limit:
            self._shrink()

    def unpin(self) -> None:
        """Let go of all that is pinned: it may give way now."""
        self.pinned = set()
        if self._limit and self.size > self._limit:
            self._shrink()

    def discard(self, log: _L) -> None:
        """Forget a log; it can be loaded again."""
        del self._logs[log.channel]
        self.size -= log.counted
        self._gone(log)

    def _shrink(self) -> None:
        """Get below the limit, the quietest first: a log that nobody watches goes, others give
        up what can be read from the file. The newest stays.
        """
        for _ in range(min(_LOOKS, len(self._logs) - 1)):
            if self.size <= self._limit:
                return
            log = next(iter(self._logs.values()))
            self._logs.move_to_end(log.channel)  # out of the way of the next look
            if log.channel in self.pinned:
                continue
            log.release()
            self.size += log.size - log.counted
            log.counted = log.size
            if log.may_leave:
                self.discard(log)
