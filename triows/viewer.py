"""A client's subscription: its own cursor, kept over any number of connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self, final

import trio

from triows.errors import TriowsError
from triows.messages import Message, MessageType, Position
from triows.topics import OnLag

BUFFER: Final = 1000  # messages read ahead of the application


@final
class Subscription:
    """What is published on one channel: an asynchronous iterator of messages.

    In order, each offset once, also over lost connections and restarted servers. What can no
    longer be had comes as a message of type `gap`; after a message of type `end` the iteration
    is over. Use it from one task at a time.

    Attributes:
        channel: its name.
        position: of the last message handed out: what to go on from, another time. None
            before the server has answered.
        head: offset of the newest message on the server, as far as is known.
    """

    def __init__(
        self, channel: str, start: dict[str, Any], on_lag: OnLag, ask: Callable[[Self], None]
    ) -> None:
        self.channel = channel
        self.position: Position | None = None
        self.head = 0
        self._epoch = ""  # of the log, when `head` was told
        self.paused = False  # the application is slow: unsubscribed until it has caught up
        self._start = start
        self._on_lag = on_lag
        self._ask = ask  # has the client subscribe (or, when paused, unsubscribe)
        self._cursor: Position | None = None  # of the last message read, maybe ahead
        self._messages: deque[tuple[Message, Position]] = deque()
        self._end: Position | None = None  # of a channel that had ended when we asked
        self._finished = False
        self._failure: TriowsError | None = None
        self._lot = trio.lowlevel.ParkingLot()
        self._busy = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Return the next message. Cancelled, none is lost.

        Raises:
            RequestError: the server refused the subscription.
            HandshakeRefused, ConnectionClosed: the client has given up.
            trio.BusyResourceError: another task is waiting already.
        """
        if self._busy:
            raise trio.BusyResourceError("another task reads from this subscription")
        if self._messages:
            await trio.lowlevel.checkpoint()
        self._busy = True
        try:
            while not self._messages:
                if self._finished:  # whatever became of the connection afterwards
                    raise StopAsyncIteration
                if self._failure is not None:
                    raise self._failure
                if self.paused:
                    self.paused = False
                    self._ask(self)
                await self._lot.park()
        finally:
            self._busy = False
        message, self.position = self._messages.popleft()
        return message

    @property
    def lag(self) -> int:
        """How many messages the application has not been given yet, as far as is known."""
        read = self._cursor.offset if self._cursor else self.head
        return max(0, self.head - read) + len(self._messages)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come from the server."""
        return self._finished or self._failure is not None

    def request(self) -> dict[str, Any]:
        """Return the `data` of the next `subscribe`: from where we are."""
        if self._cursor is None:
            return {**self._start, "on_lag": self._on_lag}
        since = {"epoch": self._cursor.epoch, "offset": self._cursor.offset}
        return {"since": since, "on_lag": self._on_lag}

    def acknowledged(self, data: dict[str, Any]) -> None:
        """Take the server's answer to a `subscribe`."""
        self.head, self._epoch = data["offset"], data["epoch"]
        if self._cursor is None:
            oldest = data["earliest"] - 1
            start = self.head
            if "tail" in self._start:
                start = max(oldest, self.head - self._start["tail"])
            elif "from" in self._start:
                start = 0
            elif "since" in self._start:
                since = self._start["since"]
                self._cursor = Position(since["epoch"], since["offset"])
            if self._cursor is None:
                self._cursor = Position(data["epoch"], start)
            self.position = self._cursor
        if data["ended"] is not None:
            self._end = Position(data["epoch"], self.head)
            self._finish_at_end()

    def deliver(self, message: Message) -> bool:
        """Take a message of the channel; False if one is missing before it."""
        cursor = self._cursor
        if cursor is None or self.paused or self.is_over:
            return True
        if message.type == MessageType.GAP:
            data = message.data
            if data["epoch"] == cursor.epoch and data["to"] <= cursor.offset:
                return True  # told already, on an earlier connection
            if data["epoch"] != self._epoch:  # the log began anew while we watched
                self.head, self._epoch = data["to"], data["epoch"]
            self._cursor = Position(data["epoch"], data["to"])
            if data["count"] or data["reason"] == "epoch":
                self._put(message)
            self._finish_at_end()
            return True
        offset = message.offset or 0
        if offset <= cursor.offset:
            return True  # seen already, on an earlier connection
        if offset > cursor.offset + 1:
            return False
        self._cursor = Position(cursor.epoch, offset)
        self.head = max(self.head, offset)
        self._put(message)
        if message.type == MessageType.END:
            self._finish()
        return True

    def fail(self, failure: TriowsError) -> None:
        """End with an error, after what is there already."""
        self._failure = self._failure or failure
        self._lot.unpark_all()

    def _finish_at_end(self) -> None:
        if self._end is not None and self._cursor == self._end:
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._lot.unpark_all()

    def _put(self, message: Message) -> None:
        assert self._cursor is not None
        self._messages.append((message, self._cursor))
        self._lot.unpark_all()
        if len(self._messages) >= BUFFER and not self._finished:
            self.paused = True
            self._ask(self)
