"""Steering a command from afar: what `command` messages ask of it, and what became of that."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

import triows
from triows.cli.child import Child
from triows.cli.lines import Publish
from triows.cli.output import note

ACTIONS: Final = ("interrupt", "input", "terminate")
TERMINATE_GRACE: Final = 5.0  # seconds from SIGTERM to SIGKILL
TELL: Final = 1.0  # seconds for the server to take what has to be told before the end
MAX_INPUT: Final = 16 * 1024  # bytes of one `input`

_KNOWN: Final = ", ".join(ACTIONS)
_NOT_PERMITTED: Final = "not permitted: the command runs as another user"


class Refused(Exception):
    """What was asked for cannot be done; the message says why."""


@final
class Steering:
    """Obeys `command` messages while a command runs, and tells the channel what it did.

    Who may send them is for the server to decide: what arrives here was allowed.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._publish: Publish | None = None
        self._terminating = trio.Event()

    def attach(self, child: Child, publish: Publish) -> None:
        """Steer `child` from now on, and tell what is done through `publish`."""
        self._child, self._publish = child, publish

    async def kill_what_stays(self) -> None:
        """Kill the command when it was asked to end and did not in time."""
        await self._terminating.wait()
        await trio.sleep(TERMINATE_GRACE)
        assert self._child is not None
        outcome = {"event": "command", "action": "terminate", "outcome": "killed"}
        outcome["reason"] = f"still there {TERMINATE_GRACE:g} s after SIGTERM"
        try:
            self._child.send(signal.SIGKILL)
        except PermissionError:
            outcome |= {"outcome": "refused", "reason": _NOT_PERMITTED}
        with trio.move_on_after(TELL, shield=True):  # now it ends, and this with it
            await self._tell(outcome)

    async def obey(self, message: triows.Message, user: str | None) -> dict[str, Any]:
        """Do what a `command` message asks for; tell the channel, and return, the outcome.

        Args:
            message: as it was published.
            user: who sent it, if that is known.
        """
        outcome: dict[str, Any] = {"event": "command", "outcome": "obeyed"}
        about = {"user": user, "id": message.id, "offset": message.offset}
        outcome |= {name: value for name, value in about.items() if value is not None}
        try:
            self._act(message, outcome)
        except Refused as error:
            outcome |= {"outcome": "refused", "reason": str(error)}
        await self._tell(outcome)
        return outcome

    async def handle(self, request: triows.Request) -> dict[str, Any]:
        """Do so as a server's own handler: who asks is known, and is answered as well."""
        message = request.message
        assert request.position is not None
        placed = triows.Message(
            message.type, message.raw, id=message.id, offset=request.position.offset
        )
        return await self.obey(placed, request.identity.user)

    def _act(self, message: triows.Message, outcome: dict[str, Any]) -> None:
        data = _read(message)
        action = data.get("action")
        outcome["action"] = action if isinstance(action, str) and action in ACTIONS else None
        if outcome["action"] is None:
            raise Refused(f"unknown action {str(action)[:40]!r}; known are {_KNOWN}")
        if self._child is None or self._child.process.returncode is not None:
            raise Refused("the command is not running")
        try:
            match action:
                case "interrupt":
                    self._child.interrupt()
                case "terminate":
                    self._child.send(signal.SIGTERM)
                    self._terminating.set()
                case _:
                    outcome["bytes"] = _give(self._child, data.get("text"))
        except PermissionError:
            raise Refused(_NOT_PERMITTED) from None

    async def _tell(self, data: dict[str, Any]) -> None:
        if self._publish is None:
            return
        try:
            await self._publish([triows.event(data)])
        except triows.TriowsError as error:
            note(f"what became of a command could not be told: {error}", "yellow")


def _read(message: triows.Message) -> dict[str, Any]:
    try:
        data = message.data
    except RecursionError:
        data = None
    if not isinstance(data, dict):
        raise Refused(f"`data` is to be an object with `action`, one of {_KNOWN}")
    return data


def _give(child: Child, text: object) -> int:
    """Give the command text to read; return how many bytes."""
    if not isinstance(text, str):
        raise Refused("`input` needs `text`, a string")
    data = text.encode(errors="replace")
    if len(data) > MAX_INPUT:
        raise Refused(f"`text` has {len(data)} bytes; the limit is {MAX_INPUT}")
    feed = child.feed
    if feed is None or not feed.is_open:
        raise Refused("the command reads no input any more")
    if not feed.offer(data):
        raise Refused(f"the command does not read: {feed.waiting} bytes wait for it already")
    return len(data)


@asynccontextmanager
async def steered(
    client: triows.Client, channel: str, steering: Steering | None
) -> AsyncIterator[None]:
    """Have commands published from now on at a server elsewhere obeyed, each once.

    Raises:
        TriowsError: the token does not allow to see them.
    """
    if steering is None:
        yield
        return
    page = await client.history(channel, limit=1)
    now = triows.Position(page["epoch"], page["offset"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, client, channel, now, steering)
        yield
        nursery.cancel_scope.cancel(reason="the command has ended")


async def _follow(
    client: triows.Client, channel: str, since: triows.Position, steering: Steering
) -> None:
    try:
        async with client.subscribe(channel, since=since) as messages:
            async for message in messages:
                if message.type == triows.MessageType.COMMAND:
                    await steering.obey(message, None)
                elif message.type == triows.MessageType.GAP and message.data["count"]:
                    note(f"{message.data['count']} messages missed; commands among them are lost")
    except triows.TriowsError as error:
        note(f"commands are no longer obeyed: {error}", "yellow")
