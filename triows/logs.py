"""One channel's log: a ring of messages, each encoded once, and the end.

Everything here is plain functions without a checkpoint. So "read the head" and "register a
cursor" cannot be torn apart by another task, and no lock and no merge buffer is needed.
"""

from __future__ import annotations

import math
import secrets
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import ClassVar, Final, NamedTuple

from triows.codec import (
    clock,
    encode_between,
    encode_published,
    published_head,
    published_stamp,
    published_start,
)
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.messages import Message, MessageType, Outcome, Position, Receipt

OVERHEAD: Final = 1024
"""Bytes an empty log is counted with, so that endless channel names are bounded too."""

MESSAGE_OVERHEAD: Final = 64
"""Bytes each message is counted with beside its own: object head, slot, time."""

MAX_IDS: Final = 10_000
"""Ids remembered of one channel; a burst of more shortens the window."""

ID_OVERHEAD: Final = 256
"""Bytes a remembered id is counted with."""

_END: Final = str(MessageType.END)  # a plain string compares faster


def id_key(user: str, id: str) -> str:
    """Return under what an id is remembered: those of different users do not meet, whatever
    characters they have.
    """
    return f"{len(user)} {user}{id}"


class Slice(NamedTuple):
    """Part of a log, ready to be sent: whole frames one after the other.

    Attributes:
        data: the frames.
        last: offset of the last message in it.
    """

    data: bytes
    last: int


class Log:
    """The messages of one channel that are still kept.

    Offsets count from 1 and are never used twice within an epoch. `earliest` to `head` are
    kept; while nothing is kept, `earliest` is `head` + 1. Of those, `held` to `head` are in
    memory: all, unless an engine keeps the others elsewhere.

    Attributes:
        channel: its name.
        epoch: drawn anew for each incarnation of the log.
        head: offset of the newest message, 0 before the first.
        earliest: offset of the oldest message that can be had at all.
        held: offset of the oldest message in this process's memory.
        size: bytes it is counted with.
        ended: what `end` said, as JSON text, or None while the log is open.
        opened: monotonic time of its making.
        touched: monotonic time of the newest message.
        watchers: how many subscriptions hold a cursor in it.
        is_stored: whether what leaves memory can still be had, from the engine.
    """

    is_stored: ClassVar[bool] = False

    __slots__ = (
        "_frames",
        "_id_keys",
        "_id_times",
        "_ids",
        "_most_age",
        "_most_bytes",
        "_most_messages",
        "_prefix",
        "_skip",
        "_times",
        "_window",
        "channel",
        "earliest",
        "ended",
        "epoch",
        "head",
        "held",
        "opened",
        "size",
        "touched",
        "watchers",
    )

    def __init__(self, channel: str, limits: LogLimits, now: float) -> None:
        self.channel = channel
        self.epoch = secrets.token_hex(6)
        self.head = 0
        self.earliest = self.held = 1
        self.size = OVERHEAD
        self.ended: bytes | None = None
        self.opened = self.touched = now
        self.watchers = 0
        self._window = limits.idempotency_window
        self._most_messages = limits.max_messages or sys.maxsize
        self._most_bytes = limits.max_bytes or sys.maxsize
        self._most_age = limits.max_age or math.inf
        self._prefix = published_head(channel)
        self._frames: list[bytes] = []
        self._times = array("d")
        self._skip = 0  # slots at the front of _frames and _times that are given up already
        # Flat, not tuples: containers that stay have the garbage collector come by all the time.
        # A dict has an order, too, but its first key costs more the more went before it.
        self._ids: dict[str, int] = {}  # offsets
        self._id_keys: deque[str] = deque()  # oldest first
        self._id_times: deque[float] = deque()  # when each of them was given

    @property
    def kept_bytes(self) -> int:
        """Bytes of all that is kept of it, in memory or not, as the engine counts them."""
        return self.size

    @property
    def position(self) -> Position:
        """Where the log stands: the position of its newest message."""
        return Position(self.epoch, self.head)

    def append(self, message: Message, user: str, now: float) -> Receipt:
        """Give `message` the next offset and keep it, as `append_all` does.

        Raises:
            RequestError: `ended`.
        """
        outcome = self.append_all((message,), user, now)[0]
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    def append_all(self, messages: Sequence[Message], user: str, now: float) -> list[Outcome]:
        """Give each message the next offset and keep it; return where each stands, or why not.

        The same `id` of the same `user` within the window gets its first answer again, and
        nothing is kept twice, also after the end.

        One loop without a call of ours for each message but its encoding: half as long as one
        after the other.

        Args:
            messages: type, id and raw are taken from them.
            user: the `sub` of the publisher: ids of different users do not meet.
            now: monotonic time in seconds.
        """
        self._forget_ids(now)
        outcomes, frames, keys = list[Outcome](), list[bytes](), list[str]()
        owner, stamp = id_key(user, ""), published_stamp(clock.at(now))
        kind, start = "", b""
        try:
            for message in messages:
                key = owner + message.id if message.id is not None else ""  # no id has none such
                offset = self.head + len(frames) + 1
                if self.ended is not None:
                    place = self._ids.get(key, 0)
                    outcomes.append(Receipt(self.epoch, place, True) if place else self.refusal())
                    continue
                if message.type != kind:
                    kind = message.type
                    start = published_start(self._prefix, kind)
                frame = encode_between(start, message, offset, stamp)
                if key:  # one look for it: few are duplicates, encoded in vain
                    place = self._ids.setdefault(key, offset)
                    if place != offset:
                        outcomes.append(Receipt(self.epoch, place, True))
                        continue
                    keys.append(key)
                frames.append(frame)
                if kind == _END:
                    self.ended = message.raw or b"{}"
                outcomes.append(Receipt(self.epoch, offset))
        finally:
            self._grow(frames, keys, now)
        return outcomes

    def refusal(self) -> RequestError:
        """Return what is said to those who publish after the end."""
        return RequestError(
            ErrorCode.ENDED, f"{self.channel} has ended; nothing can be published to it"
        )

    def place_of(self, key: str, now: float) -> int | None:
        """Return the offset that an id was given, if that was within the window.

        Forgets the ids whose window is over, and the oldest of too many.
        """
        self._forget_ids(now)
        return self._ids.get(key)

    def _forget_ids(self, now: float) -> None:
        times, since = self._id_times, now - self._window
        while times and (times[0] < since or len(times) >= MAX_IDS):
            times.popleft()
            del self._ids[self._id_keys.popleft()]
            self.size -= ID_OVERHEAD

    def encode(self, message: Message, offset: int, now: float) -> bytes:
        """Return the frame of a message that is given that offset."""
        return encode_published(message, self._prefix, offset, clock.at(now))

    def keep(self, message: Message, key: str | None, frame: bytes, now: float) -> None:
        """Keep the message of the next offset, and its id.

        Args:
            message: whether it is the end is taken from it.
            key: `id_key` of its id, not known yet; None without an id.
            frame: the message, encoded.
            now: monotonic time in seconds at which it was given its place.
        """
        if key is not None:
            self._ids[key] = self.head + 1
        if message.type == _END:
            self.ended = message.raw or b"{}"
        self._grow((frame,), () if key is None else (key,), now)

    def _grow(self, frames: Sequence[bytes], keys: Sequence[str], now: float) -> None:
        """Add the next messages, and the keys that `_ids` has got of them; and give up what the
        limits do not cover any more.
        """
        if not frames:
            return
        self._frames += frames
        self._times.extend(repeat(now, len(frames)))
        self._id_keys += keys
        self._id_times.extend(repeat(now, len(keys)))
        self.head += len(frames)
        self.size += sum(map(len, frames))
        self.size += len(frames) * MESSAGE_OVERHEAD + len(keys) * ID_OVERHEAD
        self.touched = now
        if len(self._ids) > MAX_IDS:
            self._forget_ids(now)
        if (
            self.head - self.held >= self._most_messages
            or self.size > self._most_bytes
            or self._times[self._skip] < now - self._most_age
        ):
            self.trim(now)

    def trim(self, now: float) -> None:
        """Give up what the limits do not cover any more, oldest first."""
        while self.head - self.held >= self._most_messages:
            self.drop_oldest()
        most = self._most_bytes + len(self._ids) * ID_OVERHEAD  # of messages; ids are apart
        while self.size > most and self.held < self.head:
            self.drop_oldest()
        oldest = now - self._most_age
        while self.held <= self.head and self._times[self._skip] < oldest:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Give up the oldest message in memory."""
        frame = self._frames[self._skip]
        self._frames[self._skip] = b""
        self.size -= len(frame) + MESSAGE_OVERHEAD
        self.held += 1
        if not self.is_stored:
            self.earliest = self.held
        self._skip += 1
        if self._skip > 64 and self._skip * 2 > len(self._frames):  # amortised: O(1) each
            del self._frames[: self._skip]
            del self._times[: self._skip]
            self._skip = 0

    def forget_all_ids(self) -> None:
        """Give up remembering ids: memory is short."""
        self.size -= len(self._ids) * ID_OVERHEAD
        self._ids.clear()
        self._id_keys.clear()
        self._id_times.clear()

    def slice(self, cursor: int, max_bytes: int) -> Slice:
        """Return what follows `cursor`, at most `max_bytes` unless one message is larger.

        Args:
            cursor: offset of the last message already seen, from `held` - 1 to `head` - 1.
        """
        first = cursor - self.held + 1 + self._skip
        frames = self._frames
        if cursor + 1 == self.head:
            return Slice(frames[first], self.head)
        stop, room = first, max_bytes
        while stop < len(frames) and (room := room - len(frames[stop])) >= 0:
            stop += 1
        stop = max(stop, first + 1)
        return Slice(b"".join(frames[first:stop]), cursor + stop - first)

    def read(self, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the JSON texts of the messages from `first` to `last` that are in memory.

        Stops before `max_bytes` are passed, but returns at least one if there is one.
        """
        texts: list[bytes] = []
        start = max(first, self.held) - self.held + self._skip
        stop = min(last, self.head) - self.held + 1 + self._skip
        for frame in self._frames[start : max(start, stop)]:
            max_bytes -= len(frame)
            if texts and max_bytes < 0:
                break
            texts.append(frame_payload(frame))
        return texts

    def age(self, cursor: int, now: float) -> float:
        """Return for how many seconds the message after `cursor` has been waiting.

        If it is not in memory, at least so long: for how long the oldest there has been, or the
        newest of all if none is.
        """
        if cursor >= self.head or self.earliest > self.head:
            return 0.0
        if self.held > self.head:
            return now - self.touched
        at = max(cursor + 1, self.held) - self.held + self._skip
        return now - self._times[at]
