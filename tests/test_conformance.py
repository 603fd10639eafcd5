"""The wire layer against the Autobahn test suite (RFC 6455), all but compression."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_wire_passes_autobahn(tmp_path: Path) -> None:
    """All cases but 12 and 13 (compression) pass, none fails."""
    kosoku = Path(sys.executable).with_name("kosoku")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.echo_server"],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        with server.stdout as output:
            port = output.readline().strip()
        suite = subprocess.run(
            [kosoku, "-p", "4", "-x", "12.*", "-x", "13.*", "-o", tmp_path, f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        server.kill()
        server.wait()

    assert suite.returncode == 0, suite.stdout
    passed = re.search(r"(\d+) cases passed", suite.stdout)
    assert passed is not None
    assert int(passed.group(1)) == 301
