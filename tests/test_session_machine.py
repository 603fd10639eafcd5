"""The protocol of one connection: random requests, right and wrong, in any order."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import triows
from tests.support import ALL, CLOSE, TEXT, Peer, connect, frame, token
from tests.support_machine import PATIENT, Theatre

RATE, BURST, MOST = 10, 30, 3
ANSWERS = {"ack", "error", "pong", "auth"}
_SOME = st.sampled_from(("session:1", "session:2", "session:3", "session:4", "workspace:1"))
_CHANNELS = _SOME | st.sampled_from((None, "system", "nonsense", "session:é", "x" * 300, 5))
_TYPES = st.sampled_from(
    (
        *("ping", "subscribe", "subscribe", "unsubscribe", "history", "presence", "auth"),
        *("log", "log", "status", "event", "command", "end", "gap", "own", "failing", "unknown", 7),
    )
)
_POSITIONS = st.fixed_dictionaries({"epoch": st.just("e"), "offset": st.integers(-1, 5)})
_DATA = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.text(max_size=5),
    st.lists(st.none(), max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "since": _POSITIONS | st.none() | st.just(5),
            "tail": st.integers(-2, 5),
            "from": st.sampled_from(("start", "x", 1)),
            "to": st.integers(-2, 5),
            "limit": st.integers(-1, 1001),
            "on_lag": st.sampled_from(("gap", "latest", "close", "never")),
            "token": st.sampled_from(("gibberish", "good", 5)),
            "exit_code": st.integers(0, 1) | st.just("x"),
        },
    ),
)
REQUESTS = st.fixed_dictionaries(
    {"type": _TYPES}, optional={"channel": _CHANNELS, "data": _DATA, "timestamp": st.just("x")}
)
NONSENSE = st.sampled_from(("", "{", "[]", "null", '"x"', '{"id":"1"}', '{"type":1,"id":"2"}'))


async def _answer(request: triows.Request) -> Any:
    await trio.lowlevel.checkpoint()
    if request.message.type == "failing":
        raise ValueError("a test says so")
    return {"for": request.message.id}


class SessionMachine(RuleBasedStateMachine):
    """Sends requests and counts answers: one for each id, with that id, whatever it asks."""

    @initialize()
    def begin(self) -> None:
        """Open a connection to a server with handlers and narrow limits."""
        limits = triows.Limits(
            messages_per_second=RATE,
            messages_burst=BURST,
            max_subscriptions=MOST,
            **PATIENT,  # type: ignore[arg-type]
        )
        handlers = {"own": _answer, "failing": _answer}
        self.theatre = Theatre(limits=limits, handlers=handlers)
        self.serial = 0
        self.sent: dict[str, dict[str, Any]] = {}  # requests without an answer, by id
        self.answered: list[str] = []
        self.refused = 0  # errors without an id
        self.accepted = 0
        self.began = self.now = 0.0
        self.closed: int | None = None
        self.peer = self.theatre.do(self._open)

    async def _open(self) -> Peer:
        peer = await connect(self.theatre.server, self.theatre.nursery)
        self.theatre.nursery.start_soon(self._read, peer)
        return peer

    async def _read(self, peer: Peer) -> None:
        while self.closed is None:
            opcode, payload = await peer.receive()
            if opcode == CLOSE:
                self.closed = int.from_bytes(payload[:2], "big")
                return
            assert opcode == TEXT
            self._check(json.loads(payload))

    def _check(self, message: dict[str, Any]) -> None:
        id_ = message.get("id")
        if message["type"] not in ANSWERS or (message["type"] == "auth" and id_ is None):
            return  # something published, or told to everybody
        if id_ is None or id_ not in self.sent:
            assert id_ not in self.answered, f"answered twice: {message}"
            assert message["type"] == "error"
            self.refused += 1
            return
        request = self.sent.pop(id_)
        self.answered.append(id_)
        limited = message["type"] == "error" and message["data"]["code"] == "rate_limited"
        self.accepted += not limited
        if message["type"] != "error":
            wanted = {"ping": "pong", "auth": "auth"}.get(request["type"], "ack")
            assert message["type"] == wanted
            if isinstance(request.get("channel"), str) and wanted == "ack":
                assert message.get("channel") == request["channel"]
        if limited:
            assert message["data"]["retry"] is True
            assert 0 < message["data"]["retry_after"] <= 1 / RATE + 0.001

    @precondition(lambda self: self.closed is None)
    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=6))
    def ask(self, requests: list[dict[str, Any]]) -> None:
        """Send some requests at once, each with an id of its own."""
        frames = []
        for request in requests:
            self.serial += 1
            full = {**request, "id": str(self.serial)}
            data = full.get("data")
            if isinstance(data, dict) and data.get("token") == "good":
                full["data"] = {"token": token("me", **ALL)}
            if isinstance(full["type"], str) and not isinstance(full.get("channel"), int):
                self.sent[full["id"]] = full
            frames.append(frame(json.dumps(full)))
        self._send(b"".join(frames))

    @precondition(lambda self: self.closed is None)
    @rule(channels=st.lists(_SOME, min_size=1, max_size=5), leave=st.booleans())
    def watch(self, channels: list[str], leave: bool) -> None:
        """Watch, or leave, some channels: what chance alone would rarely do in a row."""
        type_ = "unsubscribe" if leave else "subscribe"
        self.ask([{"type": type_, "channel": channel} for channel in channels])

    @precondition(lambda self: self.closed is None)
    @rule(texts=st.lists(NONSENSE, min_size=1, max_size=5))
    def babble(self, texts: list[str]) -> None:
        """Send what is no request."""
        self._send(b"".join(map(frame, texts)))

    def _send(self, data: bytes) -> None:
        async def step() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.peer.send(data)

        self.theatre.do(step)
        self.look()

    @rule(seconds=st.sampled_from((0.05, 0.1, 1.0, 5.0)))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.theatre.wait(seconds)
        self.now += seconds
        self.look()

    def look(self) -> None:
        """Every request was answered, unless that ended the connection; limits held."""
        assert self.accepted <= BURST + RATE * self.now + 1
        if self.closed is not None:
            assert self.closed in (4005, 4502)
            return
        assert self.sent == {}, "a request was not answered"
        (connection,) = self.theatre.do(self.theatre.server.connections)
        assert len(connection.channels) <= MOST

    def teardown(self) -> None:
        """Nothing is left."""
        if hasattr(self, "theatre"):
            self.theatre.end()


SessionMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, report_multiple_bugs=False
)
test_every_request_has_one_answer: type = SessionMachine.TestCase
