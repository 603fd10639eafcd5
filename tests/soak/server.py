"""The server of a soak: a process under a ceiling of memory, which says how it is when asked.

Reads lines from its standard input: the settings as JSON, then `sample` or `rest`, each answered
with a line of JSON. `rest` collects garbage first, and counts what Python holds.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

import cattrs
import trio

import triows
from tests.support import SECRET
from triows import registry


class _Errors(logging.Handler):
    """Counts what is logged as an error, but for the handler that fails on purpose."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first ones."""
        wanted = record.exc_info is not None and "the soak says so" in str(record.exc_info[1])
        if not wanted and len(self.texts) < 10:
            self.texts.append(self.format(record))


_errors = _Errors()


async def _steer(request: triows.Request) -> Any:
    """Answer a command, or fail, as it says."""
    await trio.sleep(0.01)
    if request.message.data == "fail":
        raise ValueError("the soak says so")
    return {"done": request.message.data}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _look(server: triows.Server, *, rest: bool) -> dict[str, Any]:
    objects = 0
    if rest:
        gc.collect()
        objects = len(gc.get_objects())
    now = server.statistics()
    return {
        "resident": _resident(),
        "files": len(os.listdir("/proc/self/fd")),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "objects": objects,
        "connections": now.connections,
        "guests": len(server._registry.guests),
        "topics": len(server._hub._topics),
        "log_bytes": now.log_bytes,
        "channels": now.channels,
        "published": now.published,
        "delivered": now.delivered,
        "opened": now.opened,
        "gaps": now.gaps,
        "closed": now.closed,
        "refused": now.refused,
        "answers": now.answers,
        "errors": now.errors,
        "stalled": now.stalled,
        "logged": _errors.texts,
    }


async def main() -> None:
    """Serve until the input ends, then drain."""
    first = await trio.to_thread.run_sync(sys.stdin.readline)
    settings = cattrs.structure(json.loads(first), triows.Settings)
    logging.getLogger("triows").addHandler(_errors)
    registry.CLOSED_KEPT = 100  # type: ignore[misc]  # full soon, and not still growing
    auth = triows.JWTAuth(SECRET)
    async with triows.open_server(auth=auth, settings=settings, on_command=_steer) as server:
        _tell({"port": server.port})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            _tell(_look(server, rest=line.strip() == "rest"))


def _tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
