"""The bus inside the process: an application listens to channels as a viewer does."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final, Self, final

import trio

from triows.bus import Bus
from triows.codec import decode
from triows.errors import RequestError
from triows.frames import frame_payload
from triows.hub import Hub
from triows.logs import Log
from triows.messages import Message, Patterns
from triows.pager import RETRY_DELAY
from triows.topics import encode_gap

_PAGE_BYTES: Final = 64 * 1024


@final
class Listener:
    """All messages on the channels of some patterns, from now on: an asynchronous iterator.

    In order of offset within a channel; no order across channels. It has no queue: it is a
    cursor in each log, so one that falls behind what is kept gets a message of type `gap`,
    as a viewer would. Use it as a context manager, and from one task at a time.
    """

    def __init__(self, hub: Hub, bus: Bus, patterns: Patterns) -> None:
        self._hub = hub
        self._bus = bus
        self._patterns = patterns
        self._cursors: dict[Log, int] = {}  # only of logs that have something for us
        self._messages: deque[Message] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._busy = False

    def __enter__(self) -> Self:
        if self not in self._hub.watchers:
            self._hub.watchers[self] = None
            self._bus.attend(self._patterns)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in self._hub.watchers:
            del self._hub.watchers[self]
            self._bus.neglect(self._patterns)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def mark(self, log: Log, grown: int) -> None:
        """Called by the hub for each log that has grown."""
        if log not in self._cursors and self._patterns.match(log.channel):
            self._cursors[log] = log.head - grown
            self._lot.unpark()

    def renew(self, log: Log) -> None:
        """Called by the hub for each log that began anew."""
        if self._patterns.match(log.channel):
            self._cursors[log] = -1
            self._lot.unpark()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Return the next message. Cancelled, none is lost.

        Raises:
            trio.BusyResourceError: another task is waiting already.
        """
        if self._busy:
            raise trio.BusyResourceError("another task reads from this listener")
        self._busy = True
        try:
            while not self._messages:
                if self._cursors:
                    await trio.lowlevel.checkpoint()
                    await self._fill()
                else:
                    await self._lot.park()
        finally:
            self._busy = False
        return self._messages.popleft()

    async def _fill(self) -> None:
        """Take the next page of the log that has waited longest."""
        log, cursor = next(iter(self._cursors.items()))
        first, epoch = max(cursor + 1, log.earliest), log.epoch
        try:
            texts = await self._bus.history(log, first, log.head, _PAGE_BYTES)
        except RequestError:  # the engine has logged it
            await trio.sleep(RETRY_DELAY)
            return
        if log.epoch != epoch:  # it began anew meanwhile
            return
        if cursor < 0:
            gap = encode_gap(log, 1, first - 1, "epoch")
            self._messages.append(decode(frame_payload(gap)))
        elif first > cursor + 1:
            gap = encode_gap(log, cursor + 1, first - 1, "lag")
            self._messages.append(decode(frame_payload(gap)))
        self._messages.extend(map(decode, texts))
        del self._cursors[log]
        if first - 1 + len(texts) < log.head:
            self._cursors[log] = first - 1 + len(texts)  # behind the others
