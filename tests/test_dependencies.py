"""What we depend on: just so much, under licences that allow it, without known holes.

Needs no network: what is known is written here. SECURITY.md says how to ask an advisory service.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent.parent / "pyproject.toml").read_text()
)["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["optional-dependencies"].items()
}
MENDED = {
    "cryptography": ("46.0.5", "CVE-2026-26007"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "h2": ("4.3.0", "CVE-2025-57804"),
    "idna": ("3.7", "CVE-2024-3651"),
    "pygments": ("2.15.1", "CVE-2022-40896"),
    "pyjwt": ("2.14.0", "CVE-2026-32597, CVE-2026-48526, GHSA-ffc3-869f-jxw9 and others"),
    "starlette": ("1.0.1", "CVE-2026-48710, CVE-2025-62727, CVE-2024-47874"),
    "websockets": ("16.1", "a token that follows a redirect; PYSEC-2021-95"),
}
"""The first version without the holes that are known, and their names."""

_PERMISSIVE = re.compile(r"\b(?:MIT|BSD|Apache|PSF|ISC|Zlib)\b|MIT-0|Python Software Foundation")
_STRICT = re.compile(r"\b[AL]?GPL|General Public", re.IGNORECASE)


def _reached() -> dict[str, Requirement]:
    """Return all that an installation of `triows[server]` brings, by name."""
    found: dict[str, Requirement] = {}
    todo = [*CORE, *EXTRAS["server"]]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        name = wanted.name.lower().replace("_", "-")
        if (name, frozenset(wanted.extras)) in done:
            continue
        done.add((name, frozenset(wanted.extras)))
        found[name] = wanted
        for text in distribution(name).requires or ():
            inner = Requirement(text)
            extras = wanted.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                todo.append(inner)
    return found


REACHED = sorted(_reached())


def test_core_depends_on_what_was_chosen() -> None:
    """Nothing is added to the core in passing."""
    assert {requirement.name for requirement in CORE} == {
        *("trio", "trio-websocket", "wsproto", "h11", "pyjwt", "cryptography"),
        *("attrs", "cattrs", "msgspec", "uuid-utils"),
    }


@pytest.mark.parametrize(
    "requirement", [*CORE, *(r for extra in EXTRAS.values() for r in extra)], ids=str
)
def test_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    """Each names the oldest version that will do, which is none with a known hole."""
    bounds = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    assert len(bounds) == 1
    mended = MENDED.get(requirement.name.lower())
    assert mended is None or bounds[0] >= Version(mended[0]), mended


@pytest.mark.parametrize("name", REACHED)
def test_what_is_installed_has_no_known_hole(name: str) -> None:
    """Also what only others depend on."""
    mended = MENDED.get(name)
    assert mended is None or Version(distribution(name).version) >= Version(mended[0]), mended


@pytest.mark.parametrize("name", REACHED)
def test_licence_is_permissive(name: str) -> None:
    """Whoever uses triows may do with it what our own licence allows."""
    about = distribution(name).metadata
    texts = [*(about.get_all("License-Expression") or ()), *(about.get_all("License") or ())]
    texts += [c for c in about.get_all("Classifier") or () if c.startswith("License")]
    text = "; ".join(text[:100] for text in texts)
    assert _PERMISSIVE.search(text), text
    assert not _STRICT.search(text), text


def test_what_is_known_is_about_what_we_use() -> None:
    """No line of the table is left over from what is gone."""
    assert set(MENDED) <= set(REACHED)
