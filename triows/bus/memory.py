"""The engine in memory: as fast as it gets, gone with the process."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, final

import trio

from triows.auth import Revocation
from triows.bus import Bus, ChannelState, Done, DoneAll, Tell
from triows.config import LogLimits
from triows.logs import Log, Slice
from triows.messages import Message, Position

SWEEP_INTERVAL: Final = 10  # seconds between two looks for messages that grew too old
_AT_ONCE: Final = 1000  # names looked at before others get a turn


@final
class MemoryBus(Bus):
    """Keeps every log in this process, all together within `limits.total_bytes`.

    Args:
        limits: what is kept.
        tell: told of each log that has grown.
    """

    def __init__(self, limits: LogLimits, tell: Tell) -> None:
        self._limits = limits
        self._tell = tell
        self._logs: OrderedDict[str, Log] = OrderedDict()  # quiet for longest first
        self._empty: OrderedDict[str, Log] = OrderedDict()  # those never published to
        self._thick: OrderedDict[str, Log] = OrderedDict()  # those that hold more than one message

    def submit(self, channel: str, message: Message, user: str, now: float, done: Done) -> None:
        """Publish at once: `done` has been told when this returns."""
        self.submit_all(channel, (message,), user, now, lambda _, found: done(message, found[0]))

    def submit_all(
        self, channel: str, messages: Sequence[Message], user: str, now: float, done: DoneAll
    ) -> None:
        """Publish at once: `done` has been told of all when this returns."""
        log = self._log(channel)
        size, head = log.size, log.head
        try:
            outcomes = log.append_all(messages, user, now)
        finally:  # the application may have given one a type that cannot be written
            grown = log.head - head
            if grown:
                self.published += grown
                self._touch(log)
                self._tell(log, grown)
            self._resize(log.size - size)  # of refused messages, too: ids may be forgotten
        done(messages, outcomes)

    async def open(self, channel: str, since: Position | None = None) -> Log:
        """Return the channel's log; does not wait."""
        return self._log(channel)

    async def find(self, channel: str, since: Position | None = None) -> Log | None:
        """Return the channel's log, if there is one; does not wait."""
        return self._logs.get(channel)

    async def history(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the texts from `first` to `last`; does not wait."""
        return log.read(first, last, max_bytes)

    async def fetch(self, log: Log, cursor: int, max_bytes: int) -> Slice:
        """Return what follows `cursor`; does not wait."""
        return log.slice(cursor, max_bytes)

    def logs(self) -> Iterable[Log]:
        """Return all logs, quiet for longest first."""
        return self._logs.values()

    async def channels(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how the channels stand, by name; those only asked for are among them."""
        found: list[tuple[str, Log]] = []
        for number, (name, log) in enumerate(list(self._logs.items()), 1):
            if not number % _AT_ONCE:
                await trio.lowlevel.checkpoint()
            if name > after and name.startswith(prefix):
                found.append((name, log))
        return [ChannelState.of(log) for _, log in heapq.nsmallest(limit, found)]

    async def revoke(self, revocation: Revocation) -> None:
        """Do nothing: who may not be believed is known while this process lives, as all else."""

    async def run(self) -> None:
        """Give up messages that grew too old, until cancelled."""
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            self.sweep(trio.current_time())

    def sweep(self, now: float) -> None:
        """Give up what is too old, and logs that nobody watches and that hold nothing."""
        for log in list(self._logs.values()):
            before = log.size
            log.trim(now)
            self.size += log.size - before
            idle = now - log.touched
            if self._limits.max_age and idle > self._limits.max_age:
                self._discard(log)

    def _log(self, channel: str) -> Log:
        log = self._logs.get(channel)
        if log is None:
            log = Log(channel, self._limits, trio.current_time())
            self._logs[channel] = self._empty[channel] = log
            self._resize(log.size)
        return log

    def _touch(self, log: Log) -> None:
        channel = log.channel
        self._logs.move_to_end(channel)
        self._empty.pop(channel, None)
        if log.head > log.earliest:
            self._thick[channel] = log
            self._thick.move_to_end(channel)

    def _resize(self, by: int) -> None:
        self.size += by
        limit = self._limits.total_bytes
        if limit and self.size > limit:
            self._shrink(limit)

    def _shrink(self, limit: int) -> None:
        """Get below `limit`: logs that were only asked for and never published to; then, the
        quietest channels first, all but their newest message, which says how things stand
        there; then whole logs. A log that is watched stays.
        """
        self._discard_some(self._empty, len(self._empty) - 1, limit)
        while self.size > limit and self._thick:
            channel, log = next(iter(self._thick.items()))
            before = log.size
            while log.earliest < log.head and self.size - (before - log.size) > limit:
                log.drop_oldest()
            if log.earliest >= log.head:
                log.forget_all_ids()
                del self._thick[channel]
            self.size += log.size - before
        self._discard_some(self._logs, len(self._logs) - 1, limit)

    def _discard_some(self, logs: OrderedDict[str, Log], most: int, limit: int) -> None:
        """Discard logs until below `limit`, the first of `logs` first."""
        for _ in range(most):
            if self.size <= limit:
                return
            log = next(iter(logs.values()))
            # One that is watched has to stay: out of the way of the next look.
            logs.move_to_end(log.channel)
            self._discard(log)

    def _discard(self, log: Log) -> None:
        if not log.watchers:
            del self._logs[log.channel]
            self._thick.pop(log.channel, None)
            self._empty.pop(log.channel, None)
            self.size -= log.size
