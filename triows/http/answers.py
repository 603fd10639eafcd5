"""Answers: JSON, and refusals with the status that goes with their code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from triows.codec import encode_json
from triows.errors import ErrorCode, HandshakeRefused, RequestError
from triows.http.front import error_body, error_headers
from triows.http.operations import JSON

_STATUS: Final = {
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ENDED: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.HANDLER_FAILED: 500,
    ErrorCode.UNAVAILABLE: 503,
}
"""What is not named here is 400: the request is wrong."""


def answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; not to be kept by anybody, unless `headers` say otherwise."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(encode_json(data) + b"\n", status, headers, JSON)


def empty(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer without a body."""
    return Response(None, status, {"Cache-Control": "no-store", **(headers or {})})


def refusal(error: HandshakeRefused | RequestError) -> Response:
    """Return the answer that says why not."""
    if isinstance(error, RequestError):
        error = as_refusal(error)
    headers = {"Cache-Control": "no-store", **dict(error_headers(error))}
    return Response(error_body(error) + b"\n", error.status, headers, JSON)


def as_refusal(error: RequestError) -> HandshakeRefused:
    """Return what a refused request is in HTTP."""
    wait = error.retry_after
    if wait is None and error.code is ErrorCode.UNAVAILABLE:
        wait = 1
    return HandshakeRefused(
        _STATUS.get(error.code, 400),
        error.code,
        error.message,
        retry_after=None if wait is None else max(1, math.ceil(wait)),
    )
