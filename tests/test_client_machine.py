"""The client over connections that are lost, servers that restart, and time that passes."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import triows
from tests.support import memory_server
from tests.support_client import CHANNEL, Network
from tests.support_machine import PATIENT, Theatre

LIMITS = triows.Limits(
    messages_per_second=0,
    drain_timeout=0.0,
    **PATIENT,  # type: ignore[arg-type]
)
Place = tuple[str, int]
"""Epoch and offset."""


class ClientMachine(RuleBasedStateMachine):
    """A client watches and publishes while everything around it fails; what it hands out is held
    against what was acknowledged: each offset once, in order, holes told.
    """

    @initialize(kept=st.sampled_from((3, 1000)))
    def begin(self, kept: int) -> None:
        """Open a server, a client and a subscription."""
        self.theatre = Theatre()  # its own server is not used: ours restart
        # Ids are remembered for as long as a client may take to come back here.
        self.log = triows.LogLimits(max_messages=kept, idempotency_window=86_400)
        self.said: dict[Place, Any] = {}  # what was acknowledged
        self.heard: dict[Place, Any] = {}
        self.serial = self.waiting = 0
        self.epoch, self.last = "", 0
        self.network = Network(self.theatre.do(lambda: self.theatre.nursery), None)
        self.theatre.do(self._restart)
        self.theatre.do(self.theatre.nursery.start_soon, self._watch)

    async def _serve(self, task_status: trio.TaskStatus[triows.Server]) -> None:  # noqa: ASYNC114
        async with memory_server(limits=LIMITS, log=self.log) as server:
            self.stop = trio.Event()
            task_status.started(server)
            await self.stop.wait()

    async def _restart(self) -> None:
        """End the server, if there is one, and have a new one, whose log begins anew."""
        if self.network.server is not None:
            self.network.server = None
            self.stop.set()
        self.network.server = await self.theatre.nursery.start(self._serve)

    async def _watch(self) -> None:
        async with self.network.client() as self.client:
            async with self.client.subscribe(CHANNEL, from_start=True) as self.messages:
                async for message in self.messages:
                    self._check(message)

    def _check(self, message: triows.Message) -> None:
        position = self.messages.position
        assert position is not None
        if message.type == "gap":
            gap = message.data
            if gap["reason"] == "epoch":
                assert gap["epoch"] != self.epoch
                self.last = 0
            assert gap["from"] == self.last + 1
            self.last = gap["to"]
        else:
            assert position.epoch == (self.epoch or position.epoch)
            assert message.offset == self.last + 1
            self.last += 1
            self.heard[position.epoch, self.last] = message.data
        self.epoch = position.epoch
        assert position.offset == self.last

    # What may happen

    @rule(count=st.integers(1, 6))
    def say(self, count: int) -> None:
        """The application at the server publishes."""

        async def step() -> None:
            assert self.network.server is not None
            for _ in range(count):
                self.serial += 1
                position = await self.network.server.publish(CHANNEL, triows.log(self.serial))
                self._note(position, self.serial)

        if self.network.server is not None:
            self.theatre.do(step)

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        """The client publishes; the answer comes when there is a connection."""
        for _ in range(count):
            self.serial += 1
            self.waiting += 1
            self.theatre.do(self.theatre.nursery.start_soon, self._publish, self.serial)

    async def _publish(self, number: int) -> None:
        position = await self.client.publish(CHANNEL, triows.log(number))
        self.waiting -= 1
        self._note(position, number)

    def _note(self, position: triows.Position, number: int) -> None:
        place = position.epoch, position.offset
        assert place not in self.said, "two messages were given one place"
        self.said[place] = number

    @rule(back=st.booleans())
    def cut(self, back: bool) -> None:
        """The newest connection breaks; time enough to come back, or not."""
        if self.network.streams:
            self.theatre.do(self.network.cut)
        if back:
            self.theatre.wait(25)

    @rule(receives=st.integers(500, 2500), sends=st.none() | st.integers(300, 1500))
    def weaken(self, receives: int, sends: int | None) -> None:
        """The next connection, which is soon, breaks after so many bytes: an answer is lost."""
        self.theatre.do(self.network.limits.append, (receives, sends))
        self.cut(back=True)

    @rule(often=st.integers(0, 3))
    def restart(self, often: int) -> None:
        """The server forgets everything, once in a while."""
        if not often:
            self.theatre.do(self._restart)

    @rule(seconds=st.sampled_from((0.01, 1.0, 1.0, 25.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.theatre.wait(seconds)

    def teardown(self) -> None:
        """In the end everything was answered, and is known to the viewer."""
        if not hasattr(self, "network"):
            return
        try:
            self.network.limits.clear()
            for _ in range(60):
                self.theatre.wait(1.0)
            assert self.waiting == 0
            log = self.theatre.do(self._log)
            assert (self.epoch or log.epoch, self.last) == (log.epoch, log.head)
            for place in self.heard.keys() & self.said.keys():
                assert self.heard[place] == self.said[place]
            for epoch in {epoch for epoch, _ in self.heard}:
                data = [d for (e, _), d in self.heard.items() if e == epoch]
                assert len(set(data)) == len(data), "a message was published twice"
        finally:
            self.theatre.end()

    async def _log(self) -> Any:
        assert self.network.server is not None
        return await self.network.server._bus.open(CHANNEL)


ClientMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, report_multiple_bugs=False
)
test_client_hands_out_everything_once: type = ClientMachine.TestCase
