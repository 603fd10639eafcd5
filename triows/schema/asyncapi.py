"""The declarations as an AsyncAPI 3.0 document, from the server's point of view."""

from __future__ import annotations

from typing import Any, Final

from triows.schema.declarations import ANSWERS, PUSHES, Error
from triows.schema.jsonschema import ABOUT, definitions

_CHANNEL: Final = {"$ref": "#/channels/connection"}
_BEARER: Final = "#/components/securitySchemes/bearer"


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document: each request with its answers, and what is pushed."""
    names = sorted({t.__name__ for pair in ANSWERS.values() for t in pair} | _pushed())
    schemas = definitions("#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "triows",
            "version": "1",
            "description": ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8080",
                "protocol": "ws",
                "protocolVersion": "13",
                "security": [{"$ref": _BEARER}],
            }
        },
        "channels": {"connection": _channel(names)},
        "operations": {**_requests(), **_pushes()},
        "components": {
            "messages": {name: _message(name, schemas[name]) for name in names},
            "schemas": schemas,
            "correlationIds": {"id": {"location": "$message.payload#/id"}},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _pushed() -> set[str]:
    return {push.__name__ for push in PUSHES.values()}


def _channel(names: list[str]) -> dict[str, Any]:
    return {
        "address": "/ws",
        "description": "One WebSocket, subprotocol triows.v1.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET"}},
    }


def _message(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    message = {
        "name": name,
        "summary": schema["description"],
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }
    if "id" in schema["properties"]:
        message["correlationId"] = {"$ref": "#/components/correlationIds/id"}
    return message


def _requests() -> dict[str, Any]:
    return {
        word: {
            "action": "receive",
            "channel": _CHANNEL,
            "messages": [_on_channel(request)],
            "reply": {"channel": _CHANNEL, "messages": [_on_channel(answer), _on_channel(Error)]},
        }
        for word, (request, answer) in ANSWERS.items()
    }


def _pushes() -> dict[str, Any]:
    return {
        word: {"action": "send", "channel": _CHANNEL, "messages": [_on_channel(push)]}
        for word, push in PUSHES.items()
    }


def _on_channel(type_: type) -> dict[str, str]:
    return {"$ref": f"#/channels/connection/messages/{type_.__name__}"}
