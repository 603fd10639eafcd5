"""The examples of docs/http.md, run as they stand there against a server."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import ALL, SECRET, Nursery, memory_server, token
from tests.support_http import ADMIN, ask

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "http.md").read_text()
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


async def run(example: str, url: str) -> str:
    """Return what an example prints; it has to succeed."""
    variables = {"URL": url, "TOKEN": token("ann", **ALL), "ADMIN": ADMIN}
    with trio.fail_after(60):
        done = await trio.run_process(
            ["sh", "-euc", example],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **variables, "no_proxy": "127.0.0.1"},
        )
    assert done.returncode == 0, (example, done.stdout, done.stderr)
    return done.stdout.decode()


def values(text: str) -> list[Any]:
    """Return the JSON values in a text, one a line; other lines are left out."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_curl_is_there() -> None:
    """./tests/run installs it, or says that it cannot."""
    assert shutil.which("curl"), "curl is missing: apt-get install curl"


async def test_examples() -> None:
    """Every example does what the page says."""
    auth = triows.JWTAuth(SECRET)
    async with triows.open_server(port=0, auth=auth) as server:
        url = f"http://127.0.0.1:{server.port}"
        said = [await run(example, url) for example in EXAMPLES]
    one, many, pages, waited, events, channels, administration = said
    (first,) = values(one)
    assert (first["offset"], first["duplicate"]) == (1, False)
    (batch,) = values(many)
    assert [r.get("offset") for r in batch["results"]] == [2, None, 3]
    newest, older = values(pages)
    assert [m["offset"] for m in newest["messages"]] == [2, 3]
    assert [m["offset"] for m in older["messages"]] == [1]
    assert waited.strip() == "304"
    assert re.findall("^id: .*:(.*)$", events, re.MULTILINE) == ["1", "2", "3"]
    listed, info, presence, end = values(channels)
    assert [c["channel"] for c in listed["channels"]] == ["session:42"]
    assert (info["offset"], presence["count"], end["offset"]) == (3, 0, 4)
    connections, statistics, revoked, drained = values(administration)
    assert len(connections["closed"]) == 1
    assert statistics["draining"] is False
    assert "triows_draining 0.0" in administration
    assert (revoked, drained["connections"]) == ({"closed": 0}, 0)


async def test_readme() -> None:
    """What the README asks over HTTP is answered; events are watched for a while."""
    (example,) = re.findall(r"^```sh\n(with=.*?)^```$", README, re.MULTILINE | re.DOTALL)
    example = example.replace("curl -N", "! curl -N --max-time 3").replace("curl", "curl -fsS")
    async with triows.open_server(port=0, auth=triows.JWTAuth(SECRET)) as server:
        said = await run(example, f"http://127.0.0.1:{server.port}")
    assert '"offset":1,"duplicate":false}' in said
    assert '"messages":[{"type":"log"' in said
    assert re.search("^id: .*:1$", said, re.MULTILINE)
    assert "triows_channels 2.0" in said


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`limits\.([a-z_]+)`", TEXT))))
def test_settings_exist(word: str) -> None:
    """A limit that the page names is one."""
    assert hasattr(triows.Limits(), word)


async def test_metrics_are_those_of_the_table(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The page names every metric there is, with its label, and no other."""
    table = TEXT.partition("## Metrics")[2].partition("\n\nAll are")[0]
    told = set(re.findall(r"`([a-z_]+)(?:\{[a-z]+\})?`", table)) - {"triows_"}
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", "/metrics", bearer=ADMIN)
        kinds = re.findall(r"^# TYPE triows_([a-z_]+) ", answer.body.decode(), re.MULTILINE)
    assert told == set(kinds)
