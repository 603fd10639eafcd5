"""Plays the test vectors of docs/protocol against a server in memory; the README there has the
rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

import triows
from tests.support import (
    BINARY,
    CLOSE,
    PING,
    SECRET,
    TEXT,
    Nursery,
    Peer,
    dial,
    frame,
    memory_server,
    request_head,
)

PLACE: Final = Path(__file__).parent.parent / "docs" / "protocol"
_NO_VECTORS: Final = {"tokens.json", "schema.json", "asyncapi.json"}
_SECTIONS: Final[dict[str, Callable[..., object]]] = {
    "limits": triows.Limits,
    "log": triows.LogLimits,
}


def load_tokens() -> dict[str, dict[str, Any]]:
    """Return the claims of the tokens that the vectors name; `exp` counts from now."""
    tokens: dict[str, dict[str, Any]] = json.loads((PLACE / "tokens.json").read_text())
    return tokens


def load_cases() -> dict[str, dict[str, Any]]:
    """Return every case as `file: name`."""
    cases: dict[str, dict[str, Any]] = {}
    for path in sorted(PLACE.glob("*.json")):
        if path.name not in _NO_VECTORS:
            for case in json.loads(path.read_text())["cases"]:
                name = f"{path.stem}: {case['name']}"
                assert name not in cases, f"two cases are called {name!r}"
                cases[name] = case
    return cases


CASES: Final = load_cases()


def steps(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all steps of one kind, each with the name of its case."""
    for name, case in CASES.items():
        for step in case["steps"]:
            if kind in step:
                yield name, step


def make_token(claims: Mapping[str, Any]) -> str:
    """Return a token with such claims."""
    return triows.make_token(SECRET, claims["sub"], ttl=claims["exp"], **claims["triows"])


def is_timestamp(value: object) -> bool:
    """Whether `value` is RFC 3339, UTC, with microseconds."""
    if not isinstance(value, str) or not re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", value):
        return False
    return datetime.fromisoformat(value).tzinfo is not None


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
        AssertionError: they differ; where.
    """
    if isinstance(wanted, str) and wanted.startswith("$"):
        check = PLACEHOLDERS.get(wanted)
        if check is None:
            assert names.setdefault(wanted, got) == got, f"{path}: {got!r} is not the {wanted}"
        else:
            assert check(got), f"{path}: {got!r} is no {wanted}"
    elif isinstance(wanted, dict) and isinstance(got, dict):
        assert wanted.keys() == got.keys(), f"{path}: {list(got)} instead of {list(wanted)}"
        for name, value in wanted.items():
            match(value, got[name], names, f"{path}.{name}")
    elif isinstance(wanted, list) and isinstance(got, list):
        assert len(wanted) == len(got), f"{path}: {len(got)} items instead of {len(wanted)}"
        for place, (value, item) in enumerate(zip(wanted, got, strict=True)):
            match(value, item, names, f"{path}[{place}]")
    else:
        assert type(wanted) is type(got), f"{path}: {got!r} instead of {wanted!r}"
        assert wanted == got, f"{path}: {got!r} instead of {wanted!r}"


def fill(value: Any, names: Mapping[str, Any]) -> Any:
    """Return `value` with every `$name` in its texts replaced."""
    if isinstance(value, str):
        return re.sub(r"\$[a-z_]+", lambda found: str(names[found[0]]), value)
    if isinstance(value, dict):
        return {name: fill(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    return value


@attrs.define
class _Line:
    """One connection: its peer, and what the server answered to its opening."""

    peer: Peer
    status: int
    body: Any


class Player:
    """Plays the steps of one case.

    Args:
        server: what is played against.
        nursery: where it serves the connections.
        case: the case.
        own: what to write after `session:` in the names of channels, for channels of its own.
    """

    def __init__(
        self, server: triows.Server, nursery: Nursery, case: Mapping[str, Any], own: str = ""
    ) -> None:
        self._server = server
        self._nursery = nursery
        self._case = case
        self._own = f"session:{own}"
        self._lines: dict[str, _Line] = {}
        self._names: dict[str, Any] = {
            f"${name}": make_token(claims) for name, claims in load_tokens().items()
        }

    async def play(self) -> None:
        """Play every step; nothing more may come after the last."""
        for step in self._case["steps"]:
            name = step.get("as", "ann")
            if name not in self._lines and "open" not in step and "server" not in step:
                await self._open(name, {})
                match("auth", (await self._hear(name))["type"], {})
            kind, play = next((k, play) for k, play in PLAYS.items() if k in step)
            for _ in range(step.get("times", 1)):
                await play(self, name, step[kind], step)
        for name, line in self._lines.items():
            if line.status == 101:
                assert await self._rest(line.peer) == [], f"{name} got more"
            await trio.aclose_forcefully(line.peer.stream)

    async def _rest(self, peer: Peer) -> list[Any]:
        found = []
        with trio.move_on_after(0.001):  # virtual time: over when everything else waits
            while (got := await peer.receive()) != (CLOSE, b""):
                found.append(got)
        return found

    async def _open(self, name: str, how: Mapping[str, Any], step: object = None) -> None:
        slow = name in self._case.get("needs", {}).get("slow", ())
        peer = dial(self._server, self._nursery, narrow=slow)
        token = self._names[f"${how.get('token', name)}"]
        given = fill({k: v or "" for k, v in how.get("headers", {}).items()}, self._names)
        path = fill(how.get("path", "/ws"), self._names)
        await peer.send(request_head(token, path=path, headers=given))
        status, _, body = await peer.response()
        self._lines[name] = _Line(peer, status, body)

    async def _refused(self, name: str, status: int, step: Mapping[str, Any]) -> None:
        line = self._lines[name]
        assert line.status == status
        match(step["body"], line.body, self._names)

    async def _send(self, name: str, message: Any, step: object) -> None:
        await self._text(name, json.dumps(fill(message, self._names)), step)

    async def _text(self, name: str, text: str, step: object) -> None:
        await self._lines[name].peer.send(frame(text.replace("session:", self._own)))
        await wait_all_tasks_blocked()  # who is slow is given what there is, one by one

    async def _binary(self, name: str, data: str, step: object) -> None:
        await self._lines[name].peer.send(frame(bytes.fromhex(data), BINARY))

    async def _close(self, name: str, code: int, step: object) -> None:
        await self._lines[name].peer.send(frame(code.to_bytes(2, "big"), CLOSE))

    async def _next(self, name: str) -> tuple[int, bytes]:
        line = self._lines[name]
        assert line.status == 101, line.body
        while (got := await line.peer.receive())[0] == PING:
            pass
        return got

    async def _hear(self, name: str) -> Any:
        opcode, payload = await self._next(name)
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload.replace(self._own.encode(), b"session:"))

    async def _expect(self, name: str, message: Any, step: object) -> None:
        match(message, await self._hear(name), self._names)

    async def _closed(self, name: str, code: int, step: object) -> None:
        opcode, payload = await self._next(name)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code), payload
        await trio.aclose_forcefully(self._lines[name].peer.stream)

    async def _wait(self, name: str, seconds: float, step: object) -> None:
        await trio.sleep(seconds)

    async def _server_does(self, name: str, what: str, step: object) -> None:
        if what == "drain":
            self._server.drain()
        elif what == "revoke":
            self._server.revoke(user=load_tokens()[name]["sub"])
        else:
            assert what == "disconnect"
            self._server.disconnect(self._server.connections()[0].id)


PLAYS: Final[dict[str, Callable[[Player, str, Any, Any], Awaitable[None]]]] = {
    "open": Player._open,
    "refused": Player._refused,
    "send": Player._send,
    "text": Player._text,
    "binary": Player._binary,
    "expect": Player._expect,
    "close": Player._close,
    "closed": Player._closed,
    "wait": Player._wait,
    "server": Player._server_does,
}


def _handler(does: Mapping[str, Any]) -> triows.Handler:
    async def handle(request: triows.Request) -> Any:
        if does.get("waits"):
            await trio.sleep_forever()
        if does.get("fails"):
            raise ValueError("the vector says so")
        return does["answer"]

    return handle


async def play(case: Mapping[str, Any], nursery: Nursery) -> None:
    """Play one case against a server of its own."""
    needs = case.get("needs", {})
    assert needs.keys() <= {"settings", "handlers", "slow", "alone"}
    settings = {n: _SECTIONS[n](**section) for n, section in needs.get("settings", {}).items()}
    handlers = {type_: _handler(does) for type_, does in needs.get("handlers", {}).items()}
    async with memory_server(handlers=handlers, **settings) as server:
        await Player(server, nursery, case).play()
