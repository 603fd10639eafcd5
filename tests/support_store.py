"""What tests of the SQLite engine need: one that runs, in threads or, in virtual time, without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
import trio

from triows.auth import Revocation
from triows.bus import Bus, store
from triows.bus.sqlite import SQLiteBus
from triows.bus.store import WallClock
from triows.config import LogLimits
from triows.errors import RequestError
from triows.logs import Log
from triows.messages import Message, Receipt

_MEMORY = Path("/dev/shm")
MEMORY: str | None = str(_MEMORY) if _MEMORY.is_dir() else None
"""Where stores are that need not wait for a disk: they only have to survive a process."""

Outcome = Receipt | RequestError


async def inline(work: Callable[..., Any], *values: Any, limiter: Any = None) -> Any:
    """Do in the main thread what is meant for another: virtual time would not wait for that."""
    await trio.lowlevel.checkpoint()
    return work(*values)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine work in the main thread."""
    monkeypatch.setattr(store, "in_thread", inline)


async def until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Return as soon as `condition` holds; raises TooSlowError if it does not in that time."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 a thread or a process makes it so
            await trio.sleep(0.001)


_Bus = TypeVar("_Bus", bound=Bus)


class Engine(Generic[_Bus]):
    """An engine that runs, and what it told.

    Attributes:
        bus: the engine.
        told: channel and head of each log that has grown.
        revoked: the revocations it told of.
        answers: id or data of each message that was answered, in order, and the answer.
    """

    bus: _Bus

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.revoked: list[Revocation] = []
        self.answers: list[tuple[str, Outcome]] = []

    def _tell(self, log: Log, grown: int) -> None:
        self.told.append((log.channel, log.head))

    def submit(
        self,
        channel: str,
        data: object = 1,
        *,
        id: str | None = None,
        user: str = "ann",
        type: str = "log",
    ) -> list[Outcome]:
        """Submit a message; its outcome will be in the list."""
        outcome: list[Outcome] = []

        def done(message: Message, result: Outcome) -> None:
            outcome.append(result)
            self.answers.append((message.id or message.raw.decode(), result))

        message = Message(type, json.dumps(data).encode(), id=id)
        self.bus.submit(channel, message, user, trio.current_time(), done)
        return outcome


class Bench(Engine[SQLiteBus]):
    """An engine on SQLite that runs."""

    def __init__(self, path: Path, clock: WallClock | None, limits: LogLimits) -> None:
        super().__init__()
        self.bus = SQLiteBus(path, limits, self._tell, self.revoked.append, clock)

    async def publish(self, channel: str, data: object = 1, **options: Any) -> Outcome:
        """Publish a message and return the answer."""
        outcome = self.submit(channel, data, **options)
        await self.bus.settle()
        assert len(outcome) == 1
        return outcome[0]

    async def kept(self, channel: str) -> dict[int, Any]:
        """Return what is kept of a channel: data by offset, read page by page."""
        log = await self.bus.open(channel)
        found: dict[int, Any] = {}
        first = log.earliest
        while first <= log.head:
            texts = [json.loads(t) for t in await self.bus.history(log, first, log.head, 5000)]
            assert [t["offset"] for t in texts] == list(range(first, first + len(texts)))
            if not texts:  # given up in the meantime
                assert first < log.earliest
                found, first = {}, log.earliest
                continue
            found.update({t["offset"]: t.get("data") for t in texts})
            first += len(texts)
        return found

    async def give_up_all(self) -> None:
        """Have everything given up that the limits do not cover."""
        await self.bus._file()
        await self.bus._retention._sweep(lambda: None)
        while self.bus._retention.overdue:
            await self.bus._retention.step()


@asynccontextmanager
async def running(
    path: Path, clock: WallClock | None = None, *, crash: bool = False, **limits: Any
) -> AsyncIterator[Bench]:
    """Run an engine on a file; in the end it is closed, or left as if its process had died."""
    bench = Bench(path, clock, LogLimits(**limits))
    async with bench.bus, trio.open_nursery() as nursery:
        nursery.start_soon(bench.bus.run)
        yield bench
        nursery.cancel_scope.cancel()
        if crash:
            database = bench.bus._store._database
            assert database is not None
            bench.bus._store._database = None
            database.abandon()
