"""docs/clients.md: its examples print what it says, and its numbers are those of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support import token
from tests.support_browser import DEADLINE, NODE, ROOT, WEB, LiveServer, Proxy
from triows import client, codec, conversation, dial, outbox, viewer
from triows.errors import CloseCode, may_reconnect

GUIDE = (ROOT / "docs" / "clients.md").read_text()
_EXAMPLE = re.compile(r"(?ms)^```(javascript|python)\n(.*?)^```\n\n```output\n(.*?)^```")


@attrs.frozen
class Example:
    """A program in the guide, and what it prints."""

    language: str
    code: str
    output: str

    def command(self, directory: Path) -> list[str]:
        """Return how to run it from `directory`."""
        suffix = ".mjs" if self.language == "javascript" else ".py"
        path = directory / f"example{suffix}"
        path.write_text(self.code)
        shutil.copy(WEB / "triows.js", directory)
        return [str(NODE) if suffix == ".mjs" else sys.executable, str(path)]


EXAMPLES = [Example(*match) for match in _EXAMPLE.findall(GUIDE)]
RAW = EXAMPLES[-1]


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """A server for the examples."""
    opened = LiveServer().start()
    yield opened
    opened.kill()


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, "TRIOWS_URL": url, "TRIOWS_TOKEN": token(), "PYTHONUTF8": "1"}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_guide_has_its_examples() -> None:
    """Every program in the guide is followed by what it prints, so that it is run here."""
    programs = re.findall(r"^```(?:javascript|python)$", GUIDE, re.MULTILINE)
    assert len(programs) == len(EXAMPLES) == 3


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=["javascript", "python", "raw"])
def test_example_prints_what_the_guide_says(
    example: Example, server: LiveServer, tmp_path: Path
) -> None:
    """Run as it stands, against a server."""
    if example is RAW:
        server.publish("session:raw", 3)
        server.end("session:raw")
    result = subprocess.run(
        example.command(tmp_path),
        env=_environment(server.url),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert _lines(result.stdout) == _lines(example.output)


@pytest.mark.slow
def test_raw_example_survives_what_it_says_it_does(server: LiveServer, tmp_path: Path) -> None:
    """The client without a library: cut twice, the server killed once; each message once."""
    proxy = Proxy(server.port)
    client = subprocess.Popen(
        RAW.command(tmp_path),
        env=_environment(f"ws://127.0.0.1:{proxy.port}/ws"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    server.publish("session:raw", 300, every=0.002)
    try:
        assert client.stdout is not None
        with client.stdout as output:
            for line in output:
                said.append(line.split(" {")[0].strip())
                if said[-1] in ("log 50", "log 150"):
                    proxy.cut()
                elif said[-1] == "log 300":
                    server.kill()
                    server.start()
                    server.publish("session:raw", 3)
                    server.end("session:raw")
        client.wait(DEADLINE)
    finally:
        client.kill()
        client.wait()
        proxy.close()
    began_anew = ["gap None", "log 1", "log 2", "log 3", "end 4"]
    assert said == [f"log {number}" for number in range(1, 301)] + began_anew


def test_close_codes_are_those_of_the_errors() -> None:
    """The table says of each code what `may_reconnect` says, and leaves none out."""
    rows = re.findall(r"^\| ([\d ,–]+) \|[^|]*\| (come back|stop)", GUIDE, re.MULTILINE)
    advice: dict[int, bool] = {}
    for codes, words in rows:
        for part in codes.split(","):
            first, _, last = part.strip().partition("–")
            for code in range(int(first), int(last or first) + 1):
                advice[code] = words == "come back"
    assert set(CloseCode) <= set(advice)
    assert set(range(4000, 5000)) <= set(advice)
    assert advice == {code: may_reconnect(code) for code in advice}


def test_numbers_are_those_of_the_clients() -> None:
    """What the guide says of delays and bounds is what both clients do."""
    source = (WEB / "triows.js").read_text()
    found = re.findall(r"^const ([A-Z_]+) = ([\d.]+);", source, re.MULTILINE)
    constants = {name: float(value) for name, value in found}
    assert constants["CONNECT_TIMEOUT"] == dial.CONNECT_TIMEOUT == 5
    assert (constants["MIN_DELAY"], constants["MAX_DELAY"]) == (0.5, 20)
    assert (outbox.BACKOFF_MIN, outbox.BACKOFF_MAX) == (0.5, 20)
    assert constants["STABLE"] == client.STABLE == 5
    assert constants["TOKEN_ATTEMPTS"] == client.TOKEN_ATTEMPTS == 3
    assert constants["PACE"] == conversation.PACE == 0.9
    assert constants["MAX_NESTING"] == codec.MAX_NESTING == 100
    assert constants["MAX_QUEUE"] == viewer.BUFFER == constants["MAX_PENDING"] == 1000
