"""`python -m tests.soak --minutes 60`: mixed load with faults; passes if the server stays flat."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.soak.measure import MIB, Record
from tests.soak.peers import BUSY, CAST, World, play

ROOT = Path(__file__).resolve().parent.parent.parent
# Small and short, so that every bound is reached within a minute.
SETTINGS: dict[str, Any] = {
    "server": {"port": 0},
    "limits": {
        "write_timeout": 3.0,
        "handshake_timeout": 3.0,
        "ping_interval": 5.0,
        "pong_timeout": 5.0,
        "max_connections_per_user": 10,
        "max_http_connections": 20,
    },
    "log": {
        "max_messages": 2000,
        "max_bytes": 2 * MIB,
        "max_age": 60.0,
        "total_bytes": 8 * MIB,
        "idempotency_window": 10.0,
    },
}
RESIDENTS = 3
EVERY = 1.0  # seconds between two samples under load
SETTLING = 10.0  # seconds within which everything has to be gone when load has ended


class Subject:
    """The server's process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._said = b""

    async def ask(self, question: str) -> dict[str, Any]:
        """Write a line and return what it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.send_all(question.encode() + b"\n")
        while b"\n" not in self._said:
            more = bytes(await self.process.stdout.receive_some())
            if not more:
                raise RuntimeError(f"the server ended with {await self.process.wait()}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def subject(ceiling: int) -> AsyncIterator[Subject]:
    """Start the server under a ceiling of address space; kill it afterwards."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))

    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.soak.server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=limit,
    )
    try:
        yield Subject(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Soak:
    """One soak, from the first rest to the last.

    Args:
        server: that is watched.
        world: the peers' view of it.
        record: where samples go.
    """

    def __init__(self, server: Subject, world: World, record: Record) -> None:
        self._server = server
        self._world = world
        self._record = record
        self._began = time.monotonic()
        self._quiet = 0  # tasks of the server when only the residents are there

    async def run(self, seconds: float, round_: float) -> None:
        """Load, rest, and so on; the first and the last is a rest.

        Args:
            seconds: in all, at least.
            round_: seconds of load between two rests.
        """
        async with trio.open_nursery() as residents:
            for number in range(RESIDENTS):
                residents.start_soon(_reside, self._world, number)
            await self._rest()
            while self._now() < seconds:
                async with trio.open_nursery() as nursery:
                    until = time.monotonic() + round_
                    nursery.start_soon(self._sample, until)
                    for act, count in CAST:
                        for _ in range(count):
                            nursery.start_soon(play, self._world, act, until)
                await self._rest()
            residents.cancel_scope.cancel()

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _sample(self, until: float) -> None:
        while time.monotonic() < until:
            self._record.add(self._now(), await self._server.ask("sample"))
            await trio.sleep(EVERY)

    async def _rest(self) -> None:
        """Wait until only the residents are left, and see how the server is then."""
        patience = trio.current_time() + SETTLING
        while trio.current_time() < patience:
            seen = await self._server.ask("rest")
            alone = seen["connections"] == RESIDENTS and not seen["guests"]
            if alone and seen["topics"] == 1 and seen["tasks"] <= (self._quiet or seen["tasks"]):
                break
            await trio.sleep(0.2)
        self._quiet = self._quiet or seen["tasks"]
        self._record.add(self._now(), seen, rest=True)
        figures = f"{seen['resident'] / MIB:6.1f} MiB  {seen['objects']:,} objects"
        figures += f"  {seen['tasks']} tasks  {seen['files']} files  {seen['opened']:,} opened"
        failures = f"{len(self._world.failures)} failures"
        print(f"{self._now():7.0f} s  {figures}  {failures}", file=sys.stderr, flush=True)


async def _reside(world: World, number: int) -> None:
    """Watch the busy channel for the whole soak: everything once and in order, or in a gap."""
    last = None
    async with world.client(f"resident-{number}") as client, client.subscribe(BUSY) as messages:
        async for message in messages:
            if message.type == "gap":
                last = message.data["to"]
                continue
            if last not in (None, message.offset - 1):
                world.failures.append(f"a resident got {message.offset} after {last}")
            last = message.offset


async def soak(seconds: float, round_: float, ceiling: int, seed: int) -> tuple[Record, World]:
    """Run one soak.

    Args:
        seconds: how long, at least.
        round_: seconds of load between two rests.
        ceiling: bytes of address space that the server may take.
        seed: of all chance.
    """
    record = Record(ceiling)
    async with subject(ceiling) as server:
        world = World((await server.ask(json.dumps(SETTINGS)))["port"], seed)
        await Soak(server, world, record).run(seconds, round_)
    return record, world


def main() -> int:
    """Run it and say what was found; 1 if the server was not flat, or erred."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long, 60 if not given")
    parser.add_argument("--round", type=float, default=30, help="seconds of load between rests")
    parser.add_argument("--ceiling", type=int, default=768, help="MiB of the server's addresses")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--json", type=Path, help="file to write every sample to")
    chosen = parser.parse_args()
    run = partial(soak, chosen.minutes * 60, chosen.round, chosen.ceiling * MIB, chosen.seed)
    record, world = trio.run(run)
    print(record.table())
    for what, counts in (("played", world.done), ("cut off", world.cut)):
        print(f"{what}:", ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    if chosen.json:
        record.write(chosen.json)
    faults = [*record.faults(), *world.faults()]
    for fault in faults:
        print("FAILED", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
