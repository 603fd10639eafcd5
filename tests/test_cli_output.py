"""What goes to a terminal: nothing in it can do harm; and what tail and publish say."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import memory_server
from tests.support_client import CHANNEL, connected
from triows.cli.output import RESET, harmless
from triows.cli.publish import publish
from triows.cli.tail import parse_since, render, tail

_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_HARMFUL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\u061c]")
_texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x1b[]0;1m\x07\x9b\r\n\t\u202e\\")
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
    max_leaves=8,
)


@given(_texts, st.booleans())
def test_harmless_lets_nothing_through(text: str, colour: bool) -> None:
    """No control character but tab is left; ESC only as a colour, and only if wanted."""
    shown = harmless(text, colour=colour)
    assert not _HARMFUL.search(_SGR.sub("", shown) if colour else shown)
    if colour and _SGR.search(shown):
        assert shown.endswith(RESET)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_harmless_keeps_plain_text(text: str) -> None:
    """Text without control characters is shown as it is."""
    assert harmless(text, colour=False) == harmless(text, colour=True) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb", "a\tb"),
        ("\x00\x07\x08\r\n\x7f", r"\x00\x07\x08\x0d\x0a\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b[1;31mred", "red"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]8;;http://a\x1b\\b", r"\x1b]8;;http://a\x1b\b"),
        ("\x1bP1$r\x1b\\", r"\x1bP1$r\x1b" + "\\"),
        ("abc\u202edef\u2066", r"abc\u202edef\u2066"),
        ("\u2028\u200f\u061c", r"\u2028\u200f\u061c"),
    ],
)
def test_harmless_makes_it_visible(text: str, shown: str) -> None:
    """C0, C1, cursor and title sequences, and marks of direction are shown, not obeyed."""
    assert harmless(text, colour=False) == shown


def test_harmless_keeps_colours_if_wanted() -> None:
    """Colours stay, and end with the text; a cursor sequence among them does not."""
    assert harmless("\x1b[31mred\x1b[2J", colour=True) == "\x1b[31mred\\x1b[2J" + RESET
    assert harmless("plain", colour=True) == "plain"


def _message(type: str, data: Any) -> triows.Message:
    return triows.Message(type, msgspec.json.encode(data))


@given(
    st.sampled_from(["log", "status", "event", "command", "end", "of\x1b[2Jours"]),
    _json
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("text", "stream", "exit_code", "reason"), _json)
    ),
    st.booleans(),
)
def test_render_takes_any_data(type: str, data: Any, colour: bool) -> None:
    """Whatever is published, in whatever shape, is one harmless line."""
    shown = render(_message(type, data), colour=colour)
    assert not _HARMFUL.search(_SGR.sub("", shown) if colour else shown)


@pytest.mark.parametrize(
    ("type", "data", "shown"),
    [
        ("log", "text", "text"),
        ("log", {"text": "out", "stream": "stdout"}, "out"),
        ("log", {"text": 5}, '{"text":5}'),
        ("log", {"a": 1}, '{"a":1}'),
        ("log", None, "null"),
        ("log", [1, "a"], '[1,"a"]'),
        ("status", {"state": "started"}, '[status] {"state":"started"}'),
        ("event", "x", '[event] "x"'),
        ("end", {}, "-- ended"),
        ("end", {"exit_code": 0}, "-- ended with exit code 0"),
        ("end", {"exit_code": 137, "reason": "a\nb"}, r"-- ended with exit code 137: a\x0ab"),
        ("end", ["not", "an", "object"], "-- ended"),
        ("end", None, "-- ended"),
        (
            "gap",
            {"from": 2, "to": 4, "count": 3, "reason": "retention"},
            "-- 3 messages are missing (2 to 4): no longer kept",
        ),
        (
            "gap",
            {"from": 2, "to": 4, "count": 3, "reason": "lag"},
            "-- 3 messages are missing (2 to 4): too slow for them",
        ),
        ("gap", {"from": 1, "to": 0, "count": 0, "reason": "epoch"}, "-- the log began anew"),
        (
            "gap",
            {"from": 1, "to": 3, "count": 3, "reason": "epoch"},
            "-- the log began anew; its first 3 messages are gone",
        ),
    ],
)
def test_render_says(type: str, data: Any, shown: str) -> None:
    """Every type of message, as a person reads it."""
    assert render(_message(type, data), colour=False) == shown
    assert _SGR.sub("", render(_message(type, data), colour=True)) == shown


def test_render_colours_standard_error() -> None:
    """What came from standard error is red, if colours are wanted."""
    message = _message("log", {"text": "oh", "stream": "stderr"})
    assert render(message, colour=True) == "\x1b[31moh\x1b[0m"
    assert render(message, colour=False) == "oh"


def test_parse_since_reads_what_tail_prints() -> None:
    """Everything before the last colon is the epoch."""
    assert parse_since("abc:17") == triows.Position("abc", 17)
    assert parse_since("a:b:0") == triows.Position("a:b", 0)


class _Screen(io.StringIO):
    """A standard output that cancels when a certain line was written."""

    def __init__(self, line: str, scope: trio.CancelScope) -> None:
        super().__init__()
        self._line = line
        self._scope = scope

    def write(self, text: str) -> int:
        if text == self._line:
            trio.from_thread.run_sync(self._scope.cancel)
        return super().write(text)


async def _tail(client: triows.Client, **options: Any) -> int:
    defaults: dict[str, Any] = {"lines": None, "since": None, "as_json": False}
    with trio.fail_after(60):
        return await tail(client, CHANNEL, **{**defaults, **options})


async def test_tail_json_prints_whole_messages(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line is a message with all there is, and the epoch to go on from."""
    async with memory_server() as server, connected(nursery, server) as client:
        raw = b'{"a":  1.0,\n"b": 12345678901234567890123}'
        position = await server.publish(CHANNEL, triows.Message("log", raw, id="mine"))
        await server.publish(CHANNEL, triows.end(exit_code=1))
        assert await _tail(client, as_json=True) == 0
    first, last = capsys.readouterr().out.splitlines()
    parsed = json.loads(first)
    assert '"data":{"a":1.0,"b":12345678901234567890123}' in first
    assert set(parsed) == {"type", "id", "channel", "epoch", "offset", "timestamp", "data"}
    assert parsed["epoch"] == position.epoch
    assert (parsed["type"], parsed["id"], parsed["offset"]) == ("log", "mine", 1)
    assert json.loads(last)["data"] == {"exit_code": 1}


@pytest.mark.parametrize(
    ("options", "shown"),
    [({"lines": 2}, "3\n-- ended\n"), ({}, "1\n2\n3\n-- ended\n"), ({"lines": 0}, "")],
)
async def test_tail_begins_where_asked(
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    shown: str,
) -> None:
    """The last lines, or all of them; and the end is the end."""
    async with memory_server() as server, connected(nursery, server) as client:
        for number in range(1, 4):
            await server.publish(CHANNEL, triows.log(str(number)))
        await server.publish(CHANNEL, triows.end())
        assert await _tail(client, **options) == 0
    assert capsys.readouterr().out == shown


async def test_tail_interrupted_says_where_to_go_on(
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is said on the way out, given to --since, goes on without a hole."""
    async with memory_server() as server, connected(nursery, server) as client:
        for number in range(3):
            await server.publish(CHANNEL, triows.log(str(number)))
        with trio.CancelScope() as scope, monkeypatch.context() as patch:
            screen = _Screen("2\n", scope)
            patch.setattr("sys.stdout", screen)
            await _tail(client)
        since = parse_since(capsys.readouterr().err.split("--since ")[1].strip())
        assert screen.getvalue() == "0\n1\n2\n"
        assert since.offset == 3
        assert since.epoch == (await client.history(CHANNEL))["epoch"]


async def _published(client: triows.Client) -> list[tuple[str, Any]]:
    page = await client.history(CHANNEL, limit=1000)
    return [(m["type"], m.get("data")) for m in page["messages"]]


@pytest.mark.parametrize(
    ("words", "type_", "as_json", "expected"),
    [
        (("hello", "world"), "log", False, ("log", "hello world")),
        (('{"a":', "[1]}"), "status", True, ("status", {"a": [1]})),
        (("5",), "event", False, ("event", "5")),
        (('{"exit_code": 3}',), "end", False, ("end", {"exit_code": 3})),
    ],
)
async def test_publish_words(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    words: tuple[str, ...],
    type_: str,
    as_json: bool,
    expected: tuple[str, Any],
) -> None:
    """The words are one message, of any type, as text or as JSON."""
    async with memory_server() as server, connected(nursery, server) as client:
        assert await publish(client, CHANNEL, words, type_=type_, as_json=as_json) == 0
        assert await _published(client) == [expected]


async def test_publish_lines(
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without words each line of standard input is a message, in order."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{n}\n" for n in range(80)) + "\nlast"))
    limits = triows.Limits(messages_per_second=0)
    async with memory_server(limits=limits) as server, connected(nursery, server) as client:
        assert await publish(client, CHANNEL, (), type_="log", as_json=False) == 0
        lines = [data for _, data in await _published(client)]
    assert lines == [*map(str, range(80)), "", "last"]
    assert "published 82" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("{nonsense",), ()])
async def test_publish_bad_json_is_refused(
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    """What is no JSON is quoted, and nothing of it is published."""
    monkeypatch.setattr("sys.stdin", io.StringIO("{nonsense\n"))
    async with memory_server() as server, connected(nursery, server) as client:
        with pytest.RaisesGroup(
            triows.ConfigError, allow_unwrapped=True, flatten_subgroups=True
        ) as caught:
            await publish(client, CHANNEL, words, type_="log", as_json=True)
        assert "{nonsense" in repr(caught.value)
        assert await _published(client) == []
