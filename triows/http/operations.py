"""The table of everything that can be asked over HTTP: what is served, and what is told of it.

Requests are routed and their queries read by this table, and the OpenAPI document is made from
it: so neither can say what the other does not.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final

import attrs

from triows.auth import Action
from triows.errors import ErrorCode, HandshakeRefused
from triows.http.schemas import CHANNEL, CURSOR, Schema, ref
from triows.requests import MAX_PAGE

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
MAX_WAIT: Final = 30  # seconds a request for history may wait for something new


class Grant(StrEnum):
    """What a token needs for an operation."""

    NONE = "none"
    ADMIN = "admin"
    SUBSCRIBE = Action.SUBSCRIBE
    PUBLISH = Action.PUBLISH
    PRESENCE = Action.PRESENCE


@attrs.frozen
class Parameter:
    """One parameter of a query, or a header.

    Attributes:
        name: as it is written.
        schema: `integer`, `number` or `string`, with its bounds.
        what: what it is for.
        place: `query` or `header`.
    """

    name: str
    schema: Schema
    what: str
    place: str = "query"

    def read(self, text: str) -> Any:
        """Return the value.

        Raises:
            HandshakeRefused: 400, saying what was expected.
        """
        if self.schema["type"] == "string":
            # What a cursor is, `cursors` says, with a code of its own.
            pattern = self.schema.get("pattern", "") if self.schema is not CURSOR else ""
            if pattern and not re.fullmatch(pattern, text, re.ASCII):
                raise HandshakeRefused(
                    400,
                    ErrorCode.BAD_REQUEST,
                    f"`{self.name}` is {text[:80]!r}; expected {self.what}",
                )
            return text
        kind = int if self.schema["type"] == "integer" else float
        low, high = self.schema.get("minimum", 0), self.schema["maximum"]
        try:
            # Only what is plainly a number: Python's readers take `1_0` and ` 1 `, too.
            value = kind(text) if set(text) <= set("0123456789.-") and len(text) < 20 else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise HandshakeRefused(
                400,
                ErrorCode.BAD_REQUEST,
                f"`{self.name}` is {text[:40]!r}; expected {self.schema['type']} "
                f"from {low} to {high}",
            )
        return value


@attrs.frozen
class Operation:
    """Something that can be asked.

    Attributes:
        name: unique; the `operationId`.
        method, path: how it is asked.
        grant: what the token needs.
        what: one sentence.
        answers: schema or media type by status; None has no body.
        parameters: of the query, and headers.
        body: media types and schemas that are accepted.
        needs_body: whether one has to be there.
        errors: statuses of refusals, beside those that every operation has.
    """

    name: str
    method: str
    path: str
    grant: Grant
    what: str
    answers: dict[int, Schema | str | None]
    parameters: tuple[Parameter, ...] = ()
    body: dict[str, Schema] = attrs.field(factory=dict)
    needs_body: bool = True
    errors: tuple[int, ...] = ()


def _integer(name: str, what: str, low: int, high: int) -> Parameter:
    return Parameter(name, {"type": "integer", "minimum": low, "maximum": high}, what)


_OFFSET: Final = 10**15
SINCE: Final = Parameter("since", CURSOR, "what was seen already: a cursor")
TAIL: Final = _integer("tail", "begin with so many of the newest messages", 0, MAX_PAGE)
CHANNELS: Final = "/api/channels"
ONE: Final = "/api/channels/{channel}"

OPERATIONS: Final = (
    Operation(
        "publish", "POST", f"{ONE}/messages", Grant.PUBLISH,
        "Publish a message, or many: one a line. `command` needs the grant of that name.",
        {200: {"anyOf": [ref("Published"), ref("Batch")]}, 201: ref("Published")},
        body={JSON: ref("Message"), NDJSON: {"type": "string"}},
        errors=(408, 409, 415, 429, 500),
    ),
    Operation(
        "history", "GET", f"{ONE}/messages", Grant.SUBSCRIBE,
        "Read what is kept, or wait for what comes next. Without `since` the newest.",
        {200: ref("Page"), 304: None},
        parameters=(
            SINCE, TAIL,
            _integer("before", "only what stands before this offset", 1, _OFFSET),
            _integer("limit", "at most so many messages", 1, MAX_PAGE),
            Parameter(
                "wait", {"type": "number", "minimum": 0, "maximum": MAX_WAIT},
                "seconds to wait for something after `since`",
            ),
            Parameter("If-None-Match", {"type": "string"}, "an `ETag` of before", "header"),
        ),
        errors=(404,),
    ),
    Operation(
        "events", "GET", f"{ONE}/events", Grant.SUBSCRIBE,
        "Watch as Server-Sent Events, until `end`. After that, 204: do not come back.",
        {200: EVENTS, 204: None},
        parameters=(
            SINCE, TAIL,
            Parameter("Last-Event-ID", {"type": "string"}, "a cursor", "header"),
        ),
        errors=(404,),
    ),
    Operation(
        "end", "POST", f"{ONE}/end", Grant.PUBLISH,
        "Publish the last message the channel will ever take.",
        {200: ref("Ended")},
        body={JSON: ref("End")}, needs_body=False, errors=(408, 409, 415, 429),
    ),
    Operation(
        "presence", "GET", f"{ONE}/presence", Grant.PRESENCE, "Who watches.",
        {200: ref("Presence")},
    ),
    Operation(
        "channels", "GET", CHANNELS, Grant.SUBSCRIBE,
        "The channels that the token may watch, sorted by name.",
        {200: ref("Channels")},
        parameters=(
            Parameter(
                "pattern", {"type": "string", "pattern": r"^[ -)+-~]*\*?$"},
                "a channel, or the beginning of several and `*`",
            ),
            _integer("limit", "at most so many channels", 1, MAX_PAGE),
            Parameter("after", {"type": "string"}, "only names after this one"),
        ),
    ),
    Operation(
        "channel", "GET", ONE, Grant.SUBSCRIBE, "How a channel stands.",
        {200: ref("Channel")}, errors=(404,),
    ),
    Operation(
        "connections", "GET", "/api/connections", Grant.ADMIN,
        "The connections that are open, and the last ones that were closed.",
        {200: ref("Connections")},
    ),
    Operation(
        "connection", "GET", "/api/connections/{id}", Grant.ADMIN,
        "One connection: how it is doing, or why it ended.",
        {200: ref("OneConnection")}, errors=(404,),
    ),
    Operation(
        "disconnect", "DELETE", "/api/connections/{id}", Grant.ADMIN, "End a connection.",
        {204: None}, errors=(404,),
    ),
    Operation(
        "revoke", "POST", "/api/revocations", Grant.ADMIN,
        "Believe a token no more, or no token of a user that was issued until now.",
        {200: ref("Revoked")}, body={JSON: ref("Revocation")}, errors=(408, 415),
    ),
    Operation(
        "drain", "POST", "/api/drain", Grant.ADMIN,
        "Take no new connections, and let go of those that are open.",
        {202: ref("Draining")},
    ),
    Operation(
        "statistics", "GET", "/api/statistics", Grant.ADMIN, "The server as a whole.",
        {200: ref("Statistics")},
    ),
    Operation(
        "metrics", "GET", "/metrics", Grant.ADMIN, "The same for Prometheus.",
        {200: "text/plain"},
    ),
    Operation(
        "openapi", "GET", "/openapi.json", Grant.NONE, "This document.",
        {200: {"type": "object"}},
    ),
)  # fmt: skip
"""Paths that are part of another come first."""

PATH_SCHEMAS: Final[dict[str, Schema]] = {
    "channel": CHANNEL,
    "id": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
}
