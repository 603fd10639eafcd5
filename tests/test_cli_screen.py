"""What a program wrote to a terminal, shown in that of somebody else: its colours, no more."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import triows
from triows.cli.output import ERASE_LINE, RESET, fit, harmless, on_screen
from triows.cli.tail import Screen

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
def test_on_screen_lets_nothing_through(text: str, colour: bool) -> None:
    """What a program told its terminal is as harmless as anything, whatever is cut out of it."""
    shown = harmless(on_screen(text), colour=colour)
    assert not _HARMFUL.search(_SGR.sub("", shown) if colour else shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb", "a\tb"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b[38:2::1:2:3mred", "\x1b[38:2::1:2:3mred"),
        ("\x1b[2J\x1b[Ha\x1b[Kb\x1b[?25lc\x1b[10;20Hd\x1b[>4;1me", "abcde"),
        ("a\x9b2Jb\x9b31mc", "abc"),
        ("\x1b]0;title\x07a\x1b]2;title\x1b\\b\x9d0;title\x9cc", "abc"),
        ("\x1b]52;c;cm0gLXJmIC8=\x07a", "a"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r0m\x1b\\a\x1bPq#0;2\x1b\\b\x90q\x9cc", "abc"),
        ("\x1b_apc\x1b\\a\x1b^pm\x1b\\b\x1bXsos\x1b\\c", "abc"),
        ("\x1b(Ba\x1b7b\x1bMc\x1bcd\x1b=e\x1b#8f", "abcdef"),
        ("a\x00\x07\x08\x0b\x0c\x0e\x7fb\rc", "abc"),
        ("a\x1b]52;c;unfinished", "a"),
        ("a\x1b[31", "a"),
        ("a\x1b", "a"),
        ("a\x1b]0;\x1b[31mb", "a\x1b[31mb"),
        ("a\u202eb\u2066c", "a\u202eb\u2066c"),
    ],
)
def test_on_screen_keeps_text_and_colours(text: str, shown: str) -> None:
    """Titles, clipboards, links, cursors and modes go; marks of direction are shown later."""
    assert on_screen(text) == shown


def test_on_screen_takes_no_time_for_nonsense() -> None:
    """However a line is made, to clean it takes time in proportion to its length."""
    for part in ("\x1b", "\x1b[", "\x1b]", "\x1b[1", "\x9b ", "\x1bP\x1b", "\x1b ", "\x1b[0;"):
        text = part * 20_000
        started = time.process_time()
        harmless(on_screen(text), colour=True)
        assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("short", 10, "short"),
        ("0123456789", 4, "6789"),
        ("\x1b[31m0123456789\x1b[0m", 4, "\x1b[31m6789\x1b[0m"),
        ("日本語", 4, "本語"),
        ("日本語", 3, "語"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
        ("a\tb", 9, "\tb"),
        ("any", 0, ""),
        ("any", -1, ""),
    ],
)
def test_fit_keeps_the_end(text: str, columns: int, shown: str) -> None:
    """The last columns of a line, with every colour before them."""
    assert fit(text, columns) == shown


def _message(type: str, data: Any) -> triows.Message:
    return triows.Message(type, msgspec.json.encode(data))


class _Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """The screen of a terminal with colours, of 20 columns."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Screen(_Terminal())


def _line(text: str, **more: bool) -> triows.Message:
    return _message("log", {"stream": "terminal", "text": text, **more})


def test_screen_shows_a_line_as_it_grows(terminal: Screen) -> None:
    """An unfinished line stands last, is replaced by its next state, and at last by the whole."""
    assert terminal.show(_line("Na", partial=True)) == "Na"
    assert terminal.show(_line("Name? ", partial=True)) == ERASE_LINE + "Name? "
    assert terminal.show(_line("Name? Ann")) == ERASE_LINE + "Name? Ann\n"
    assert terminal.show(_line("next")) == "next\n"


def test_screen_shows_other_messages_above_an_unfinished_line(terminal: Screen) -> None:
    """What is no output of the terminal does not erase a prompt."""
    terminal.show(_line("\x1b[1mName? ", partial=True))
    shown = terminal.show(_message("log", "a note"))
    assert shown == f"{ERASE_LINE}a note\n\x1b[1mName? {RESET}"
    assert terminal.show(_line("x")) == ERASE_LINE + "x\n"


def test_screen_shows_of_a_long_unfinished_line_what_fits(terminal: Screen) -> None:
    """A line that wrapped could not be erased."""
    assert terminal.show(_line("0123456789" * 9, partial=True)) == "1234567890123456789"


def test_screen_obeys_no_hostile_line(terminal: Screen) -> None:
    """Nothing of what others wrote steers the terminal, in whatever state the line is."""
    hostile = "\x1b]52;c;eA==\x07\x1b[2J\x1bP1$r\x1b\\\x9b2J\x9d0;t\x9c\u202e\x1b[31mred\r\n\x08"
    for message in (_line(hostile, partial=True), _line(hostile), _message("log", hostile)):
        shown = terminal.show(message).removeprefix(ERASE_LINE).removesuffix("\n")
        assert not _HARMFUL.search(_SGR.sub("", shown))


def test_screen_that_is_no_terminal_shows_finished_lines_only() -> None:
    """In a pipe or a file, each line stands once, without a colour."""
    screen = Screen(io.StringIO())
    assert screen.show(_line("Name? ", partial=True)) == ""
    assert screen.show(_message("log", "a note")) == "a note\n"
    assert screen.show(_line("Name? \x1b[31mAnn\x1b[0m\x1b[K")) == "Name? Ann\n"


@given(_json)
def test_screen_takes_any_data(data: Any) -> None:
    """Whatever shape a message has."""
    screen = Screen(_Terminal())
    for message in (_message("log", data), _message("log", {"stream": "terminal", "text": data})):
        assert screen.show(message).endswith("\n")


def test_screen_is_left_on_a_line_of_its_own(terminal: Screen) -> None:
    """What others write after us does not go on in an unfinished line."""
    assert terminal.leave() == ""
    terminal.show(_line("Name? ", partial=True))
    assert terminal.leave() == "\n"
