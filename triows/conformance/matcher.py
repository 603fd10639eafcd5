"""Compares what a server says with what a vector expects; docs/protocol/README.md has the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from triows.errors import TriowsError

_SHOWN: Final = 300  # characters of a message in a report


class Mismatch(TriowsError):
    """The server did something else than the protocol says; the message says what."""


def is_timestamp(value: object) -> bool:
    """Whether `value` is RFC 3339, UTC, with microseconds."""
    if not isinstance(value, str) or not re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def is_number(value: object) -> bool:
    """Whether `value` is a number from 0 up."""
    return type(value) in (int, float) and value >= 0  # type: ignore[operator]


PLACEHOLDERS: Final[dict[str, Callable[[object], bool]]] = {
    "$any": lambda value: True,
    "$text": lambda value: isinstance(value, str) and value != "",
    "$number": is_number,
    "$timestamp": is_timestamp,
}


def match(wanted: Any, got: Any, names: dict[str, Any], path: str = "message") -> None:
    """Compare what came with what a vector expects; take note of what it names.

    Raises:
        Mismatch: they differ; where.
    """
    if isinstance(wanted, str) and wanted.startswith("$"):
        check = PLACEHOLDERS.get(wanted)
        if check is None:
            _demand(names.setdefault(wanted, got) == got, f"{path}: {got!r} is not the {wanted}")
        else:
            _demand(check(got), f"{path}: {got!r} is no {wanted}")
    elif isinstance(wanted, dict) and isinstance(got, dict):
        _demand(wanted.keys() == got.keys(), f"{path}: {list(got)} instead of {list(wanted)}")
        for name, value in wanted.items():
            match(value, got[name], names, f"{path}.{name}")
    elif isinstance(wanted, list) and isinstance(got, list):
        _demand(len(wanted) == len(got), f"{path}: {len(got)} items instead of {len(wanted)}")
        for place, (value, item) in enumerate(zip(wanted, got, strict=True)):
            match(value, item, names, f"{path}[{place}]")
    else:
        same = type(wanted) is type(got) and wanted == got
        _demand(same, f"{path}: {got!r} instead of {wanted!r}")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Mismatch(otherwise)


def fill(value: Any, names: Mapping[str, Any]) -> Any:
    """Return `value` with every `$name` in its texts replaced."""
    if isinstance(value, str):
        return re.sub(r"\$[a-z_]+", lambda found: str(names[found[0]]), value)
    if isinstance(value, dict):
        return {name: fill(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    return value


def show(value: object) -> str:
    """Return `value` as a report shows it: JSON, on one line, not too long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
