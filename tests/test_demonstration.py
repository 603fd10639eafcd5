"""The README's demonstration, as it stands there: servers killed in turn while a tail watches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.support_ports import free_port
from tests.support_redis import Redis
from tests.support_redis import redis as redis

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SECONDS = 240  # four servers are started anew, on a machine that may have other work


@pytest.mark.slow
async def test_servers_killed_in_turn(redis: Redis, tmp_path: Path) -> None:
    """Each of two servers is killed twice, and every line is seen once, in order."""
    (script,) = re.findall(r"^```sh\n(export PATH=.*?)^```$", README, re.MULTILINE | re.DOTALL)
    ports = {"6379": redis.port, "8081": free_port(), "8082": free_port()}
    # All at once: one that was put in may have another in it.
    script = re.sub("|".join(ports), lambda found: str(ports[found[0]]), script)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIOWS_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with trio.fail_after(SECONDS):
        process = await trio.lowlevel.open_process(
            ["sh", "-euc", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
        )
        try:
            said = await _read(process)
            assert await process.wait() == 0, said
        finally:
            with trio.CancelScope(shield=True):
                _kill_group(process.pid)
                await process.wait()
    last = said.splitlines()[-1]
    print(f"\n4 servers killed, {last}")  # noqa: T201 how much was tried is worth knowing
    assert re.fullmatch(r"\d{3,} lines: lost 0, doubled 0", last), said
    assert said.count("listens on") == 6
    assert said.count("connected again") >= 2


async def _read(process: trio.Process) -> str:
    """Return all that it says, until its output is closed."""
    assert process.stdout is not None
    said = b""
    async with process.stdout:
        async for chunk in process.stdout:
            said += chunk
    return said.decode()


def _kill_group(group: int) -> None:
    """End what the script may have left over."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        pass
