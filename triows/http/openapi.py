"""The OpenAPI document, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from triows.http.operations import EVENTS, JSON, OPERATIONS, PATH_SCHEMAS, Grant, Operation
from triows.http.schemas import COMPONENTS, EVENT, TEXT, ref

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


@cache
def document() -> dict[str, Any]:
    """Return the document; made once, not to be changed."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "triows", "version": version("triows")},
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _describe(operation: Operation) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": PATH_SCHEMAS[name]}
        for name in _PLACEHOLDER.findall(operation.path)
    ]
    others = [
        {"name": p.name, "in": p.place, "description": p.what, "schema": p.schema}
        for p in operation.parameters
    ]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.what,
        "security": [] if operation.grant is Grant.NONE else [{"token": []}],
        "parameters": in_path + others,
        "responses": {
            **{str(s): _answer(s, content) for s, content in operation.answers.items()},
            **{str(s): _answer(s, ref("Error")) for s in _errors(operation)},
        },
    }
    if operation.body:
        described["requestBody"] = {
            "required": operation.needs_body,
            "content": {kind: {"schema": schema} for kind, schema in operation.body.items()},
        }
    return described


def _errors(operation: Operation) -> list[int]:
    if operation.grant is Grant.NONE:
        return [400, 403, 405]
    return sorted({400, 401, 403, 405, 411, 413, 429, 503, *operation.errors})


def _answer(status: int, content: Mapping[str, Any] | str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(content, str):
        schema = EVENT if content == EVENTS else TEXT
        answer["content"] = {content: {"schema": schema}}
    elif content is not None:
        answer["content"] = {JSON: {"schema": content}}
    return answer
