"""All connections of a server: the pool and its limit, who is who, and who was."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol

from triows.auth import Identity
from triows.config import Limits
from triows.errors import Close, CloseCode, ErrorCode, HandshakeRefused
from triows.statistics import ClosedConnection, ConnectionStatistics, Traffic

logger = logging.getLogger("triows.connection")

CLOSED_KEPT: Final = 1000  # connections whose end can still be looked up
_RETRY_AFTER: Final = 5  # seconds a client is asked to wait for a place

Announce = Callable[[dict[str, object]], None]
"""Told of each opening and end, as the data of an `event`."""


class Member(Protocol):
    """What the registry knows of a connection."""

    id: str
    identity: Identity | None

    def request_close(self, close: Close) -> None:
        """Ask for the end; returns at once."""

    def cut(self, close: Close) -> None:
        """Ask for the end such that nothing more reaches the peer; returns at once."""

    def drain(self, after: float) -> None:
        """Ask for the end once it has all that is its; returns at once.

        Args:
            after: seconds after which the client should come back.
        """

    def statistics(self) -> ConnectionStatistics:
        """Return a snapshot."""


class Guest(Protocol):
    """A connection outside the pool: one that asks, is answered, and may ask again."""

    identity: Identity | None
    """Who waits for an answer, if somebody does."""

    def cut(self, close: Close) -> None:
        """Give no answer but a refusal; returns at once."""

    def drain(self) -> None:
        """Ask for the end after the answer that is under way; returns at once."""


class Registry:
    """The connections there are.

    Attributes:
        draining: while true, nobody is admitted.
        closed: the last ones that ended, newest last.
        refused: how many were refused, by HTTP status; so refused_by_code, by error code.
        traffic: of those that have ended.
        guests: connections outside the pool, longest there first.
    """

    def __init__(self, limits: Limits, announce: Announce) -> None:
        self.draining = False
        self.closed: deque[ClosedConnection] = deque(maxlen=CLOSED_KEPT)
        self.closed_by_code: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.refused_by_code: Counter[str] = Counter()
        self.traffic = Traffic()
        self.guests: dict[Guest, None] = {}
        self.opened = 0
        self._limits = limits
        self._announce = announce
        self._members: dict[str, Member] = {}
        self._by_user: dict[str, dict[Member, None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def get(self, id: str) -> Member | None:
        """Return the connection of that id, if it is open."""
        return self._members.get(id)

    def members(self) -> list[Member]:
        """Return all connections, oldest first."""
        return list(self._members.values())

    def refuse(self, refusal: HandshakeRefused) -> None:
        """Take note that somebody was not let in."""
        self.refused[refusal.status] += 1
        self.refused_by_code[refusal.code] += 1

    def check_room(self) -> None:
        """Raises HandshakeRefused (503) if nobody can be admitted now."""
        limit = self._limits.max_connections
        if self.draining:
            message = "the server is shutting down; connect again"
        elif limit and len(self._members) >= limit:
            message = f"{len(self._members)} connections are open; the limit is {limit}"
        else:
            return
        raise HandshakeRefused(503, ErrorCode.UNAVAILABLE, message, retry_after=_RETRY_AFTER)

    def add(self, member: Member) -> None:
        """Admit a connection: it has a place in the pool until `remove`.

        Raises:
            HandshakeRefused: 503.
        """
        self.check_room()
        self._members[member.id] = member
        self.opened += 1

    def identify(self, member: Member, user: str) -> None:
        """Note whose connection it is. Of too many of one user the oldest has to go: a client
        that comes back before its old connection was seen to be dead must not be shut out.
        """
        mine = self._by_user.setdefault(user, {})
        if member in mine:
            return
        mine[member] = None
        limit = self._limits.max_connections_per_user
        if limit and len(mine) > limit:
            oldest = next(iter(mine))
            del mine[oldest]
            oldest.request_close(
                Close(
                    CloseCode.TOO_MANY_CONNECTIONS,
                    f"more than {limit} connections of this user",
                )
            )
        self._announce({"event": "opened", "connection": member.id, "user": user})

    def remove(self, member: Member, close: Close) -> None:
        """Take note that a connection has ended."""
        del self._members[member.id]
        last = member.statistics()
        self.traffic = self.traffic.plus(last)
        self.closed.append(
            ClosedConnection(
                last=last, code=int(close.code), reason=close.reason, closed_at=time.time()
            )
        )
        self.closed_by_code[int(close.code)] += 1
        _log_end(last, close)
        if last.user is None:
            return
        mine = self._by_user.get(last.user, {})
        mine.pop(member, None)
        if not mine:
            self._by_user.pop(last.user, None)
        self._announce(
            {
                "event": "closed",
                "connection": last.id,
                "user": last.user,
                "code": int(close.code),
                "reason": close.reason,
            }
        )


def _log_end(last: ConnectionStatistics, close: Close) -> None:
    """Log one line for a connection: who, how long, how much, and why it ended."""
    if logger.isEnabledFor(logging.INFO):
        fields = {
            "connection": last.id,
            "user": last.user,
            "peer": last.peer,
            "code": int(close.code),
            "reason": close.reason,
            "seconds": round(last.age, 3),
            "received_bytes": last.received_bytes,
            "sent_bytes": last.sent_bytes,
            "lag": last.lag,
        }
        logger.info("connection ended", extra=fields)
