"""One connection to a server in messages, each waited for with a deadline."""

from __future__ import annotations

import json
import secrets
import sys
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import attrs
import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.raw import CLOSE, PING, PONG, TEXT, Socket, frame
from triows.errors import ErrorCode

PATIENCE: Final = 5.0  # seconds a server has for each answer, unless it is told otherwise

_NEVER: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define
class Journal:
    """What all servers' words are held against at the end of a run.

    Attributes:
        errors: code and `retry` of each `error` that came.
        closes: each close code that came.
    """

    errors: set[tuple[str, bool]] = attrs.field(factory=set)
    closes: set[int] = attrs.field(factory=set)


class Pace:
    """Keeps a sender well within what the greeting allows: nine tenths of the rate in the long
    run and half of the burst, since a server that was held up reads everything at once.

    Attributes:
        window: messages that may be under way without an answer: half of the burst, too.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._rate = 0.9 * limits.get("messages_per_second", 0)
        self._burst = max(1.0, limits.get("messages_burst", 0) / 2)
        self._left = self._burst
        self._at = trio.current_time()
        self.window = int(self._burst) if self._rate else sys.maxsize

    async def take(self) -> None:
        """Wait until one more message may be sent."""
        if not self._rate:
            return
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            await trio.sleep((1 - self._left) / self._rate)
        self._left -= 1


class Talk:
    """A connection whose messages are JSON. Pings of the server are answered while it is read.

    Attributes:
        socket: the frames below.
        greeting: the `data` of the first message, where it was read.
        over: no message will come any more.
        patience: seconds the server has for each answer.
    """

    def __init__(
        self, socket: Socket, journal: Journal | None = None, patience: float = PATIENCE
    ) -> None:
        self.socket = socket
        self.greeting: dict[str, Any] = {}
        self.over = False
        self._journal = journal or Journal()
        self.patience = patience
        self._pushed: deque[Any] = deque()  # what came while an answer was waited for
        self._ids = (f"{secrets.token_hex(6)}-{n}" for n in count(1))
        self._pace = Pace({})

    async def greet(self) -> None:
        """Read the greeting.

        Raises:
            Mismatch: something else came.
        """
        message = await self.hear()
        if message.get("type") != "auth" or not isinstance(message.get("data"), dict):
            raise Mismatch(f"expected the greeting, got {show(message)}")
        self.greeting = message["data"]
        self._pace = Pace(self.greeting.get("limits", {}))

    @property
    def window(self) -> int:
        """How many messages may be under way without an answer."""
        return self._pace.window

    async def say(self, type: str, **members: Any) -> None:
        """Send one message, no faster than the greeting allows."""
        await self._pace.take()
        await self.send(frame(json.dumps({"type": type, **members})))

    async def send(self, data: bytes) -> None:
        """Send raw bytes.

        Raises:
            Mismatch: the server has hung up, or takes nothing.
        """
        try:
            with trio.fail_after(self.patience):
                await self.socket.send(data)
        except trio.TooSlowError:
            raise Mismatch(f"the server took nothing for {self.patience:g} s") from None
        except _NEVER:
            raise Mismatch("the server has hung up while something was sent") from None

    async def ask(self, type: str, **members: Any) -> Any:
        """Send a request and return its answer; what is pushed before it is kept for `push`.

        One that came too fast, since the server was held up, is sent again when it says so.

        Raises:
            Mismatch: no answer, or an `error`.
        """
        id_ = members.pop("id", next(self._ids))
        give_up = trio.current_time() + self.patience
        while True:
            await self.say(type, id=id_, **members)
            answer = await self._answer_to(id_)
            wait = _wait_wanted(answer)
            if wait is None or trio.current_time() + wait > give_up:
                return _accepted(answer, type)
            await trio.sleep(wait)

    async def answer(self, id_: str, type: str = "request") -> Any:
        """Return the answer with this `id`, as `ask`."""
        return _accepted(await self._answer_to(id_), type)

    async def _answer_to(self, id_: str) -> Any:
        while (message := await self.hear()).get("id") != id_ or "offset" in message:
            self._pushed.append(message)
        return message

    async def push(self) -> Any:
        """Return the next message that no request was answered with.

        Raises:
            Mismatch: none came.
        """
        return self._pushed.popleft() if self._pushed else await self.hear()

    def pushed(self) -> list[Any]:
        """Return what came before the last answer, and was not read yet."""
        found = list(self._pushed)
        self._pushed.clear()
        return found

    async def hear(self, edit: Callable[[bytes], bytes] = bytes) -> Any:
        """Return the next message.

        Args:
            edit: changes its text before it is read.

        Raises:
            Mismatch: none came, or it is not a JSON object in a text message.
        """
        opcode, payload = await self.receive()
        if opcode != TEXT:
            raise Mismatch(f"got {_shown(opcode, payload)}")
        return self._read(edit(payload))

    def _read(self, payload: bytes) -> Any:
        try:
            message = json.loads(payload)
        except ValueError:
            raise Mismatch(f"got what is not JSON: {payload[:100]!r}") from None
        if not isinstance(message, dict):
            raise Mismatch(f"got what is no object: {show(message)}")
        data = message.get("data")
        if message.get("type") == "error" and isinstance(data, dict):
            self._journal.errors.add((str(data.get("code")), data.get("retry") is True))
        return message

    async def closed(self, code: int) -> None:
        """Read on until the server closes, and hang up; messages before are dropped.

        Raises:
            Mismatch: it closes with another code, or not at all.
        """
        await self.expect_close(code, skip=lambda opcode: opcode != CLOSE)

    async def expect_close(
        self, code: int, skip: Callable[[int], bool] = lambda opcode: False
    ) -> None:
        """Receive a close frame with this code, and hang up.

        Raises:
            Mismatch: something else came.
        """
        try:
            while skip((got := await self.receive())[0]):
                pass
        except Mismatch as error:
            raise Mismatch(f"expected a close frame with {code}, {error}") from None
        opcode, payload = got
        if opcode != CLOSE or int.from_bytes(payload[:2], "big") != code:
            raise Mismatch(f"expected a close frame with {code}, got {_shown(opcode, payload)}")
        await self.socket.hang_up()

    async def receive(self) -> tuple[int, bytes]:
        """Return the next message or close frame: opcode and payload.

        Raises:
            Mismatch: none came in time.
        """
        with trio.move_on_after(self.patience):
            while (got := await self.socket.receive())[0] in (PING, PONG):
                if got[0] == PING:
                    await self._pong(got[1])
            if got[0] == CLOSE:
                self.over = True
                if got[1]:
                    self._journal.closes.add(int.from_bytes(got[1][:2], "big"))
            return got
        raise Mismatch(f"got nothing within {self.patience:g} s")

    async def _pong(self, payload: bytes) -> None:
        try:
            await self.socket.send(frame(payload, PONG))
        except _NEVER:
            pass  # reading tells


def _wait_wanted(answer: dict[str, Any]) -> float | None:
    """Return the seconds after which a request that was refused as too fast is to be sent again."""
    data = answer.get("data")
    if answer.get("type") != "error" or not isinstance(data, dict):
        return None
    wait = data.get("retry_after")
    if data.get("code") != ErrorCode.RATE_LIMITED or not isinstance(wait, int | float):
        return None
    return max(0.0, wait)


def _accepted(answer: Any, type: str) -> Any:
    """Return `answer`; raises Mismatch if it is an `error`."""
    if answer["type"] == "error":
        raise Mismatch(f"a {type} was refused: {show(answer)}")
    return answer


def _shown(opcode: int, payload: bytes) -> str:
    if opcode == CLOSE and not payload:
        return "the end of the connection without a close frame"
    if opcode == CLOSE:
        reason = payload[2:].decode(errors="replace")
        return f"a close frame with {int.from_bytes(payload[:2], 'big')} ({reason})"
    text = payload[:300].decode(errors="replace")
    return text if opcode == TEXT else f"a binary message: {text!r}"
