"""What can be seen of a server and done to it, by its application and over HTTP."""

from __future__ import annotations

import random
from typing import Final, final

import attrs
import trio

from triows.auth import Identity, Revocation, Revocations
from triows.bus import Bus
from triows.counters import Counts
from triows.errors import Close, CloseCode, HandshakeRefused, RequestError, may_reconnect
from triows.hub import Hub
from triows.registry import Registry
from triows.stall import StallClock
from triows.statistics import ClosedConnection, ConnectionStatistics, ServerStatistics

_RECONNECTS_PER_SECOND: Final = 200
"""How many clients a second are asked to come back after a drain."""

_AT_ONCE: Final = 100  # connections looked at before others get a turn


@final
@attrs.define
class Administration:
    """The parts of a server that know how it is doing."""

    registry: Registry
    revocations: Revocations
    hub: Hub
    bus: Bus
    counts: Counts
    stall: StallClock
    accepting: trio.CancelScope
    draining: trio.Event = attrs.field(factory=trio.Event)

    # Seen

    def connections(self) -> list[ConnectionStatistics]:
        """Return a snapshot of every connection, oldest first."""
        return [member.statistics() for member in self.registry.members()]

    def closed_connections(self) -> list[ClosedConnection]:
        """Return the last connections that ended, newest last, with the reason of each."""
        return list(self.registry.closed)

    def describe(self, connection: str) -> dict[str, object] | None:
        """Return how a connection of this server is doing, or why it ended; None if it is not
        known.
        """
        member = self.registry.get(connection)
        if member is not None:
            return attrs.asdict(member.statistics())
        for closed in reversed(self.registry.closed):
            if closed.last.id == connection:
                advice = "reconnect" if may_reconnect(closed.code) else "stay away"
                return {"state": "closed", **attrs.asdict(closed), "advice": advice}
        return None

    async def look(self) -> list[ConnectionStatistics]:
        """Return what `connections` does, letting others run in between."""
        found: list[ConnectionStatistics] = []
        for member in self.registry.members():
            found.append(member.statistics())
            if not len(found) % _AT_ONCE:
                await trio.lowlevel.checkpoint()
        return found

    def statistics(self, connections: list[ConnectionStatistics]) -> ServerStatistics:
        """Return a snapshot of the server as a whole.

        Args:
            connections: those of now.
        """
        registry = self.registry
        traffic = registry.traffic
        for connection in connections:
            traffic = traffic.plus(connection)
        return ServerStatistics(
            connections=len(registry),
            opened=registry.opened,
            closed=dict(registry.closed_by_code),
            refused=dict(registry.refused),
            channels=sum(1 for _ in self.bus.logs()),
            log_bytes=self.bus.size,
            published=self.bus.published,
            draining=registry.draining,
            **attrs.asdict(traffic),
            gaps=self.hub.gaps,
            errors=dict(self.counts.errors),
            answers=dict(self.counts.answers),
            lag=max((c.lag for c in connections), default=0),
            lag_seconds=max((c.lag_seconds for c in connections), default=0.0),
            stalled=self.stall.lateness.longest,
        )

    # Done

    def disconnect(self, connection: str, reason: str = "by an administrator") -> bool:
        """End one connection with 4503, at once; False if there is none of that id."""
        member = self.registry.get(connection)
        if member is not None:
            member.request_close(Close(CloseCode.DISCONNECTED, reason))
        return member is not None

    async def revoke(self, *, token_id: str | None = None, user: str | None = None) -> int:
        """Believe a token no more, or no token of a user that was issued until now.

        Its connections get nothing more from before the first checkpoint on; see `cut`. Then waits
        until the engine has kept it, and returns how many connections there were.

        Raises:
            ConfigError: neither is named, or both are.
            RequestError: `unavailable`: it holds, but only for as long as this server runs.
        """
        revocation = Revocation(token_id=token_id, user=user)
        count = self.cut(revocation)
        try:
            await self.bus.revoke(revocation)
        except RequestError as error:
            raise RequestError(
                error.code,
                f"revoked until this server ends, {count} connections cut, but not stored: "
                f"{error.message}; revoke again",
                retry_after=error.retry_after,
            ) from error
        return count

    def cut(self, revocation: Revocation) -> int:
        """Obey a revocation: of this server, of another one, or of one before this.

        The connections concerned get nothing more from this moment on and are closed with 4503,
        within `limits.close_timeout` at the latest; one that has not taken what was sent before
        is cut without a word. Returns how many there were.
        """
        self.revocations.add(revocation)
        close = Close(CloseCode.DISCONNECTED, "the token was revoked")
        cut = [m for m in self.registry.members() if self._is_revoked(m.identity)]
        for member in cut:
            member.cut(close)
        for guest in list(self.registry.guests):
            if self._is_revoked(guest.identity):
                guest.cut(close)
        return len(cut)

    def drain(self) -> tuple[int, float]:
        """Take no new connections, and end each one as soon as it has all that is its.

        Returns at once: how many connections there are, and over how many seconds their
        clients were told to come back.
        """
        members = self.registry.members()
        window = len(members) / _RECONNECTS_PER_SECOND
        if not self.registry.draining:
            self.registry.draining = True
            self.draining.set()
            self.accepting.cancel(reason="the server is draining")
            for member in members:
                member.drain(round(random.uniform(0, window), 3))  # noqa: S311 no secret
            for guest in list(self.registry.guests):
                guest.drain()
        return len(members), window

    def _is_revoked(self, identity: Identity | None) -> bool:
        try:
            if identity is not None:
                self.revocations.check(identity)
        except HandshakeRefused:
            return True
        return False
