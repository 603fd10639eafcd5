"""The test vectors over the network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import trio

from triows.conformance.matcher import Mismatch
from triows.conformance.talk import Talk
from triows.conformance.target import Target
from triows.conformance.vectors import Case, tokens_of

_NEEDS: Final = {
    "settings": "settings of the server's own: {}",
    "handlers": "handlers of the application: {}",
    "slow": "a peer whose socket takes nothing: {}",
    "alone": "nobody else on the server",
}


def reason_to_leave_out(
    case: Case, known: Mapping[str, Any], tokens: Mapping[str, str]
) -> str | None:
    """Return what a case needs that cannot be had over the network; None: it can be played.

    Args:
        case: the case.
        known: the claims of all tokens that vectors name.
        tokens: those there are.
    """
    for name, need in case.get("needs", {}).items():
        what = _NEEDS.get(name, f"{name}: {{}}")
        return f"needs {what.format(', '.join(_names(need)))}"
    for step in case["steps"]:
        if "server" in step:
            return f"needs the server to {step['server']}"
    if missing := tokens_of(case, known) - tokens.keys():
        return f"needs the token {' and '.join(sorted(missing))}"
    return None


def _names(need: object) -> list[str]:
    """Return the settings, handlers or connections that a need names."""
    if not isinstance(need, dict):
        return [str(name) for name in need] if isinstance(need, list) else []
    found: list[str] = []
    for name, value in need.items():
        inner = isinstance(value, dict) and name in ("limits", "log", "server")
        found += [f"{name}.{setting}" for setting in value] if inner else [name]
    return found


class LiveStage:
    """A server at an address, of which nothing is known but what it says."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def open(
        self, token: str, path: str, headers: Mapping[str, str], *, slow: bool
    ) -> tuple[Talk, int, Any]:
        """Open a connection."""
        talk, status, _, body = await self._target.open(token, headers, path)
        return talk, status, body

    async def settle(self) -> None:
        """Nothing tells."""
        await trio.lowlevel.checkpoint()

    async def rest(self, talk: Talk) -> list[Any]:
        """Return what comes before the answer to one more request."""
        if talk.over:
            return []
        id_ = f"rest-{time.time_ns()}"
        try:
            await talk.say("ping", id=id_)
            found = []
            while (message := await talk.hear()).get("id") != id_:
                found.append(message)
        except Mismatch as error:
            raise Mismatch(f"after the last step, expected the answer to a ping, {error}") from None
        return found

    async def do(self, what: str, user: str) -> NoReturn:
        """Refuse: `reason_to_leave_out` leaves such cases out."""
        raise NotImplementedError(f"a server at an address cannot be told to {what}")
