"""Plays the test vectors of docs/protocol against a server in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import trio
from trio.testing import wait_all_tasks_blocked

import triows
from tests.support import CLOSE, SECRET, Nursery, dial, memory_server, request_head
from triows.conformance.kit import Tokens
from triows.conformance.player import Player
from triows.conformance.talk import Talk
from triows.conformance.vectors import Case, load_cases, load_tokens

CASES: Final = load_cases()
_SECTIONS: Final[dict[str, type]] = {"limits": triows.Limits, "log": triows.LogLimits}


def steps(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all steps of one kind, each with the name of its case."""
    for name, case in CASES.items():
        for step in case["steps"]:
            if kind in step:
                yield name, step


class MemoryStage:
    """A server in memory."""

    def __init__(self, server: triows.Server, nursery: Nursery) -> None:
        self._server = server
        self._nursery = nursery

    async def open(
        self, token: str, path: str, headers: Mapping[str, str], *, slow: bool
    ) -> tuple[Talk, int, Any]:
        """Open a connection."""
        peer = dial(self._server, self._nursery, narrow=slow)
        await peer.send(request_head(token, path=path, headers=headers))
        status, _, body = await peer.response()
        return Talk(peer), status, body

    async def settle(self) -> None:
        """Wait until the server waits."""
        await wait_all_tasks_blocked()

    async def rest(self, talk: Talk) -> list[Any]:
        """Return what else comes."""
        found = []
        with trio.move_on_after(0.001):  # virtual time: over when everything else waits
            while (got := await talk.socket.receive()) != (CLOSE, b""):
                found.append(repr(got))
        return found

    async def do(self, what: str, user: str) -> None:
        """Have the server do it."""
        if what == "drain":
            self._server.drain()
        elif what == "revoke":
            await self._server.revoke(user=load_tokens()[user]["sub"])
        else:
            assert what == "disconnect"
            self._server.disconnect(self._server.connections()[0].id)


def _handler(does: Mapping[str, Any]) -> triows.Handler:
    async def handle(request: triows.Request) -> Any:
        if does.get("waits"):
            await trio.sleep_forever()
        if does.get("fails"):
            raise ValueError("the vector says so")
        return does["answer"]

    return handle


async def play_in(server: triows.Server, nursery: Nursery, case: Case, own: str = "") -> None:
    """Play one case; `own` as for `Player`."""
    await Player(MemoryStage(server, nursery), case, Tokens(SECRET).fresh(), own).play()


async def play(case: Case, nursery: Nursery) -> None:
    """Play one case against a server of its own."""
    needs = case.get("needs", {})
    assert needs.keys() <= {"settings", "handlers", "slow", "alone"}
    settings = {n: _SECTIONS[n](**section) for n, section in needs.get("settings", {}).items()}
    handlers = {type_: _handler(does) for type_, does in needs.get("handlers", {}).items()}
    async with memory_server(handlers=handlers, **settings) as server:
        await play_in(server, nursery, case)
