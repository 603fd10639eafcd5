"""The engine on SQLite against a naive model, across closes and crashes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.support_store import MEMORY, Bench, inline, running
from triows.bus import sqlite, store
from triows.bus.store import WallClock
from triows.errors import ErrorCode, RequestError
from triows.messages import Receipt

_channels = st.sampled_from(("a:1", "a:2", "a:3"))
_ids = st.sampled_from((None, None, "1", "2", "3", "4"))
_PUBLISH = st.tuples(
    st.just("publish"), _channels, _ids, st.sampled_from(("ann", "bob")), st.integers(0, 400)
)
_OTHER = st.tuples(
    st.sampled_from(("end", "check", "file", "trim", "release", "batch")),
    _channels,
    st.none(),
    st.just("ann"),
    st.integers(0, 400),
)


@attrs.define
class Model:
    """One channel, as it should be."""

    messages: list[tuple[str, float]] = attrs.field(factory=list)  # data, time
    known: dict[tuple[str, str], tuple[int, float]] = attrs.field(factory=dict)
    epoch: str = ""
    ended: bool = False
    given_up: int = 0


class StoreMachine(RuleBasedStateMachine):
    """Does to an engine and to its model the same; each rule is one life of a server."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.directory.name) / "store.db"
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(store, "in_thread", inline)
        self.patch.setattr(sqlite, "FILED_MESSAGES", 7)
        self.now = 1e9
        self.models: dict[str, Model] = {}
        self.serial = 0

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.patch.undo()
        self.directory.cleanup()

    @initialize(
        max_messages=st.sampled_from((0, 3, 20)),
        max_bytes=st.sampled_from((0, 1500)),
        max_age=st.sampled_from((0, 50.5)),
        tail_bytes=st.sampled_from((1, 2000, 1 << 20)),
        total_bytes=st.sampled_from((0, 1, 5000)),
    )
    def begin(self, **limits: Any) -> None:
        """Choose the limits."""
        self.limits = {**limits, "idempotency_window": 30.25}

    @rule(seconds=st.sampled_from((0.5, 7, 20, 60)))
    def wait(self, seconds: float) -> None:
        """Let time pass while the server is down."""
        self.now += seconds

    @rule(steps=st.lists(_PUBLISH | _PUBLISH | _OTHER, max_size=25), crash=st.booleans())
    def live(self, steps: list[tuple[Any, ...]], crash: bool) -> None:
        """Start a server, do these things, stop it or have it crash."""

        async def main() -> None:
            began = self.now
            clock = WallClock(lambda: began + trio.current_time())
            async with running(self.path, clock, crash=crash, **self.limits) as bench:
                for step in steps:
                    await self._do(bench, *step)
                for channel in self.models:
                    await self._check(bench, channel)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    async def _do(
        self, bench: Bench, what: str, channel: str, id_: str | None, user: str, size: int
    ) -> None:
        if what == "publish":
            self.serial += 1
            outcome = await bench.publish(channel, f"{self.serial} {'x' * size}", id=id_, user=user)
            self._expect(channel, outcome, f"{self.serial} {'x' * size}", id_, user)
        elif what == "batch":
            texts = [f"batch {size} {n}" for n in range(9)]
            outcomes = [bench.submit(channel, text, id=text) for text in texts]
            await bench.bus.settle()
            for text, (outcome,) in zip(texts, outcomes, strict=True):
                self._expect(channel, outcome, text, text, "ann")
        elif what == "end":
            if size == 0:
                outcome = await bench.publish(channel, "end", type="end")
                self._expect(channel, outcome, "end", None, user)
                model = self.models[channel]
                model.ended = True
        elif what == "check":
            await self._check(bench, channel)
        elif what == "file":
            await bench.bus._file()
        elif what == "release":
            log = bench.bus._shelf.get(channel)
            if log is not None:
                log.release()
        elif not bench.bus._queue:
            await bench.give_up_all()
            self._give_up_all()

    def _expect(
        self,
        channel: str,
        outcome: Receipt | RequestError,
        text: str,
        id_: str | None,
        user: str,
    ) -> None:
        model = self.models.setdefault(channel, Model())
        known = model.known.get((user, id_)) if id_ is not None else None
        if known is not None and self.now - known[1] <= self.limits["idempotency_window"]:
            assert outcome == Receipt(model.epoch, known[0], duplicate=True)
            return
        if model.ended:
            assert isinstance(outcome, RequestError)
            assert outcome.code is ErrorCode.ENDED
            return
        assert isinstance(outcome, Receipt)
        model.epoch = model.epoch or outcome.epoch
        model.messages.append((text, self.now))
        assert outcome == Receipt(model.epoch, len(model.messages))
        if id_ is not None:
            model.known[user, id_] = (outcome.offset, self.now)

    def _give_up_all(self) -> None:
        for channel, model in list(self.models.items()):
            model.given_up = max(model.given_up, self._bound(model))
            newest = model.messages[-1][1] if model.messages else self.now
            dead = self.limits["max_age"] and newest < self.now - self.limits["max_age"]
            if dead and model.given_up == len(model.messages):
                del self.models[channel]  # empty for longer than the age and the window

    def _bound(self, model: Model) -> int:
        """Return how many of the oldest messages no limit covers, but for that of bytes."""
        most, age = self.limits["max_messages"], self.limits["max_age"]
        by_count = len(model.messages) - most if most else 0
        by_age = sum(at < self.now - age for _, at in model.messages) if age else 0
        return max(by_count, by_age, 0)

    async def _check(self, bench: Bench, channel: str) -> None:
        """What is kept is the end of all that was published, and not too little of it."""
        model = self.models.get(channel, Model())
        kept = await bench.kept(channel)
        log = await bench.bus.open(channel)
        if model.messages:
            assert (log.epoch, log.head) == (model.epoch, len(model.messages))
            assert (log.ended is not None) == model.ended
        first = min(kept, default=log.head + 1)
        assert list(kept.values()) == [text for text, _ in model.messages[first - 1 :]]
        assert first - 1 >= model.given_up
        if not self.limits["max_bytes"]:
            assert first - 1 <= max(model.given_up, self._bound(model))
        elif not self.limits["max_age"]:
            assert len(kept) >= min(1, len(model.messages))


StoreMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=8, report_multiple_bugs=False
)
test_store_agrees_with_a_model: type = StoreMachine.TestCase
