"""The hub alone, with subscribers that do as a test says."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery
from triows import hub as hub_module
from triows.config import LogLimits
from triows.errors import Close
from triows.hub import PULL_BYTES, Hub, OnLag, Subscription
from triows.logs import Log, Slice


class _Fake:
    """A subscriber that takes everything."""

    def __init__(self) -> None:
        self.queued = False
        self.stale: dict[Subscription, None] = {}
        self.got: list[bytes] = []

    def flush(self, now: float) -> None:
        self.queued = False
        for subscription in list(self.stale):
            del self.stale[subscription]
            gap = subscription.catch_up()
            self.got += [gap] if gap else []
            if subscription.lag:
                piece = subscription.log.slice(subscription.cursor, PULL_BYTES)
                self._take(subscription, piece)

    def deliver(self, subscription: Subscription, piece: Slice, now: float) -> bool:
        if self.queued:
            return False
        self._take(subscription, piece)
        return piece.last == subscription.log.head

    def _take(self, subscription: Subscription, piece: Slice) -> None:
        self.got.append(piece.data)
        subscription.cursor = piece.last

    def request_close(self, close: Close) -> None:
        raise AssertionError

    def describe(self) -> dict[str, object]:
        return {}


async def test_log_that_begins_anew_while_others_have_their_turn(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gets a message of the old epoch in the place of a new one at the same offset."""
    monkeypatch.setattr(hub_module, "_BUDGET", -1.0)  # the flusher pauses whenever it may
    hub, log = Hub(), Log("session:a", LogLimits(), 0.0)
    fakes = [_Fake() for _ in range(2 * hub_module._CHECK_EVERY)]
    for number in range(3):
        log.append(triows.log(f"old {number}"), "u", 0.0)
    for fake in fakes:
        hub.subscribe(fake, log, 3, OnLag.GAP)
    nursery.start_soon(hub.run)
    await wait_all_tasks_blocked()

    async def begin_anew(turn: object) -> None:
        monkeypatch.undo()
        log.epoch, log.head, log.earliest, log.held = "another", 0, 1, 1
        log._frames.clear()
        del log._times[:]
        for number in range(3):
            log.append(triows.log(f"new {number}"), "u", 0.0)
        hub.renew(log)
        fakes[-1].flush(0.0)  # as for a control frame
        log.append(triows.log("new 3"), "u", 0.0)
        hub.mark(log, 1)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(hub_module._Turn, "pause", begin_anew)
    log.append(triows.log("old 3"), "u", 0.0)
    hub.mark(log, 1)
    await wait_all_tasks_blocked()
    assert b"old" not in b"".join(fakes[-1].got)
    assert b"new 3" in fakes[-1].got[-1]
    nursery.cancel_scope.cancel()
