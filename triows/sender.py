"""What goes out on one connection: answers first, then what its cursors have not seen.

The hub's flusher comes by and sends what the socket takes at once. When it takes no more, the
writer task, woken through its memory channel, waits for room and goes on from the same cursors.
There is no queue: only answers, at most one piece of a log, and the cursors.
"""

from __future__ import annotations

from typing import Protocol, final

import trio

from triows.errors import Close, CloseCode
from triows.frames import is_close
from triows.hub import PULL_BYTES, Hub
from triows.topics import Subscriber, Subscription
from triows.transport import Transport


class Owner(Protocol):
    """What the sender knows of its connection."""

    close: Close | None
    subscriptions: dict[str, Subscription]

    @property
    def unanswered(self) -> int:
        """How many published messages are to be acknowledged and are not yet."""

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""

    def lose(self, close: Close) -> None:
        """Ask for the end without a goodbye: the peer is gone, or takes nothing."""

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""


@final
class Sender(Subscriber):
    """The outgoing side of a connection; to the hub, the subscriber.

    Args:
        transport: the bytes beneath.
        hub: told when there is something to send.
        owner: the connection.
        write_timeout: seconds the socket may take nothing.

    Attributes:
        active_at: monotonic time of the last published message sent, as of `settle`.
        sent_messages: published messages given to the socket, as of `settle`.
        reply_size: bytes of answers that wait.
        queued, sink, stale: see `triows.topics.Subscriber`.
    """

    __slots__ = (
        "_closed",
        "_hub",
        "_owner",
        "_parting",
        "_parting_at",
        "_progress",
        "_replies",
        "_stopped",
        "_timeout",
        "_transport",
        "_unsent",
        "_wake",
        "_woken",
        "active_at",
        "reply_size",
        "sent_messages",
    )

    def __init__(self, transport: Transport, hub: Hub, owner: Owner, write_timeout: float) -> None:
        self.active_at = trio.current_time()
        self.sent_messages = 0
        self.reply_size = 0
        self.queued = False
        self.sink = transport.sink
        self.stale: dict[Subscription, None] = {}
        self._transport = transport
        self._hub = hub
        self._owner = owner
        self._timeout = write_timeout
        self._replies: list[bytes] = []
        self._unsent: memoryview | None = None  # what the socket did not take yet
        self._wake, self._woken = trio.open_memory_channel[None](1)  # to the writer
        self._progress: trio.Event | None = None  # set when replies are taken, or all is sent
        self._parting: Close | None = None  # asked for once the peer has all that is its
        self._parting_at: dict[Subscription, int] = {}  # offsets up to which that is
        self._closed = False  # a close frame was said: nothing may follow it
        self._stopped = False

    # For the connection

    def open(self, answer: bytes, greeting: bytes) -> None:
        """Send the answer to the opening handshake at once, and the first frame, if there is one:
        whatever else is said comes after it.
        """
        self._replies.append(answer + greeting)
        self.reply_size += len(answer) + len(greeting)
        self.flush(self.active_at)

    def offer(self, frame: bytes) -> None:
        """Send a frame with the next flush, ahead of what the logs have; never waits.

        After a close frame it is dropped.
        """
        if self._closed:
            return
        self._replies.append(frame)
        self.reply_size += len(frame)
        if not self.queued:
            self._hub.ready(self)

    async def output(self, data: bytes) -> None:
        """Send a control frame at once; returns when it is on its way.

        After a close frame it is dropped (RFC 6455 section 5.5.1).
        """
        if self._closed:
            return
        if is_close(data):
            self._closed = True
        self._replies.append(data)
        self.reply_size += len(data)
        self.flush(self.active_at)  # control frames do not make a connection active
        await trio.lowlevel.checkpoint()
        await self.wait_pulled()

    async def wait_pulled(self) -> None:
        """Wait until the answers given so far are on their way."""
        while self._replies:
            await self._wait_progress()

    async def wait_sent(self) -> None:
        """Wait until the socket has taken everything there is."""
        while self._replies or self._unsent is not None:
            await self._wait_progress()

    def say_last(self, frame: bytes) -> None:
        """Send a close frame if none was said and the socket takes it now; nothing follows it."""
        if not self._closed and not self._stopped and self._unsent is None:
            self._closed = True
            self.sink = None
            self._send(frame)

    def part(self, close: Close) -> None:
        """Have the connection closed as soon as everything published so far has been sent."""
        self._parting = close
        self._parting_at = {s: s.log.head for s in self._owner.subscriptions.values()}
        self.sink = None
        self._part_if_current()

    def stop(self) -> None:
        """Send nothing more, not even what is waiting."""
        self._stopped = True
        self.sink = None

    def settle(self) -> None:
        """Bring up to date what is counted."""
        for subscription in self._owner.subscriptions.values():
            subscription.settle()

    @property
    def is_blocked(self) -> bool:
        """Whether the socket takes no more just now."""
        return self._unsent is not None

    def _part_if_current(self) -> None:
        if self._parting is None:
            return
        self.settle()
        if (
            self._unsent is None
            and not self._replies
            and not self._owner.unanswered
            and not any(s.lag and s.cursor < at for s, at in self._parting_at.items() if s.active)
        ):
            self._owner.request_close(self._parting)

    # For the hub

    def request_close(self, close: Close) -> None:
        """Ask for the end of the connection; returns at once."""
        self._owner.request_close(close)

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""
        return self._owner.describe()

    def flush(self, now: float) -> None:
        """Send what the socket takes without waiting; the writer sees to the rest."""
        self.queued = False
        if self._unsent is None and not self._stopped:
            self._flush(now)
        self._update_sink()

    def _flush(self, now: float) -> None:
        self._part_if_current()  # before more is pulled, and the socket is full again
        data = self._pull(now)
        if data and not self._send(data):
            return
        self._part_if_current()
        if self.stale and not self._closed:
            self._hub.ready(self)

    def _update_sink(self) -> None:
        busy = self.queued or self._unsent is not None
        ending = self._closed or self._stopped or self._parting is not None
        self.sink = None if busy or ending else self._transport.sink

    def took(self, messages: int, size: int, at: float, unsent: memoryview | None = None) -> None:
        """Take note of what was sent through the sink; the writer sees to the rest."""
        self.sent_messages += messages
        self._transport.sent += size
        self.active_at = max(self.active_at, at)
        if unsent is not None:
            self._leave_to_writer(unsent)

    def _send(self, data: bytes) -> bool:
        """Send what the socket takes and leave the rest to the writer; true if that was all."""
        try:
            sent = self._transport.try_send(data)
        except OSError:
            self._owner.lose(Close(CloseCode.ABNORMAL, "the peer is gone"))
            return False
        if sent == len(data):
            return True
        self._leave_to_writer(memoryview(data)[sent:])
        return False

    def _leave_to_writer(self, unsent: memoryview) -> None:
        self._unsent = unsent
        self.sink = None
        self._wake.send_nowait(None)

    def _pull(self, now: float) -> bytes:
        """Take all answers, and from the logs about as much as goes out at a time."""
        parts, self._replies = self._replies, []
        self.reply_size = 0
        self._tell_progress()
        stale, room = self.stale, PULL_BYTES
        while stale and room > 0 and self._owner.close is None and not self._closed:
            subscription = next(iter(stale))
            gap = subscription.catch_up()
            if gap is not None:
                self._hub.gaps += 1
                parts.append(gap)
            piece = self._hub.piece(subscription) if subscription.lag else None
            if piece is not None and len(piece.data) > room and room < PULL_BYTES:
                break  # the first to come next time
            stale.pop(subscription, None)
            if piece is not None:
                self.sent_messages += piece.last - subscription.cursor
                subscription.cursor = piece.last
                parts.append(piece.data)
                room -= len(piece.data)
                self.active_at = now
                if subscription.lag:
                    stale[subscription] = None  # behind the others: everyone gets a turn
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # The writer task

    async def run(self) -> None:
        """Send what the socket did not take at once, until cancelled or the peer is lost."""
        async for _ in self._woken:
            while self._unsent:
                lost = await self._send_some(self._unsent)
                if lost is not None:
                    self._owner.lose(lost)
                if self._stopped:
                    return
            self._unsent = None
            self._tell_progress()
            self.flush(trio.current_time())

    async def _send_some(self, unsent: memoryview) -> Close | None:
        """Wait until the socket takes a part; return why it never will, if so."""
        with trio.move_on_after(self._timeout) as scope:
            try:
                await self._transport.wait_writable()
                if self._stopped:  # meanwhile: a peer that was revoked gets no more of it
                    return None
                sent = self._transport.try_send(unsent) or await self._transport.send_some(unsent)
                self._unsent = unsent[sent:]
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                return Close(CloseCode.ABNORMAL, "the peer is gone")
        if scope.cancelled_caught:
            return Close(
                CloseCode.NO_WRITE_PROGRESS, f"the peer took nothing for {self._timeout:g} s"
            )
        return None

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.Event()
        await self._progress.wait()
