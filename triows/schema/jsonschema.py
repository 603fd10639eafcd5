"""The declarations as JSON Schema."""

from __future__ import annotations

import itertools
from typing import Any, Final

import msgspec

from triows.errors import RETRYABLE, CloseCode, ErrorCode, may_reconnect
from triows.schema.declarations import ANSWERS, PUSHES

ABOUT: Final = "triows.v1: live sessions over WebSocket, one JSON object in each text frame."
_STARTS: Final = ("since", "tail", "from")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of all messages in both directions.

    `ClientMessage` and `ServerMessage` among its `$defs` are those of one direction; the answer
    to a certain request has a definition of its own, such as `SubscribeAck`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:triows:v1",
        "title": "triows.v1",
        "description": ABOUT,
        **_any_of("#/$defs/{name}", ["ClientMessage", "ServerMessage"]),
        "$defs": definitions("#/$defs/{name}"),
    }


def definitions(ref: str) -> dict[str, Any]:
    """Return all definitions by name, in the words that draft 7 and 2020-12 have in common.

    Args:
        ref: how they refer to one another, with a place for `{name}`.
    """
    requests = [request for request, _ in ANSWERS.values()]
    said = dict.fromkeys([*(answer for _, answer in ANSWERS.values()), *PUSHES.values()])
    _, found = msgspec.json.schema_components([*requests, *said], ref_template=ref)
    for definition in found.values():
        definition["description"] = _first_paragraph(definition["description"])
    found["SubscribeData"]["not"] = {
        "anyOf": [_both(a, b) for a, b in itertools.combinations(_STARTS, 2)]
    }
    found["ErrorCode"] = _error_codes()
    found["CloseCode"] = _close_codes()
    found["ClientMessage"] = _any_of(ref, [t.__name__ for t in requests])
    found["ServerMessage"] = _any_of(ref, [t.__name__ for t in said])
    return dict(sorted(found.items()))


def _any_of(ref: str, names: list[str]) -> dict[str, Any]:
    return {"anyOf": [{"$ref": ref.format(name=name)} for name in names]}


def _first_paragraph(docstring: str) -> str:
    return " ".join(docstring.split("\n\n")[0].split())


def _both(first: str, second: str) -> dict[str, Any]:
    """Return what is true of an object with both members; null is as good as absent."""
    given = {"not": {"type": "null"}}
    return {"required": [first, second], "properties": {first: given, second: given}}


def _error_codes() -> dict[str, Any]:
    return {
        "title": "ErrorCode",
        "description": "What kind of refusal; `x-retry`: the same request may succeed later.",
        "enum": [str(code) for code in ErrorCode],
        "x-retry": [str(code) for code in ErrorCode if code in RETRYABLE],
    }


def _close_codes() -> dict[str, Any]:
    return {
        "title": "CloseCode",
        "description": "Why a connection ended; `x-reconnect`: whether to connect again. Of codes "
        "not named here, 4500 to 4999 say not to, and all others to.",
        "oneOf": [
            {"const": int(code), "title": code.name, "x-reconnect": may_reconnect(code)}
            for code in CloseCode
        ],
    }
