"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

_SECONDS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def amount(number: float) -> str:
    """Return a count with its thousands set apart."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Return bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def ago(seconds: float) -> str:
    """Return a duration in its two largest units."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for length, unit in _SECONDS:
        if rest >= length:
            parts.append(f"{rest // length} {unit}")
            rest %= length
    if rest or not parts:
        parts.append(f"{rest} s")
    return " ".join(parts[:2])
