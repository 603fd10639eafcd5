"""What tests of several processes need: a server with workers, and who is whose child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.support_client import Command
from tests.support_store import until

SECONDS = 60  # for all that a test does with processes, on a machine with other work

ALONE = """
import triows.cli.workers
triows.cli.workers._check_store = lambda settings: None  # each keeps its own logs in memory
from triows.cli import main
main()
"""
"""The command line without the check that workers share a store: what is tested is processes."""


@asynccontextmanager
async def program(code: str, *arguments: object) -> AsyncIterator[Command]:
    """Run Python code with arguments; it is killed in the end, or after `SECONDS`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIOWS_")}
    with trio.fail_after(SECONDS):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        try:
            async with trio.open_nursery() as nursery:
                command = Command(process)
                nursery.start_soon(command.collect, process.stdout, "out")
                nursery.start_soon(command.collect, process.stderr, "err")
                yield command
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdout, process.stderr):
                    assert pipe is not None
                    await pipe.aclose()


def children(pid: int) -> set[int]:
    """Return the processes that a process has started and that have not ended."""
    found: set[int] = set()
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            state, parent = _state(int(place.name))
            if parent == pid and state != "Z":
                found.add(int(place.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    return _state(pid)[0] not in ("", "Z")


def _state(pid: int) -> tuple[str, int]:
    """Return the letter for what it does, and its parent; nothing of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


async def wait(condition: Callable[[], object]) -> None:
    """Return as soon as `condition` holds."""
    await until(condition, seconds=SECONDS)


def logged(command: Command) -> list[dict[str, Any]]:
    """Return the lines of the log so far."""
    return [json.loads(line) for line in command.err.splitlines() if line.startswith("{")]
