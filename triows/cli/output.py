"""What goes to a terminal: colours of ours, and nothing of others that could do harm."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from typing import Final, TextIO

_SGR: Final = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_HARMFUL: Final = re.compile(
    # C0 but tab, DEL and C1; marks that turn the direction of text; line separators
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
RESET: Final = "\x1b[0m"
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
    print(styled(text, style, colour=wants_colour(sys.stderr)), file=sys.stderr, flush=True)
