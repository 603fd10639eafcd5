"""Plays the steps of a test vector; where it is played is a stage's matter."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import attrs
import trio

from triows.conformance.matcher import Mismatch, fill, match, show
from triows.conformance.raw import BINARY, CLOSE, frame
from triows.conformance.talk import Talk
from triows.conformance.vectors import Case


class Stage(Protocol):
    """What a case is played against."""

    async def open(
        self, token: str, path: str, headers: Mapping[str, str], *, slow: bool
    ) -> tuple[Talk, int, Any]:
        """Open a connection; return it with the status and the body of the answer.

        Args:
            token: for the header `Authorization`, unless `headers` says otherwise.
            path: as the vector says it.
            headers: over the usual ones; '' takes one away.
            slow: the connection takes nothing until it is read.
        """
        ...

    async def settle(self) -> None:
        """Wait until the server has done what it does by itself, where that can be known."""
        ...

    async def rest(self, talk: Talk) -> list[Any]:
        """Return what else comes at the end of a case: nothing, if all is well."""
        ...

    async def do(self, what: str, user: str) -> None:
        """Have the server do something: `drain`, `revoke` or `disconnect`."""
        ...


@attrs.define
class _Line:
    """One connection, and what the server answered to its opening."""

    talk: Talk
    status: int
    body: Any


class Player:
    """Plays the steps of one case.

    Args:
        stage: what it is played against.
        case: the case.
        tokens: by name.
        own: what to write after `session:` in the names of channels, for channels of its own.
    """

    def __init__(self, stage: Stage, case: Case, tokens: Mapping[str, str], own: str = "") -> None:
        self._stage = stage
        self._case = case
        self._own = f"session:{own}"
        self._lines: dict[str, _Line] = {}
        self._names: dict[str, Any] = {f"${name}": token for name, token in tokens.items()}

    async def play(self) -> None:
        """Play every step; nothing more may come after the last.

        Raises:
            Mismatch: the server does something else; which step, and what.
        """
        try:
            for number, step in enumerate(self._case["steps"], 1):
                try:
                    await self._play(step)
                except Mismatch as error:
                    raise Mismatch(f"step {number}, {step.get('as', 'ann')}: {error}") from None
            for name, line in self._lines.items():
                if line.status == 101 and (more := await self._stage.rest(line.talk)):
                    raise Mismatch(f"expected nothing more, {name} got {show(more)}")
        finally:
            for line in self._lines.values():
                await trio.aclose_forcefully(line.talk.socket.stream)  # noqa: ASYNC102 no wait

    async def _play(self, step: Mapping[str, Any]) -> None:
        name = step.get("as", "ann")
        if name not in self._lines and "open" not in step and "server" not in step:
            await self._open(name, {})
            self._demand_open(name)
            await self._lines[name].talk.greet()
        kind, play = next((k, play) for k, play in PLAYS.items() if k in step)
        for _ in range(step.get("times", 1)):
            await play(self, name, step[kind], step)

    async def _open(self, name: str, how: Mapping[str, Any], step: object = None) -> None:
        slow = name in self._case.get("needs", {}).get("slow", ())
        token = self._names[f"${how.get('token', name)}"]
        given = fill({k: v or "" for k, v in how.get("headers", {}).items()}, self._names)
        path = fill(how.get("path", "/ws"), self._names)
        self._lines[name] = _Line(*await self._stage.open(token, path, given, slow=slow))

    async def _refused(self, name: str, status: int, step: Mapping[str, Any]) -> None:
        line = self._lines[name]
        if line.status != status:
            raise Mismatch(f"expected status {status}, got {line.status} {show(line.body)}")
        self._match(step["body"], line.body)

    async def _send(self, name: str, message: Any, step: object) -> None:
        await self._text(name, json.dumps(fill(message, self._names)), step)

    async def _text(self, name: str, text: str, step: object) -> None:
        self._demand_open(name)
        await self._lines[name].talk.send(frame(text.replace("session:", self._own)))
        await self._stage.settle()  # who is slow is given what there is, one by one

    async def _binary(self, name: str, data: str, step: object) -> None:
        self._demand_open(name)
        await self._lines[name].talk.send(frame(bytes.fromhex(data), BINARY))

    async def _close(self, name: str, code: int, step: object) -> None:
        await self._lines[name].talk.send(frame(code.to_bytes(2, "big"), CLOSE))

    async def _expect(self, name: str, message: Any, step: object) -> None:
        self._demand_open(name)
        talk = self._lines[name].talk
        try:
            got = await talk.hear(lambda text: text.replace(self._own.encode(), b"session:"))
        except Mismatch as error:
            raise Mismatch(f"expected {show(message)}, {error}") from None
        self._match(message, got)

    async def _closed(self, name: str, code: int, step: object) -> None:
        self._demand_open(name)
        await self._lines[name].talk.expect_close(code)

    async def _wait(self, name: str, seconds: float, step: object) -> None:
        await trio.sleep(seconds)

    async def _server(self, name: str, what: str, step: object) -> None:
        await self._stage.do(what, name)

    def _demand_open(self, name: str) -> None:
        line = self._lines[name]
        if line.status != 101:
            reason = f"the opening was refused with {line.status} {show(line.body)}"
            raise Mismatch(f"expected a connection, got none: {reason}")

    def _match(self, wanted: Any, got: Any) -> None:
        try:
            match(wanted, got, self._names)
        except Mismatch as error:
            raise Mismatch(f"expected {show(wanted)}, got {show(got)}: {error}") from None


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
    "server": Player._server,
}
