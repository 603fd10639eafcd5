"""A worker: one of several server processes on one port, started by `triows.cli.workers`.

Its standard input brings the job, one line of JSON, and ends when the parent does, however that
comes about: then the worker drains. To its standard output it tells the parent, line by line in
JSON, where it listens, that it drains, or why it cannot start.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

import attrs
import cattrs
import trio

import triows
from triows.cli.serve import configure_logging, serve_until_stopped

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


@attrs.frozen
class Job:
    """What a worker is to do.

    Attributes:
        number: of the worker, from 1.
        settings: of the server; the port is known.
        secret: key of the tokens, of `--dev`.
        verbose: log more.
    """

    number: int
    settings: triows.Settings
    secret: str | None
    verbose: bool

    def to_json(self) -> bytes:
        """Return it as one line."""
        return json.dumps(cattrs.unstructure(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Job:
        """Read what `to_json` has written."""
        return cattrs.structure(json.loads(line), cls)


def main() -> int:
    """Do the job; return the exit status."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 1  # the parent has died
    job = Job.from_json(line)
    parent = os.fdopen(os.dup(STDOUT), "w")
    os.dup2(STDERR, STDOUT)  # what anybody prints is not for the parent
    configure_logging(verbose=job.verbose, worker=job.number)

    def tell(what: str, value: Any) -> None:
        try:
            parent.write(json.dumps({what: value}) + "\n")
            parent.flush()
        except BrokenPipeError:
            pass  # it has died: the input ends, too

    try:
        return 0 if trio.run(_serve, job, tell) else 1
    except* triows.ConfigError as errors:
        tell("error", _first(errors))
    return 2


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def _serve(job: Job, tell: Any) -> bool:
    return await serve_until_stopped(
        job.settings,
        job.secret,
        lambda url: tell("listening", url),
        lambda: tell("draining", True),
        _parent_gone,
    )


async def _parent_gone() -> None:
    async with trio.lowlevel.FdStream(os.dup(STDIN)) as stream:
        while await stream.receive_some():
            pass  # nothing more is said there


if __name__ == "__main__":
    sys.exit(main())
