"""What the checks work with: connections, tokens, channels and the limits of the server."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final

import attrs
import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.talk import Talk
from triows.conformance.target import Target

_SECONDS_WORTH: Final = 2  # of messages that a check may have to wait for


class LeftOut(Exception):
    """A check cannot be made here; the message says why."""


class Rig:
    """The server, seen by one check. Used as `async with`: closes what was opened.

    Attributes:
        target: the server.
        tokens: by name.
        own: what the names of its channels begin with.
    """

    def __init__(self, target: Target, tokens: Mapping[str, str]) -> None:
        self.target = target
        self.tokens = tokens
        self._open: list[Talk] = []
        self._channels = 0
        self.own = f"conformance-{secrets.token_hex(6)}"

    async def __aenter__(self) -> Rig:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for talk in self._open:
            await trio.aclose_forcefully(talk.socket.stream)

    def channel(self) -> str:
        """Return the name of a channel that was never used."""
        self._channels += 1
        return f"session:{self.own}/{self._channels}"

    def token(self, name: str) -> str:
        """Return a token.

        Raises:
            LeftOut: there is none of this name.
        """
        if name not in self.tokens:
            raise LeftOut(f"needs the token {name}")
        return self.tokens[name]

    async def open(
        self, token: str | None, headers: Mapping[str, str] | None = None
    ) -> tuple[Talk, int, dict[str, str], Any]:
        """Open a WebSocket; return it with the answer: status, headers, body.

        Raises:
            Mismatch: nobody answers, or not in time.
        """
        answer = await self.target.open(token, headers)
        self._open.append(answer[0])
        return answer

    async def connect(self, name: str = "ann") -> Talk:
        """Open a connection with the token of this name, and read its greeting.

        Raises:
            LeftOut: there is no such token.
            Mismatch: the server refuses it.
        """
        talk, status, _, body = await self.open(self.token(name))
        if status != 101:
            raise Mismatch(f"an opening was refused with {status} {show(body)}")
        await talk.greet()
        return talk


def limit(talk: Talk, name: str) -> float:
    """Return a limit of the greeting; 0 is none.

    Raises:
        LeftOut: it does not name it.
    """
    value = talk.greeting.get("limits", {}).get(name)
    if type(value) not in (int, float):
        raise LeftOut(f"the greeting names no limits.{name}")
    return float(value)


def allowed(talk: Talk, wanted: int) -> int:
    """Return how many messages, of so many wanted, a connection can send in a few seconds."""
    rate = limit(talk, "messages_per_second")
    if not rate:
        return wanted
    return min(wanted, int(limit(talk, "messages_burst") + rate * _SECONDS_WORTH))


@attrs.frozen
class Check:
    """One check.

    Attributes:
        name: `module: what it shows`.
        section: of docs/protocol.md.
        run: makes it; raises Mismatch or LeftOut.
    """

    name: str
    section: str
    run: Callable[[Rig], Awaitable[None]]


Make = Callable[[Rig], Awaitable[None]]
CHECKS: Final[dict[str, Check]] = {}
"""Every check, by name; import it from `checks`, which makes them."""


def check(section: str) -> Callable[[Make], Make]:
    """Have a function be a check; its name, in words, is that of the check."""

    def register(run: Make) -> Make:
        module = run.__module__.rpartition(".")[2]
        name = f"{module}: {run.__name__.replace('_', ' ')}"
        CHECKS[name] = Check(name, section, run)
        return run

    return register


async def together(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run all tasks at once; when one fails the others are cancelled.

    Raises:
        ExceptionGroup: with what they raised.
    """
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)


async def publish(talk: Talk, channel: str, count: int, pause: float = 0) -> None:
    """Publish `{"n": 1}` to `{"n": count}`, as fast as the limits allow or with pauses."""
    numbers = range(1, count + 1)
    await publish_all(talk, channel, {f"n-{n}": {"n": n} for n in numbers}, pause)


async def publish_all(
    talk: Talk, channel: str, logs: Mapping[str, Any], pause: float = 0
) -> dict[str, Any]:
    """Publish by id, without waiting for one answer before the next is sent; return the answers.

    Raises:
        Mismatch: one was refused.
    """
    answers: dict[str, Any] = {}
    waited_for = iter(logs)
    for number, (id_, data) in enumerate(logs.items()):
        if number >= len(answers) + talk.window:
            first = next(waited_for)
            answers[first] = await talk.answer(first, "log")
        await talk.say("log", id=id_, channel=channel, data=data)
        await trio.sleep(pause)
    for id_ in waited_for:
        answers[id_] = await talk.answer(id_, "log")
    return answers


def expect_number(message: Any, channel: str, number: int) -> None:
    """Hold a message against the one of this number, of the only publisher of a channel.

    Raises:
        Mismatch: it is another.
    """
    kept = (message.get("channel"), message.get("offset"), message.get("data"))
    if kept != (channel, number, {"n": number}):
        raise Mismatch(f"expected message {number} of {channel}, got {show(message)}")
