"""The engine in memory: as fast as it gets, gone with the process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, final

import trio

from triows.bus import Bus, Done, Tell
from triows.config import LogLimits
from triows.errors import RequestError
from triows.logs import Log
from triows.messages import Message

SWEEP_INTERVAL: Final = 10  # seconds between two looks for messages that grew too old


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

    def submit(self, channel: str, message: Message, user: str, done: Done) -> None:
        """Publish at once: `done` has been told when this returns."""
        log = self._log(channel)
        before = log.size
        try:
            receipt = log.append(message, user, trio.current_time())
        except RequestError as error:
            done(error)
            return
        self._resize(log.size - before)
        if not receipt.duplicate:
            self.published += 1
            self._logs.move_to_end(channel)
            self._tell(log)
        done(receipt)

    async def open(self, channel: str) -> Log:
        """Return the channel's log; does not wait."""
        return self._log(channel)

    async def history(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the texts from `first` to `last`; does not wait."""
        return log.read(first, last, max_bytes)

    def logs(self) -> Iterable[Log]:
        """Return all logs, quiet for longest first."""
        return self._logs.values()

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
            self._logs[channel] = log
            self._resize(log.size)
        return log

    def _resize(self, by: int) -> None:
        self.size += by
        limit = self._limits.total_bytes
        if limit and self.size > limit:
            self._shrink(limit)

    def _shrink(self, limit: int) -> None:
        """Get below `limit`: old messages of the quietest channels first, then such channels."""
        for log in list(self._logs.values()):
            before = log.size
            over = self.size - limit
            while before - log.size < over and log.earliest < log.head:
                log.drop_oldest()
            self.size += log.size - before
            if self.size <= limit:
                return
        for log in list(self._logs.values())[:-1]:
            self._discard(log)
            if self.size <= limit:
                return

    def _discard(self, log: Log) -> None:
        if not log.watchers:
            del self._logs[log.channel]
            self.size -= log.size
