"""What goes to a terminal: colours of ours, and nothing of others that could do harm."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import unicodedata
from typing import Final, TextIO

_SGR: Final = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_HARMFUL: Final = re.compile(
    # C0 but tab, DEL and C1; marks that turn the direction of text; line separators
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
# What else a program may tell a terminal: to move, to erase, to take a title, a link or a
# clipboard, in 7 bits and in 8; also cut off at the end of the text. Colours come first, to stay.
_SEQUENCE: Final = re.compile(
    r"(\x1b\[[0-9;:]{0,64}m)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\|(?=\x1b)|$)"
    r"|\x1b[ -/]*(?:[0-~]|$)"
    r"|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]"
)
RESET: Final = "\x1b[0m"
ERASE_LINE: Final = "\r\x1b[K"
STYLES: Final = {
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
    "bold": "\x1b[1m",
}


def readable(text: str) -> str:
    """Return text that came as an argument or as input, with what is no UTF-8 replaced."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def wants_colour(stream: TextIO) -> bool:
    """Whether colours are welcome there (also see no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def harmless(text: str, *, colour: bool) -> str:
    """Return `text` with every control character made visible.

    Colours (SGR sequences) stay if `colour` is wanted, and end with the text; else they go.
    """
    parts: list[str] = []
    at = 0
    for match in _SGR.finditer(text):
        parts.append(_HARMFUL.sub(_visible, text[at : match.start()]))
        if colour:
            parts.append(match.group())
        at = match.end()
    parts.append(_HARMFUL.sub(_visible, text[at:]))
    if colour and at:
        parts.append(RESET)
    return "".join(parts)


def on_screen(text: str) -> str:
    """Return what a program wrote to a terminal with its colours, but with nothing else of what
    it told the terminal to do; to be made `harmless` still.
    """
    return _SEQUENCE.sub(lambda match: match[1] or "", text)


def fit(text: str, columns: int) -> str:
    """Return the end of harmless text that fits into so many columns; its colours stay.

    Wide characters count double, those that join others nothing.
    """
    parts = _SGR.split(text)
    colours = _SGR.findall(text)
    kept: list[str] = []
    for index in range(len(parts) - 1, -1, -1):
        for char in reversed(parts[index]):
            columns -= _width(char)
            if columns >= 0:
                kept.append(char)
        if index:
            kept.append(colours[index - 1])
    return "".join(reversed(kept))


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    if char == "\t":
        return 8
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def escape_json(text: str) -> str:
    """Return JSON text of one line with every control character escaped, as JSON has it."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def styled(text: str, style: str, *, colour: bool) -> str:
    """Return `text` in one of our colours, if colours are wanted."""
    return f"{STYLES[style]}{text}{RESET}" if colour else text


def program() -> str:
    """Return how this program is called from here: for commands that are ready to paste."""
    called = sys.argv[0]
    found = shutil.which("triows")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "triows"
    return shlex.quote(called)


def note(text: str, style: str = "dim") -> None:
    """Say something to the person at the terminal, apart from the output.

    What others have said in it is made harmless.
    """
    text = harmless(text, colour=False)
    # A terminal whose keys are passed on does not begin lines at the left by itself.
    end = "\r\n" if sys.stderr.isatty() else "\n"
    print(
        styled(text, style, colour=wants_colour(sys.stderr)), file=sys.stderr, end=end, flush=True
    )
