"""triows.js under Node: its size, its types, its logic in virtual time, and a real server."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support import token
from tests.support_browser import DEADLINE, NODE, ROOT, LiveServer, Proxy, run_node

MAX_GZIPPED = 5 * 1024
TESTS = sorted((ROOT / "tests" / "js").glob("*.test.mjs"))
TYPESCRIPT = ROOT / ".venv" / "npm" / "node_modules" / "typescript" / "lib" / "tsc.js"


def test_client_is_part_of_the_package() -> None:
    """Both files are found as resources of the installed package."""
    for name in ("triows.js", "triows.d.ts"):
        assert files("triows").joinpath("web", name).is_file()


def test_client_is_small_and_stands_alone() -> None:
    """At most 5 KB gzipped, as served; one module that imports nothing."""
    served = files("triows").joinpath("web", "triows.js").read_bytes()
    assert len(gzip.compress(served, 9)) <= MAX_GZIPPED
    assert not re.search(rb"^\s*import\b|\bimport\(|\brequire\(", served, re.MULTILINE)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.removesuffix(".test.mjs"))
def test_logic(path: Path) -> None:
    """The tests in tests/js, over fake sockets and in virtual time."""
    result = run_node("--test", "--test-reporter=spec", path)
    assert result.returncode == 0, result.stdout
    assert re.search(r"^ℹ pass [1-9]", result.stdout, re.MULTILINE), result.stdout


def test_types() -> None:
    """The declarations compile, strictly, and mean what tests/js/types.ts expects."""
    assert TYPESCRIPT.is_file(), f"{TYPESCRIPT} is missing: ./tests/run installs it"
    modules = "--target es2022 --module esnext --moduleResolution bundler --lib es2022,dom"
    options = f"--noEmit --strict {modules}".split()
    result = run_node(TYPESCRIPT, *options, ROOT / "tests" / "js" / "types.ts")
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_ten_thousand_messages_over_a_failing_network() -> None:
    """Cut several times, killed with SIGKILL and started again: 10,000 messages are published and
    watched in order, without a hole, each once.
    """
    server = LiveServer().start()
    proxy = Proxy(server.port)
    client = subprocess.Popen(
        [NODE, "tests/js/live.mjs", f"ws://127.0.0.1:{proxy.port}/ws", "10000"],
        cwd=ROOT,
        env={**os.environ, "TRIOWS_TOKEN": token()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        assert client.stdout is not None
        with client.stdout as output:
            for line in output:
                said.append(line.strip())
                if said[-1] == "cut":
                    proxy.cut()
                elif said[-1] == "half":
                    server.kill()
                elif said[-1] == "lost":
                    server.start()
        client.wait(DEADLINE)
    finally:
        client.kill()
        client.wait()
        proxy.close()
        server.kill()
    assert client.returncode == 0, "\n".join(said)
    assert said[-1] == "all, with 1 new beginnings and 5 connections"
