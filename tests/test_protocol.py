"""The test vectors of docs/protocol, played; they leave nothing out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support import Nursery, memory_server
from tests.support_protocol import CASES, play, play_in, steps
from triows.conformance.matcher import Mismatch, match
from triows.conformance.player import PLAYS
from triows.conformance.vectors import PLACE
from triows.errors import CloseCode, ErrorCode
from triows.messages import MessageType

ELSEWHERE = {
    ErrorCode.HEAD_TOO_LARGE,  # 16 KiB of a header: tests/test_head.py
    ErrorCode.METHOD_NOT_ALLOWED,  # of HTTP only: tests/test_api_errors.py
    ErrorCode.LENGTH_REQUIRED,
    ErrorCode.TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.BAD_CURSOR,
    ErrorCode.INTERNAL,
    ErrorCode.NOT_INSTALLED,
    CloseCode.NO_WRITE_PROGRESS,  # a socket that is full: tests/test_liveness.py
    CloseCode.NO_PONG,
    CloseCode.ABNORMAL,  # what no close frame says
    CloseCode.GOING_AWAY,  # an aborted server: tests/test_cancellation.py
    CloseCode.INTERNAL_ERROR,
    CloseCode.PROTOCOL_ERROR,  # bytes, not messages: tests/test_hostile.py
    CloseCode.INVALID_TEXT,
}


@pytest.mark.parametrize("name", CASES)
async def test_case(nursery: Nursery, autojump_clock: MockClock, name: str) -> None:
    """The server does what the vector says."""
    await play(CASES[name], nursery)


async def test_one_server_for_all(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What needs nothing can be played against a server that lives on, as the README says."""
    async with memory_server() as server:
        for number, case in enumerate(CASES.values()):
            if "needs" not in case and not any("server" in step for step in case["steps"]):
                await play_in(server, nursery, case, f"{number}/")
        assert server.statistics().opened > 100


def test_no_two_cases_have_one_name() -> None:
    """None is hidden by another."""
    texts = [path.read_text() for path in PLACE.glob("*.json")]
    assert sum(len(json.loads(text).get("cases", ())) for text in texts) == len(CASES)


def test_steps_are_well_formed() -> None:
    """Each step does one thing, and no word in a case is one that nobody reads."""
    for name, case in CASES.items():
        assert case.keys() <= {"name", "about", "needs", "steps"}, name
        for step in case["steps"]:
            kinds = step.keys() & PLAYS.keys()
            assert len(kinds) == 1, (name, step)
            assert step.keys() - kinds <= {"as", "times", "valid", "body"}, (name, step)


def _said() -> list[dict[str, Any]]:
    return [step["expect"] for _, step in steps("expect") if step["expect"] != "$any"]


def test_every_type_is_played() -> None:
    """Every type is sent or heard, published ones both ways."""
    sent = {step["send"]["type"] for _, step in steps("send") if step.get("valid", True)}
    heard = {message["type"] for message in _said()}
    assert sent | heard >= set(MessageType)
    assert sent & heard >= {"log", "status", "event", "command", "end", "auth"}


def test_every_code_is_played() -> None:
    """Every error code and close code is earned, but those that are tested elsewhere."""
    errors = {m["data"]["code"] for m in _said() if m["type"] == "error"}
    errors |= {step["body"]["data"]["code"] for _, step in steps("refused")}
    closes = {step["closed"] for _, step in steps("closed")}
    assert errors | ELSEWHERE >= set(ErrorCode)
    assert closes | ELSEWHERE >= set(CloseCode)


def test_every_reason_of_a_gap_is_played() -> None:
    """Lag, retention and epoch."""
    reasons = {m["data"]["reason"] for m in _said() if m["type"] == "gap"}
    assert reasons == {"lag", "retention", "epoch"}


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {"a": 0}),
        ([1, 2], [1]),
        ("$text", ""),
        ("$number", "1"),
        ("$number", True),
        ("$number", -1),
        ("$timestamp", "2026-11-22T21:07:20Z"),
        ("$timestamp", "2026-13-22T21:07:20.050054Z"),
        (["$one", "$one"], ["a", "b"]),
    ],
    ids=str,
)
def test_a_difference_is_seen(wanted: object, got: object) -> None:
    """A vector that does not fit is told: the comparison lets nothing pass."""
    with pytest.raises(Mismatch):
        match(wanted, got, {})
