"""Rule-based machines of Hypothesis over Trio: each rule is a step in a run that goes on."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import memory_server

PATIENT: dict[str, float] = {
    "write_timeout": 1e9,
    "ping_interval": 1e9,
    "idle_timeout": 1e9,
    "pong_timeout": 1e9,
}
"""Limits under which no clock ends a connection."""


class Theatre:
    """A run of Trio in a thread of its own, in virtual time that stands still between steps.

    What fails in a task of `nursery` comes out of the next step, or of `end`.

    Attributes:
        nursery: for tasks that live on between steps.
        server: a server in memory.
        clock: moves only when it is told to.
    """

    nursery: trio.Nursery
    server: triows.Server

    def __init__(self, **options: Any) -> None:
        self.clock = MockClock()
        self._options = options
        self._stop: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self.clock)
        except BaseException as error:  # noqa: ASYNC103 raised again by `do` and `end`
            self._failure = error
        self._ready.set()

    async def _main(self) -> None:
        opening: AbstractAsyncContextManager[triows.Server] = memory_server(**self._options)
        async with opening as self.server, trio.open_nursery() as self.nursery:
            self._stop, self._token = trio.Event(), trio.lowlevel.current_trio_token()
            self._ready.set()
            await self._stop.wait()
            self.nursery.cancel_scope.cancel()

    def do(self, step: Callable[..., Any], *args: Any) -> Any:
        """Run one step, a plain function or an async one, until everything waits."""
        try:
            return trio.from_thread.run(self._step, step, *args, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            self._thread.join()
            raise self._failure or AssertionError("the run is over") from None  # noqa: ASYNC104

    async def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        result = step(*args)
        if isinstance(result, Awaitable):
            result = await result
        await wait_all_tasks_blocked()
        return result

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.do(self.clock.jump, seconds)

    def end(self) -> None:
        """End the run; raises what went wrong in it."""
        if self._stop is not None and self._token is not None and self._thread.is_alive():
            try:
                self._token.run_sync_soon(self._stop.set)
            except trio.RunFinishedError:
                pass
        # Draining waits for some clocks: from here on time flies.
        self.clock.autojump_threshold = 0
        self._thread.join(30)
        assert not self._thread.is_alive(), "the run does not end"
        if self._failure is not None:
            raise self._failure
