"""Logs, hub, senders and subscriptions against a naive model, step by step."""

from __future__ import annotations

import json
import math
from typing import Any

import attrs
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import triows
from tests.support import CLOSE, TEXT, Peer, connect
from tests.support_machine import PATIENT, Theatre

CHANNELS = ("session:a", "session:b")
_channels = st.sampled_from(CHANNELS)
_viewers = st.integers(0, 2)


@attrs.define
class Place:
    """How far a viewer is in one channel."""

    last: int
    on_lag: str


@attrs.define(eq=False)
class Viewer:
    """One connection, and what has to come over it.

    Attributes:
        budget: how many frames it may still read: it is as slow as the machine wants.
        asked: what the answers, which come in order, are to: request and its data.
        places: by channel, of subscriptions that were acknowledged.
        closed: the code that it was closed with, or None.
    """

    peer: Peer
    budget: trio.Semaphore
    out: trio.MemorySendChannel[str]
    asked: list[tuple[str, str, dict[str, Any]]] = attrs.field(factory=list)
    places: dict[str, Place] = attrs.field(factory=dict)
    closed: int | None = None


class WatchMachine(RuleBasedStateMachine):
    """Publishes, watches, reads slowly, and checks every frame against lists of what was said."""

    @initialize(kept=st.sampled_from((3, 8, 1000)), narrow=st.booleans())
    def begin(self, kept: int, narrow: bool) -> None:
        """Open a server and three viewers."""
        limits = triows.Limits(messages_per_second=0, **PATIENT)  # type: ignore[arg-type]
        self.theatre = Theatre(limits=limits, log=triows.LogLimits(max_messages=kept))
        self.said: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.serial = 0
        self.viewers = [self.theatre.do(self._open, narrow) for _ in range(3)]

    async def _open(self, narrow: bool) -> Viewer:
        nursery = self.theatre.nursery
        # The greeting is read at once: only from then on is a viewer slow.
        peer = await connect(self.theatre.server, nursery, narrow=narrow)
        out, texts = trio.open_memory_channel[str](math.inf)
        viewer = Viewer(peer, trio.Semaphore(0), out)
        nursery.start_soon(self._send, viewer, texts)
        nursery.start_soon(self._read, viewer)
        return viewer

    async def _send(self, viewer: Viewer, texts: trio.MemoryReceiveChannel[str]) -> None:
        async for text in texts:
            try:
                await viewer.peer.say(**json.loads(text))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _read(self, viewer: Viewer) -> None:
        while viewer.closed is None:
            await viewer.budget.acquire()
            opcode, payload = await viewer.peer.receive()
            if opcode == CLOSE:
                viewer.closed = int.from_bytes(payload[:2], "big")
            else:
                assert opcode == TEXT
                self._check(viewer, json.loads(payload))

    # What has to come

    def _check(self, viewer: Viewer, message: dict[str, Any]) -> None:
        channel = message.get("channel", "")
        if message["type"] in ("ack", "error"):
            self._check_answer(viewer, message)
            return
        place = viewer.places[channel]  # nothing comes for what is not watched
        log = self.theatre.server._hub._topics[channel].log if self._is_watched(channel) else None
        if message["type"] == "gap":
            gap = message["data"]
            assert (gap["from"], gap["count"]) == (place.last + 1, gap["to"] - place.last)
            assert gap["count"] > 0
            assert place.on_lag != "close" or gap["reason"] == "retention"
            if log is not None and place.on_lag == "gap":
                assert gap["to"] < log.earliest, "a gap of what is still kept"
            place.last = gap["to"]
            return
        assert message["offset"] == place.last + 1
        assert message["data"] == self.said[channel][place.last]
        place.last += 1

    def _is_watched(self, channel: str) -> bool:
        return channel in self.theatre.server._hub._topics

    def _check_answer(self, viewer: Viewer, message: dict[str, Any]) -> None:
        what, id_, start = viewer.asked.pop(0)
        assert message["id"] == id_
        channel = message["channel"]
        if message["type"] == "error":
            expected = {"unsubscribe": "not_subscribed", "subscribe": "bad_position"}[what]
            assert message["data"]["code"] == expected
            assert what == "subscribe" or channel not in viewer.places
            return
        if what == "unsubscribe":
            del viewer.places[channel]
            return
        head, earliest = message["data"]["offset"], message["data"]["earliest"]
        assert head <= len(self.said[channel])
        last = head
        if "from" in start:
            last = 0
        elif "tail" in start:
            last = max(earliest - 1, head - start["tail"])
        elif "since" in start:
            last = start["since"]["offset"]
        viewer.places[channel] = Place(last, start["on_lag"])

    # What may happen

    @rule(channel=_channels, count=st.integers(1, 7), size=st.sampled_from((1, 1, 30_000)))
    def publish(self, channel: str, count: int, size: int) -> None:
        """Publish some messages, without a pause."""

        async def step() -> None:
            for _ in range(count):
                self.serial += 1
                text = f"{self.serial} {'x' * size}"
                self.said[channel].append(text)
                await self.theatre.server.publish(channel, triows.log(text))

        self.theatre.do(step)

    @rule(
        viewer=_viewers,
        channel=_channels,
        start=st.sampled_from(("new", "from", "tail", "since")),
        number=st.integers(0, 12),
        on_lag=st.sampled_from(("gap", "gap", "latest", "close")),
    )
    def subscribe(self, viewer: int, channel: str, start: str, number: int, on_lag: str) -> None:
        """Ask to watch, from anywhere, also what is watched already."""
        data: dict[str, Any] = {"on_lag": on_lag}
        if start == "from":
            data["from"] = "start"
        elif start == "tail":
            data["tail"] = number
        elif start == "since":
            epoch = self.theatre.do(self._epoch, channel)
            data["since"] = {"epoch": epoch, "offset": min(number, len(self.said[channel]))}
        self._ask(viewer, "subscribe", channel, data)

    async def _epoch(self, channel: str) -> str:
        return (await self.theatre.server._bus.open(channel)).epoch

    @rule(viewer=_viewers, channel=_channels)
    def unsubscribe(self, viewer: int, channel: str) -> None:
        """Ask to watch no longer, also what is not watched."""
        self._ask(viewer, "unsubscribe", channel, {})

    def _ask(self, number: int, what: str, channel: str, data: dict[str, Any]) -> None:
        viewer = self.viewers[number]
        self.serial += 1
        id_ = str(self.serial)
        viewer.asked.append((what, id_, data))
        text = json.dumps({"type": what, "id": id_, "channel": channel, "data": data})

        self.theatre.do(viewer.out.send_nowait, text)

    @rule(viewer=_viewers, count=st.sampled_from((1, 2, 5, 50)))
    def read(self, viewer: int, count: int) -> None:
        """Let one viewer read some frames."""
        self._let(self.viewers[viewer], count)

    def _let(self, viewer: Viewer, count: int) -> None:
        def step() -> None:
            for _ in range(count):
                viewer.budget.release()

        self.theatre.do(step)

    @rule(seconds=st.sampled_from((0.001, 1.0, 30.0)))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.theatre.wait(seconds)

    @precondition(lambda self: self.serial > 5)
    @rule(viewer=_viewers)
    def catch_up(self, viewer: int) -> None:
        """Let one viewer read all there is: then it is at the head, or was told why not."""
        self._settle(self.viewers[viewer])

    def _settle(self, viewer: Viewer) -> None:
        self._let(viewer, 5000)
        if viewer.closed is not None:
            assert viewer.closed == 4003
            assert any(place.on_lag == "close" for place in viewer.places.values())
            return
        assert viewer.asked == []
        for channel, place in viewer.places.items():
            assert place.last == len(self.said[channel]), (channel, place)
        self.theatre.do(self._forget, viewer)

    def _forget(self, viewer: Viewer) -> None:
        """Take back what it did not use of its budget: it is slow again."""
        while viewer.budget.value:
            viewer.budget.acquire_nowait()

    def teardown(self) -> None:
        """In the end everybody has everything, and nothing is left."""
        if not hasattr(self, "viewers"):
            return
        try:
            for viewer in self.viewers:
                self._settle(viewer)
        finally:
            self.theatre.end()


WatchMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, report_multiple_bugs=False
)
test_viewers_agree_with_lists: type = WatchMachine.TestCase
