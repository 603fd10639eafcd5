"""The scripts that Redis runs for us: each does in one step what must not be torn apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, final

import attrs


@final
@attrs.frozen
class Script:
    """One script; its own head says what it takes and returns.

    Attributes:
        text: Lua.
        sha: the name it is run by, once it was loaded.
    """

    text: bytes
    sha: bytes

    @classmethod
    def read(cls, name: str) -> Script:
        """Read the script of that name, which lies beside this file."""
        text = Path(__file__).with_name(f"{name}.lua").read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


PUBLISH: Final = Script.read("publish")
LOOK: Final = Script.read("look")
READ: Final = Script.read("read")
LIST: Final = Script.read("list")
REVOKE: Final = Script.read("revoke")
SCRIPTS: Final = (PUBLISH, LOOK, READ, LIST, REVOKE)
