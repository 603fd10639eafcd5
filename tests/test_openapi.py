"""The OpenAPI document is true: what it says is what is served, and nothing else is."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import SECRET, Nursery, memory_server
from tests.support_http import ADMIN, ask
from triows.http.api import HANDLERS
from triows.http.openapi import document
from triows.http.operations import OPERATIONS


def references(part: Any) -> set[str]:
    """Return what a part of the document refers to."""
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


async def test_document_is_served(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Everybody may read it, and it is JSON."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", "/openapi.json", bearer=None)
        assert (answer.status, answer.body) == (200, json.loads(json.dumps(document())))


def test_document_is_whole() -> None:
    """Every reference leads somewhere, every component is used, every parameter declared."""
    found = document()
    known = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= known
    for path, operations in found["paths"].items():
        for operation in operations.values():
            declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_every_operation_has_its_handler() -> None:
    """The table, and who answers, have the same names."""
    assert [operation.name for operation in OPERATIONS] == list(HANDLERS)


async def run_schemathesis(port: int, folder: Path, *options: str) -> str:
    """Make requests from the document, right and wrong ones, and return what was said of them."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(Path(__file__).parent / "schemathesis.toml")),
        *("run", f"http://127.0.0.1:{port}/openapi.json", "--no-color", "--seed", "1"),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "10", *options),
    ]
    with trio.fail_after(110):
        done = await trio.run_process(
            command,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            env={**os.environ, "TRIOWS_TEST_TOKEN": ADMIN},
        )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, said
    return said


@pytest.mark.slow
async def test_requests_made_from_the_document(tmp_path: Path) -> None:
    """Hundreds of requests, right and wrong ones, get the answers that the document promises."""
    unlimited = triows.Limits(messages_per_second=0, bytes_per_second=0)
    settings = triows.Settings(limits=unlimited)
    auth = triows.JWTAuth(SECRET)
    async with triows.open_server(port=0, auth=auth, settings=settings) as server:
        await server.publish("session:42", triows.log(1))
        # Two would end the server or revoke the token in use, for names that were read are
        # tried; two are for the second round.
        excluded = [
            word
            for name in ("drain", "revoke", "events", "end")
            for word in ("--exclude-operation-id", name)
        ]
        said = await run_schemathesis(server.port, tmp_path, "--max-examples", "15", *excluded)
        assert "Tested: 10" in said, said
        with suppress(triows.RequestError):  # ended it has to be, or its events have no end
            await server.publish("session:42", triows.end())
        included = ("--include-operation-id", "events", "--include-operation-id", "end")
        said = await run_schemathesis(server.port, tmp_path, "--max-examples", "10", *included)
        assert "Tested: 2" in said, said
        statistics = server.statistics()
        assert {200, 201, 204, 400, 401, 404, 405, 409, 415} <= set(statistics.answers)
        assert "internal" not in statistics.errors
