"""The vocabulary: channel names, patterns, and the data of a message."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import triows
from triows.errors import ErrorCode, RequestError
from triows.messages import (
    LIFECYCLE,
    MAX_CHANNEL,
    MAX_ID,
    PUBLISHED,
    Message,
    MessageType,
    Patterns,
    check_channel,
    check_message,
    is_system,
)

_LONGEST = "session:" + "x" * (MAX_CHANNEL - len("session:"))


@pytest.mark.parametrize(
    "name",
    [
        "system",
        "system:connections",
        "workspace:1",
        "session:42",
        "session:w1/s-2.3_4~5",
        "a:A",
        "my-kind_2:x",
        "k" * 32 + ":x",
        "session:/",
        _LONGEST,
    ],
)
def test_channel_is_accepted(name: str) -> None:
    """`system`, and `kind:id` of the allowed characters and length."""
    assert check_channel(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "session",
        "System",
        "system ",
        "system\n",
        "session:",
        ":1",
        "session:1\n",
        "session:1 2",
        "session:*",
        "session:a:b",
        "session:é",
        "sessıon:1",
        "session:١",
        "1session:1",
        "Session:1",
        "k" * 33 + ":x",
        "session:%41",
        'session:"',
        "session:\x00",
        _LONGEST + "x",
        "x" * 100_000,
    ],
    ids=lambda name: ascii(name)[:40],
)
def test_channel_is_refused(name: str) -> None:
    """Anything else is `bad_channel`, shown in a message of bounded length."""
    with pytest.raises(RequestError) as caught:
        check_channel(name)
    assert caught.value.code == ErrorCode.BAD_CHANNEL
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("name", "system"),
    [("system", True), (LIFECYCLE, True), ("system-x:1", False), ("session:system", False)],
)
def test_is_system(name: str, system: bool) -> None:
    """`system` and what begins with `system:` belong to the server."""
    assert is_system(name) is system


@pytest.mark.parametrize(
    ("patterns", "channel", "covered"),
    [
        ((), "session:1", False),
        (("session:1",), "session:1", True),
        (("session:1",), "session:12", False),
        (("session:1",), "session:", False),
        (("session:w1/*",), "session:w1/a", True),
        (("session:w1/*",), "session:w1/", True),
        (("session:w1/*",), "session:w1", False),
        (("session:w1/*",), "session:w10/a", False),
        (("session:*", "workspace:2"), "workspace:2", True),
        (("session:*", "workspace:2"), "workspace:3", False),
        (("*",), "session:1", True),
        (("*",), "system", False),
        (("*",), LIFECYCLE, False),
        (("*",), "system-x:1", True),
        (("system",), "system", True),
        (("system",), LIFECYCLE, False),
        (("system:*",), LIFECYCLE, True),
        (("system:*",), "system", False),
        (("system*",), "system", True),
        (("session:*",), "system", False),
        (("",), "session:1", False),
    ],
)
def test_patterns_match(patterns: tuple[str, ...], channel: str, covered: bool) -> None:
    """Exact names and prefixes; a bare `*` leaves the server's own channels out."""
    assert Patterns.parse(patterns).match(channel) is covered


@pytest.mark.parametrize("pattern", ["*:1", "session:*/a", "**", "session:**", "*session"])
def test_patterns_refuse_a_star_in_the_middle(pattern: str) -> None:
    """A `*` anywhere but at the end is an error, not a name that never matches."""
    with pytest.raises(ValueError, match="at its end only"):
        Patterns.parse(("session:1", pattern))


@given(st.text("ab:/", max_size=6), st.text("ab:/", max_size=6))
def test_patterns_prefix_is_a_string_prefix(prefix: str, channel: str) -> None:
    """Away from the server's channels, `prefix*` is `str.startswith`."""
    assert Patterns.parse((prefix + "*",)).match(channel) is channel.startswith(prefix)


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"", None),
        (b"null", None),
        (b"0", 0),
        (b'" "', " "),
        (b'{"a":[1,2.5,true]}', {"a": [1, 2.5, True]}),
        (b"1e999", math.inf),
        (b'{"deep":[-1e999]}', {"deep": [-math.inf]}),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_message_data_is_the_decoded_raw(raw: bytes, data: object) -> None:
    """All of JSON is decoded, numbers beyond the range of a float included."""
    assert Message("log", raw).data == data


@pytest.mark.parametrize("kind", ["log", "status", "event", "command"])
def test_constructors_name_their_type(kind: str) -> None:
    """`log`, `status`, `event`, `command` make a message of that type, unplaced."""
    made: Message = getattr(triows, kind)({"line": "é"}, id="i")
    assert made == Message(kind, '{"line":"é"}'.encode(), id="i")
    assert (made.channel, made.offset, made.timestamp) == (None, None, None)


def test_constructor_message_takes_an_own_type() -> None:
    """An application's own type is passed on, without data as null."""
    assert triows.message("deploy") == Message("deploy", b"null")


@pytest.mark.parametrize(
    ("given_", "data"),
    [
        ({}, {}),
        ({"exit_code": 0}, {"exit_code": 0}),
        ({"reason": ""}, {"reason": ""}),
        ({"exit_code": 1, "reason": "killed"}, {"exit_code": 1, "reason": "killed"}),
    ],
)
def test_constructor_end_says_what_is_known(given_: dict[str, Any], data: dict[str, Any]) -> None:
    """`end` carries exit code and reason if given, zero and empty included."""
    made = triows.end(**given_)
    assert made.type == "end"
    assert made.data == data


@pytest.mark.parametrize(
    "made",
    [
        *(Message(type_) for type_ in MessageType if type_ not in PUBLISHED),
        Message("log", id="x" * (MAX_ID + 1)),
    ],
    ids=lambda made: made.type,
)
def test_message_is_refused(made: Message) -> None:
    """What the server says itself cannot be published, nor an id that nobody would read."""
    with pytest.raises(RequestError) as caught:
        check_message(made)
    assert caught.value.code == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("type_", [*sorted(PUBLISHED), "deploy"])
def test_message_is_accepted(type_: str) -> None:
    """The types that are kept, an application's own, and an id as long as allowed."""
    check_message(Message(type_, id="é" * MAX_ID))
