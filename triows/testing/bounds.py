"""What has to hold of a running server at any moment, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterator

from triows.bus.memory import MemoryBus
from triows.connection import BACKLOG, Connection
from triows.hub import Hub
from triows.logs import ID_OVERHEAD, MESSAGE_OVERHEAD, Log
from triows.server import Server

_ANSWER = 2048  # bytes of one answer, at most, in a simulation
_MESSAGE = 4096  # bytes of one message, at most, in a simulation


def broken(server: Server, pull_bytes: int) -> Iterator[str]:
    """Yield what does not hold.

    Args:
        server: to be looked at.
        pull_bytes: what a connection is given at a time.
    """
    bus, limits = server._bus, server.settings.log
    for log in bus.logs():
        yield from _broken_log(log, limits.max_messages, limits.max_bytes)
    if isinstance(bus, MemoryBus):
        counted = sum(log.size for log in bus.logs())
        if bus.size != counted:
            yield f"the bus counts {bus.size} bytes, its logs {counted}"
    members = server._registry.members()
    for member in members:
        if isinstance(member, Connection):
            yield from _broken_connection(member, pull_bytes)
    yield from _broken_hub(server._hub, len(members))


def _broken_log(log: Log, most: int, most_bytes: int) -> Iterator[str]:
    kept = log.head - log.held + 1
    frames = log._frames[log._skip :]
    if len(frames) != kept:
        yield f"{log.channel} holds {len(frames)} messages from {log.held} to {log.head}"
    if not 1 <= log.earliest <= log.held <= log.head + 1:
        yield f"{log.channel}: earliest {log.earliest}, held {log.held}, head {log.head}"
    if not log.is_stored and most and kept > most:
        yield f"{log.channel} holds {kept} messages; the limit is {most}"
    size = sum(map(len, frames)) + len(frames) * MESSAGE_OVERHEAD
    if not log.is_stored and most_bytes and kept > 1 and size > most_bytes:
        yield f"{log.channel} holds {size} bytes; the limit is {most_bytes}"
    if log.size < size + len(log._ids) * ID_OVERHEAD:
        yield f"{log.channel} counts {log.size} bytes and holds more: {size}"


def _broken_connection(connection: Connection, pull_bytes: int) -> Iterator[str]:
    sender = connection.outgoing
    if sender.reply_size > BACKLOG + _ANSWER:
        yield f"{sender.reply_size} bytes of answers wait on one connection"
    if sender.reply_size != sum(map(len, sender._replies)):
        yield f"answers are counted as {sender.reply_size} bytes, and are not"
    busy = sender.queued or sender._unsent is not None or bool(sender.stale)
    ending = sender._closed or sender._stopped or sender._parting is not None
    if (busy or ending) and sender.sink is not None:
        yield "a connection is sent to at once, and has something else to see to"
    unsent = len(sender._unsent) if sender._unsent is not None else 0
    if unsent > pull_bytes + _MESSAGE + BACKLOG + _ANSWER:
        yield f"{unsent} bytes wait for one socket; a pull is {pull_bytes}"
    if connection.close is not None and connection.subscriptions:
        yield f"a connection that closes with {connection.close.code} still watches"


def _broken_hub(hub: Hub, members: int) -> Iterator[str]:
    if len(hub._ready) > 2 * members + 16:
        yield f"{len(hub._ready)} connections wait for the flusher, of {members}"
    for channel, topic in hub._topics.items():
        watching = list(topic.subscriptions)
        if not all(cohort.members for cohort in topic.cohorts):
            yield f"{channel} has a cohort of nobody"
        cohorts = [s for c in topic.cohorts for s in c.members.values()]
        if sorted(map(id, [*cohorts, *topic._loose])) != sorted(map(id, watching)):
            yield f"{channel}: who watches is not in one place"
        if topic.log.watchers != len(watching):
            yield f"{channel} counts {topic.log.watchers} watchers, and has {len(watching)}"
        for subscription in watching:
            if subscription.cohort is not None and subscription in subscription.subscriber.stale:
                yield f"{channel}: one that keeps up is to be seen to apart"
            if not subscription.active:
                yield f"{channel} is watched by who has left"
            cohort, head = subscription.cohort, topic.log.head
            at = subscription.cursor if cohort is None else cohort.cursor
            if not subscription.cursor <= at <= head:
                yield f"{channel}: a cursor at {subscription.cursor}, now {at}, the log at {head}"
