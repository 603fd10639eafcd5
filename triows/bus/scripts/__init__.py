"""The scripts that Redis runs for us: each does in one step what must not be torn apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, final

import attrs


@final
@attrs.frozen
class Script:
    """One script; its own head says what it takes and returns.

    Attributes:
        text: Lua.
        sha: the name it is run by, once it was loaded.
        shape: what it returns behind the tag, as `fit` takes it.
        may_be_empty: whether it may return nothing behind the tag.
    """

    text: bytes
    sha: bytes
    shape: tuple[type, ...]
    may_be_empty: bool

    @classmethod
    def read(cls, name: str, *shape: type, may_be_empty: bool = False) -> Script:
        """Read the script of that name, which lies beside this file."""
        text = Path(__file__).with_name(f"{name}.lua").read_bytes()
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        return cls(text, sha, shape, may_be_empty)

    def take(self, reply: list[Any]) -> list[Any]:
        """Return what it has returned behind the tag, checked.

        Raises:
            ValueError: it is nothing that a script makes of what we have written.
        """
        return [] if self.may_be_empty and not reply else fit(self.shape, reply)


def fit(shape: tuple[type, ...], values: list[Any]) -> list[Any]:
    """Return values that are of these types; of bytes that are to be a `str`, the text.

    Raises:
        ValueError: they are others. Lua ends a list at what is no number, though it should be one.
    """
    if len(values) != len(shape):
        raise ValueError(f"{len(values)} values, expected {len(shape)}")
    found = [
        value.decode() if kind is str and isinstance(value, bytes) else value
        for kind, value in zip(shape, values, strict=True)
    ]
    for kind, value in zip(shape, found, strict=True):
        if not isinstance(value, kind):
            raise ValueError(f"{value!r:.80}, expected {kind.__name__}")
    return found


PUBLISH: Final = Script.read("publish", int, str, int, int, int)
LOOK: Final = Script.read("look", *(str, int, int, bytes, int, int, int, list), may_be_empty=True)
READ: Final = Script.read("read", str, int, list)
LIST: Final = Script.read("list", str, list)
REVOKE: Final = Script.read("revoke")
SCRIPTS: Final = (PUBLISH, LOOK, READ, LIST, REVOKE)
