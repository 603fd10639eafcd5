"""Is the peer still there, still busy, still allowed: the three clocks of a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

import trio

from triows.config import Limits
from triows.errors import Close, CloseCode

MAX_UNANSWERED: Final = 10  # pings, after which other signs of life no longer count
STALL: Final = 0.5  # seconds a timer may be late before the server counts as having stalled


class Vitals(Protocol):
    """What the heartbeat looks at."""

    @property
    def active_at(self) -> float:
        """Monotonic time of the last message either way."""

    @property
    def received(self) -> int:
        """Bytes received so far."""

    @property
    def is_blocked(self) -> bool:
        """Whether the socket takes no more just now."""

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""


@final
class Heartbeat:
    """Pings, and asks for the end when a pong, a message or a new token is overdue.

    Args:
        limits: the intervals.
        vitals: the connection.
        ping: sends a ping and waits for its pong.

    Attributes:
        round_trip: seconds from the last ping to its pong, or None.
    """

    __slots__ = (
        "_beating",
        "_changed",
        "_deadline",
        "_limits",
        "_overdue",
        "_ping",
        "_unanswered",
        "_vitals",
        "round_trip",
    )

    def __init__(self, limits: Limits, vitals: Vitals, ping: Callable[[], Awaitable[None]]) -> None:
        self.round_trip: float | None = None
        self._limits = limits
        self._vitals = vitals
        self._ping = ping
        self._changed: trio.MemorySendChannel[None] | None = None
        self._beating: trio.CancelScope | None = None  # around the ping that is under way
        self._unanswered = 0  # pings, one after the other
        self._deadline = trio.current_time() + limits.handshake_timeout
        self._overdue = Close(
            CloseCode.UNAUTHORIZED, f"no `auth` within {limits.handshake_timeout:g} s"
        )

    def expire_in(self, seconds: float) -> None:
        """Set when the token expires: later than before, or earlier."""
        self._deadline = trio.current_time() + seconds
        self._overdue = Close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        if self._beating is not None:
            self._beating.deadline = min(self._beating.deadline, self._deadline)
        if self._changed is not None:
            try:
                self._changed.send_nowait(None)
            except trio.WouldBlock:
                pass  # it will look anyway

    async def run(self) -> None:
        """Keep watch until cancelled."""
        limits, vitals = self._limits, self._vitals
        self._changed, changed = trio.open_memory_channel[None](1)
        ping_at = trio.current_time() + limits.ping_interval
        while True:
            idle_at = vitals.active_at + limits.idle_timeout
            with trio.move_on_at(min(ping_at, idle_at, self._deadline)):
                await changed.receive()
                continue
            now = trio.current_time()
            if now >= self._deadline:
                vitals.request_close(self._overdue)
            elif now >= vitals.active_at + limits.idle_timeout:
                reason = f"no message for {limits.idle_timeout:g} s"
                vitals.request_close(Close(CloseCode.IDLE, reason))
            elif now >= ping_at:
                pause = await self._beat()
                ping_at = trio.current_time() + pause

    async def _beat(self) -> float:
        """Ping, and return after how many seconds to ping again.

        Any byte from the peer counts as its pong. So does a full socket: then the ping itself
        is waiting, and the writer's deadline decides. And a timer that comes late says that the
        server stalled, not the peer: the pong may lie unread, so the clock starts again.
        """
        limits, vitals = self._limits, self._vitals
        started, received = trio.current_time(), vitals.received
        deadline = min(started + limits.pong_timeout, self._deadline)
        try:
            with trio.move_on_at(deadline) as self._beating:
                await self._ping()
                self.round_trip = trio.current_time() - started
                self._unanswered = 0
                return limits.ping_interval
        finally:
            self._beating = None
        now = trio.current_time()
        if now - deadline > STALL or now >= self._deadline:
            return 0
        self._unanswered += 1
        alive = vitals.received != received or vitals.is_blocked
        if not alive or self._unanswered >= MAX_UNANSWERED:
            reason = f"no pong for {limits.pong_timeout:g} s"
            vitals.request_close(Close(CloseCode.NO_PONG, reason))
        return limits.ping_interval
