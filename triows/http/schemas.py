"""The JSON of requests and answers, as OpenAPI tells it."""

from __future__ import annotations

from typing import Any, Final

import attrs

from triows.messages import MAX_CHANNEL, MAX_ID, PUBLISHED
from triows.statistics import ClosedConnection, ConnectionStatistics, ServerStatistics

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
CURSOR: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{1,64}:[0-9]{1,18}$",
    "description": "`<epoch>:<offset>`: everything up to this offset has been seen",
    "examples": ["9f86d081884c:42"],
}
CHANNEL: Final[Schema] = {
    "type": "string",
    "maxLength": MAX_CHANNEL,
    "pattern": "^(system|[a-z][a-z0-9_-]{0,31}:[A-Za-z0-9._~/-]{1,253})$",
    "examples": ["session:42"],
}


def ref(name: str) -> Schema:
    """Return a reference to one of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Return `schema`, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(members: Schema, *, optional: Schema | None = None) -> Schema:
    """Return an object of exactly these members."""
    return {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def array(items: Schema) -> Schema:
    """Return an array."""
    return {"type": "array", "items": items}


_KINDS: Final[dict[str, Schema]] = {
    "str": TEXT,
    "str | None": nullable(TEXT),
    "bool": BOOLEAN,
    "int": COUNT,
    "float": NUMBER,
    "float | None": nullable(NUMBER),
    "tuple[str, ...]": array(TEXT),
    "dict[int, int]": {"type": "object", "additionalProperties": COUNT},
    "dict[str, int]": {"type": "object", "additionalProperties": COUNT},
    "ConnectionStatistics": ref("Connection"),
}


def members_of(kind: type[attrs.AttrsInstance]) -> Schema:
    """Return the members of a snapshot, as its class declares them."""
    return {field.name: _KINDS[str(field.type)] for field in attrs.fields(kind)}


END: Final[Schema] = {
    "type": "object",
    "properties": {"exit_code": nullable({"type": "integer"}), "reason": nullable(TEXT)},
    "description": "other members are kept, too",
}


def _message(types: list[str], data: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": types},
            "id": nullable({"type": "string", "maxLength": MAX_ID}),
            "data": data,
        },
        "required": ["type"],
    }


MESSAGE: Final[Schema] = {
    "anyOf": [
        _message(sorted(PUBLISHED - {"end"}), {"description": "any JSON, kept byte for byte"}),
        _message(["end"], ref("End")),
    ]
}
EVENT: Final[Schema] = {
    "type": "object",
    "properties": {"id": TEXT, "event": TEXT, "data": TEXT, "retry": COUNT},
    "description": "one event; there are many. `data` is JSON",
}
POSITION: Final = {"epoch": TEXT, "offset": COUNT}
_ERROR_DATA: Final = record(
    {"code": TEXT, "message": TEXT, "retry": BOOLEAN}, optional={"retry_after": NUMBER}
)
_RESULT: Final = {"result": {"description": "what the application's handler answered"}}

COMPONENTS: Final[dict[str, Schema]] = {
    "Error": record({"type": {"const": "error"}, "data": _ERROR_DATA}),
    "Message": MESSAGE,
    "Stored": {
        "type": "object",
        "properties": {
            "type": TEXT,
            "channel": TEXT,
            "offset": {"type": "integer", "minimum": 1},
            "timestamp": {"type": "string", "format": "date-time"},
            "id": TEXT,
            "data": {},
        },
        "required": ["type", "channel", "offset", "timestamp"],
    },
    "Published": record({"channel": TEXT, **POSITION, "duplicate": BOOLEAN}, optional=_RESULT),
    "Batch": record(
        {
            "results": array(
                {
                    "anyOf": [
                        record({**POSITION, "duplicate": BOOLEAN}, optional=_RESULT),
                        record({"error": _ERROR_DATA}),
                    ]
                }
            )
        }
    ),
    "Gap": record({"epoch": TEXT, "from": COUNT, "to": COUNT, "count": COUNT, "reason": TEXT}),
    "Page": record(
        {
            "channel": TEXT,
            **POSITION,
            "earliest": COUNT,
            "messages": array(ref("Stored")),
            "cursor": CURSOR,
            "gap": nullable(ref("Gap")),
            "ended": nullable({"type": "object"}),
        }
    ),
    "Channel": record(
        {
            "channel": TEXT,
            **POSITION,
            "earliest": COUNT,
            "bytes": COUNT,
            "viewers": COUNT,
            "opened_at": NUMBER,
            "touched_at": NUMBER,
            "ended": nullable({"type": "object"}),
        }
    ),
    "Channels": record({"channels": array(ref("Channel")), "next": nullable(TEXT)}),
    "Presence": record(
        {
            "count": COUNT,
            "connections": array(
                record({"connection": TEXT, "user": nullable(TEXT), "since": NUMBER})
            ),
        }
    ),
    "End": END,
    "Ended": record({"channel": TEXT, **POSITION}),
    "Connection": record(members_of(ConnectionStatistics)),
    "Closed": record(members_of(ClosedConnection)),
    "Connections": record({"open": array(ref("Connection")), "closed": array(ref("Closed"))}),
    "OneConnection": {
        "anyOf": [
            record({**members_of(ConnectionStatistics), "state": {"enum": ["open", "closing"]}}),
            record(
                {
                    "state": {"const": "closed"},
                    **members_of(ClosedConnection),
                    "advice": {"enum": ["reconnect", "stay away"]},
                }
            ),
        ]
    },
    "Revocation": {
        "type": "object",
        "properties": {"token_id": TEXT, "user": TEXT},
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    },
    "Revoked": record({"closed": COUNT}),
    "Draining": record({"connections": COUNT, "window": NUMBER}),
    "Statistics": record(members_of(ServerStatistics)),
    "Health": record({"status": TEXT}),
}
