"""Somebody who waits for a log to grow, as the hub sees it: a cursor, and no queue."""

from __future__ import annotations

import time

import trio
import uuid_utils

from triows.auth import Identity
from triows.errors import Close
from triows.http.serving import Receive
from triows.topics import Subscription
from triows.transport import Sink


class Waiter:
    """Woken by the hub when there is something; takes it by itself.

    Args:
        identity: who waits.

    Attributes:
        id: unique (UUIDv7), and ordered by time.
        gone: whether the peer has hung up.
        queued, sink, stale: see `triows.topics.Subscriber`.
    """

    def __init__(self, identity: Identity) -> None:
        self.id = str(uuid_utils.uuid7())
        self.identity: Identity | None = identity
        self.gone = False
        self.queued = False
        self.sink: Sink | None = None  # it takes by itself
        self.stale: dict[Subscription, None] = {}
        self._since = time.time()
        self._woken = trio.Event()

    def wake(self) -> None:
        """Have `wait` return; returns at once."""
        self._woken.set()

    async def wait(self) -> None:
        """Wait until there may be something."""
        await self._woken.wait()
        self._woken = trio.Event()

    async def watch_peer(self, receive: Receive) -> None:
        """Wake up when the peer hangs up."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.wake()

    # For the hub

    def flush(self, now: float) -> None:
        """Note that there is something."""
        self.queued = False
        self.stale.clear()
        self.wake()

    def took(self, messages: int, size: int, at: float, unsent: memoryview | None = None) -> None:
        """Never asked: nothing is sent to it."""
        raise AssertionError("a waiter has no sink")

    def request_close(self, close: Close) -> None:
        """Wait no longer."""
        self.gone = True
        self.wake()

    def describe(self) -> dict[str, object]:
        """Say who this is, for `presence`."""
        user = self.identity.user if self.identity else None
        return {"connection": self.id, "user": user, "since": self._since}
