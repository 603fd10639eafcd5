"""What tests of the HTTP side need: a client that says exactly what a test wants."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import h11
import trio

import triows
from tests.support import ALL, Nursery, dial, token

NDJSON = "application/x-ndjson"
A = "/api/channels/session:1"
ADMIN = token("root", admin=True)
ME = token("me", **ALL)


class Answer(NamedTuple):
    """One answer; the body as JSON, or as text if it is none."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The code of a refusal, which has the form that all have."""
        assert self.body["type"] == "error", self.body
        assert set(self.body["data"]) - {"retry_after"} == {"code", "message", "retry"}
        code: str = self.body["data"]["code"]
        return code


def head_of(
    method: str, path: str, body: bytes = b"", bearer: str | None = ME, **headers: str | None
) -> bytes:
    """Return the head of a request; `_` in the names of headers stands for `-`, None for none."""
    fields: dict[str, str | None] = {"Host": "localhost:8080"}
    if bearer:
        fields["Authorization"] = f"Bearer {bearer}"
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Caller:
    """One connection that speaks HTTP."""

    def __init__(self, server: triows.Server, nursery: Nursery, *, narrow: bool = False) -> None:
        self.peer = dial(server, nursery, narrow=narrow)
        self._parser = h11.Connection(h11.CLIENT)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = b"",
        bearer: str | None = ME,
        **headers: str | None,
    ) -> Answer:
        """Send a request (a body that is no bytes as JSON) and return its answer."""
        await self.send(method, path, body, bearer, **headers)
        return await self.hear(method)

    async def send(
        self,
        method: str,
        path: str,
        body: object = b"",
        bearer: str | None = ME,
        **headers: str | None,
    ) -> None:
        """Send a request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.peer.send(head_of(method, path, data, bearer, **headers) + data)

    async def hear(self, method: str = "GET") -> Answer:
        """Return the next answer."""
        status, headers = await self.hear_head(method)
        text = b""
        while (piece := await self.piece()) is not None:
            text += piece
        body = json.loads(text) if headers.get("content-type") == "application/json" else text
        return Answer(status, headers, body if text else None)

    async def hear_head(self, method: str = "GET") -> tuple[int, dict[str, str]]:
        """Return status and headers of the next answer."""
        if self._parser.their_state is h11.DONE:
            self._parser.start_next_cycle()
        if self._parser.our_state is h11.IDLE:
            self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
            self._parser.send(h11.EndOfMessage())
        event = await self._event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._event()
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        return event.status_code, headers

    async def piece(self) -> bytes | None:
        """Return the next piece of an answer's body; None at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _event(self) -> Any:
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            try:
                data = bytes(await self.peer.stream.receive_some())
            except trio.BrokenResourceError:
                data = b""
            self._parser.receive_data(data)
        return event

    async def is_closed(self) -> bool:
        """Whether the server has hung up; waits for it to say something."""
        try:
            return not await self.peer.stream.receive_some()
        except trio.BrokenResourceError:
            return True


async def ask(
    server: triows.Server,
    nursery: Nursery,
    method: str,
    path: str,
    body: object = b"",
    bearer: str | None = ME,
    **headers: str | None,
) -> Answer:
    """Send one request on a connection of its own and return the answer."""
    return await Caller(server, nursery).ask(method, path, body, bearer, **headers)


class Event(NamedTuple):
    """One event of a stream."""

    id: str
    type: str
    data: Any
    retry: str


class Events:
    """A stream of Server-Sent Events, read as the standard says."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.comments = 0
        self._text = b""

    async def next(self) -> Event | None:
        """Return the next event that has data; None at the end of the stream."""
        retry = ""
        while True:
            while b"\n\n" not in self._text:
                piece = await self.caller.piece()
                if piece is None:
                    assert not self._text, self._text
                    return None
                self._text += piece
            block, _, self._text = self._text.partition(b"\n\n")
            fields: dict[str, list[str]] = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            self.comments += len(fields.get("", ()))
            retry = fields.get("retry", [retry])[0]
            if "data" in fields:
                data = json.loads("\n".join(fields["data"]))
                return Event(fields.get("id", [""])[0], fields["event"][0], data, retry)

    async def all(self) -> list[Event]:
        """Return all events to the end."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


async def watch(
    server: triows.Server,
    nursery: Nursery,
    query: str = "?tail=100",
    bearer: str | None = ME,
    *,
    narrow: bool = False,
    **headers: str | None,
) -> Events:
    """Open a stream of events of `A`."""
    caller = Caller(server, nursery, narrow=narrow)
    await caller.send("GET", f"{A}/events{query}", bearer=bearer, **headers)
    status, answered = await caller.hear_head()
    assert (status, answered["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return Events(caller)
