"""A triows server as a process of its own, led over its standard input: to be killed, for example.

Reads JSON, a line each: the settings first, then `{"publish": channel, "count": n, "first": n,
"pad": n}` (messages of type log, numbered; with `"every": seconds` one by one in the background,
and before all that is ordered later) or `{"end": channel}`. Answers each with a line of JSON, the
first one with the address.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cattrs
import trio

import triows
from tests.support import SECRET


async def _echo(request: triows.Request) -> Any:
    await trio.lowlevel.checkpoint()
    return {"user": request.identity.user, "asked": request.message.data}


async def _publish(server: triows.Server, turn: trio.Lock, order: dict[str, Any]) -> None:
    pad = "x" * order["pad"]
    async with turn:  # the numbers of two orders never mix
        for number in range(order["first"], order["first"] + order["count"]):
            await server.publish(order["publish"], triows.log({"n": number, "pad": pad}))
            await trio.sleep(order["every"])


async def _obey(
    server: triows.Server, nursery: trio.Nursery, turn: trio.Lock, order: dict[str, Any]
) -> None:
    if "end" in order:
        async with turn:
            await server.publish(order["end"], triows.end(exit_code=0))
    elif order["every"]:
        nursery.start_soon(_publish, server, turn, order)
    else:
        await _publish(server, turn, order)


async def main() -> None:
    """Serve until the input ends, then drain."""
    # In a thread: the input may be a pipe of the parent, which must not become non-blocking.
    first = await trio.to_thread.run_sync(sys.stdin.readline)
    settings = cattrs.structure(json.loads(first), triows.Settings)
    auth = triows.JWTAuth(SECRET)
    async with (
        triows.open_server(auth=auth, settings=settings, on_command=_echo) as server,
        trio.open_nursery() as nursery,
    ):
        _tell(server.url)
        turn = trio.Lock()
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            await _obey(server, nursery, turn, json.loads(line))
            _tell("done")


def _tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
