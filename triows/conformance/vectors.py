"""Finds the test vectors: beside this file in an installed package, else in docs/protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from triows.errors import ConfigError

Case = Mapping[str, Any]
"""One conversation: `name`, perhaps `about` and `needs`, and `steps`."""

_INSTALLED: Final = Path(__file__).parent / "vectors"
_CHECKOUT: Final = Path(__file__).parents[2] / "docs" / "protocol"
PLACE: Final = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
_NO_VECTORS: Final = {"tokens.json", "schema.json", "asyncapi.json"}


def load_tokens() -> dict[str, dict[str, Any]]:
    """Return the claims of the tokens that the vectors name; `exp` counts from now.

    Raises:
        ConfigError: the vectors are not installed.
    """
    if not (PLACE / "tokens.json").is_file():
        raise ConfigError(f"no test vectors in {PLACE}: this package was not installed whole")
    tokens: dict[str, dict[str, Any]] = json.loads((PLACE / "tokens.json").read_text("utf-8"))
    return tokens


def load_cases() -> dict[str, Case]:
    """Return every case as `file: name`, those of a file in its order."""
    return {
        f"{path.stem}: {case['name']}": case
        for path in sorted(PLACE.glob("*.json"))
        if path.name not in _NO_VECTORS
        for case in json.loads(path.read_text("utf-8"))["cases"]
    }


def tokens_of(case: Case, known: Mapping[str, Any]) -> set[str]:
    """Return which of the `known` tokens a case needs."""
    opened = {step.get("as", "ann"): step["open"] for step in case["steps"] if "open" in step}
    names = {
        opened.get(name, {}).get("token", name)
        for name in (step.get("as", "ann") for step in case["steps"])
    }
    named = set(re.findall(r"\$([a-z_]+)", json.dumps(case["steps"])))
    return names | (named & known.keys())
