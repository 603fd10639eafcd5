"""Snapshots of what is going on: frozen values, taken when asked for, never counted on."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class ConnectionStatistics:
    """One connection, as it was at one moment.

    Attributes:
        id: unique, and ordered by time of opening.
        user: the token's `sub`, or None before `auth`.
        peer: network address.
        state: `open` or `closing`.
        opened_at: seconds since 1970.
        age: seconds it has been open.
        idle: seconds since the last message either way.
        channels: what it watches.
        received_messages: messages of the client; so received_bytes, with all overhead.
        sent_messages: published messages delivered; so sent_bytes, everything.
        lag: messages waiting for it, over all its channels.
        lag_seconds: how long the oldest of them has been waiting; of those that only the store
            has, at least so long: as the oldest that is in memory.
        round_trip: seconds of the last ping to its pong, or None.
    """

    id: str
    user: str | None
    peer: str
    state: str
    opened_at: float
    age: float
    idle: float
    channels: tuple[str, ...]
    received_messages: int
    received_bytes: int
    sent_messages: int
    sent_bytes: int
    lag: int
    lag_seconds: float
    round_trip: float | None


@attrs.frozen(kw_only=True)
class ClosedConnection:
    """A connection that has ended, and why.

    Attributes:
        last: its last statistics.
        code: the close code.
        reason: what was said with it.
        closed_at: seconds since 1970.
    """

    last: ConnectionStatistics
    code: int
    reason: str
    closed_at: float


@attrs.frozen(kw_only=True)
class Traffic:
    """What connections have sent and received together.

    Attributes:
        received_messages, received_bytes: of clients.
        delivered: published messages sent to viewers, each counted for each viewer.
        sent_bytes: everything sent.
    """

    received_messages: int = 0
    received_bytes: int = 0
    delivered: int = 0
    sent_bytes: int = 0

    def plus(self, connection: ConnectionStatistics) -> Traffic:
        """Return the sum with one connection's."""
        return Traffic(
            received_messages=self.received_messages + connection.received_messages,
            received_bytes=self.received_bytes + connection.received_bytes,
            delivered=self.delivered + connection.sent_messages,
            sent_bytes=self.sent_bytes + connection.sent_bytes,
        )


@attrs.frozen(kw_only=True)
class ServerStatistics:
    """The server as a whole, as it was at one moment.

    Attributes:
        connections: open now, event streams included.
        opened: connections ever; so closed, by close code, and refused, by HTTP status.
        channels: logs held in memory; with a store on disk, those in use.
        log_bytes: what they are counted with, in memory.
        published: messages published since the start, by clients and by the application.
        draining: whether it takes no new connections any more.
        received_messages, received_bytes, delivered, sent_bytes: see `Traffic`; of all
            connections since the start.
        gaps: gaps that viewers were told of.
        errors: requests refused, by error code.
        answers: HTTP requests that were answered, by status.
        lag, lag_seconds: of the viewer that is furthest behind.
        stalled: the longest time, in seconds, that the event loop was late.
    """

    connections: int
    opened: int
    closed: dict[int, int]
    refused: dict[int, int]
    channels: int
    log_bytes: int
    published: int
    draining: bool
    received_messages: int
    received_bytes: int
    delivered: int
    sent_bytes: int
    gaps: int
    errors: dict[str, int]
    answers: dict[int, int]
    lag: int
    lag_seconds: float
    stalled: float
