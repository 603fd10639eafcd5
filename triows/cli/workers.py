"""`triows serve --workers`: several server processes on one port, kept alive by this one.

Each worker listens on the port itself (SO_REUSEPORT), and the kernel deals the connections out.
The parent binds the port too, without listening, so that it stays theirs while none is up.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterable
from functools import partial
from typing import Any, Final, final

import attrs
import trio

import triows
from triows.cli.output import note
from triows.cli.serve import DRAINING, dev_secret, print_tokens
from triows.cli.worker import Job
from triows.listeners import bind, close

COMMAND: Final = (sys.executable, "-P", "-m", "triows.cli.worker")
STABLE: Final = 5.0  # seconds a worker lives that was not broken from the start
SHORTEST, LONGEST = 0.1, 10.0  # seconds until a worker is replaced
MOST_DEATHS: Final = 5  # one after the other, none stable, before the parent gives up
ABORTING: Final = 5.0  # seconds from an abort until workers that are still there are killed
_NOT_SHARED: Final = {
    "memory": "is in the memory of one process",
    "sqlite": "is a file that one process has at a time",
}


async def serve_by_workers(settings: triows.Settings, *, dev: bool, verbose: bool) -> int:
    """Run `server.workers` processes on one port until a signal; return the exit status.

    The first SIGTERM or SIGINT drains them all, the second aborts. A worker that dies is
    replaced. When this process dies, they drain.

    Raises:
        ConfigError: they cannot share the store, the port cannot be opened, or what a worker
            says that cannot start.
        TriowsError: workers die again and again, and none is left that serves.
    """
    _check_store(settings)
    secret = dev_secret(settings) if dev else None
    server = settings.server
    close(await bind(server.host, server.port))  # nobody else has it; workers of others, say
    reserved = await bind(server.host, server.port, shared=True)
    try:
        port: int = reserved[0].getsockname()[1]
        jobs = [
            Job(number, _settings_of(number, port, settings), secret, verbose)
            for number in range(1, server.workers + 1)
        ]
        return await Workers(jobs).run()
    finally:
        close(reserved)


def _check_store(settings: triows.Settings) -> None:
    why = _NOT_SHARED.get(settings.store.partition(":")[0])
    if why is not None:
        raise triows.ConfigError(
            f"server.workers is {settings.server.workers}, and a store that they can share is "
            f"needed: {settings.store} {why}; set --store redis://127.0.0.1:6379/0, or one worker"
        )


def _settings_of(number: int, port: int, settings: triows.Settings) -> triows.Settings:
    own = settings.server.worker_port
    server = attrs.evolve(settings.server, port=port, worker_port=own + number - 1 if own else 0)
    return attrs.evolve(settings, server=server)


@final
class Worker:
    """One of the processes, and those that take its place.

    Attributes:
        job: what each of them is told.
        url: where it listens; empty while it does not.
        error: why it could not start.
        process: that runs, or has run last.
        deaths: how many in a row did not live for long.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.url = ""
        self.error = ""
        self.process: trio.Process | None = None
        self.deaths = 0

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody."""
        if self.process is not None:
            self.process.send_signal(number)


@final
class Workers:
    """The parent's side: starts, watches, replaces and ends them."""

    def __init__(self, jobs: list[Job]) -> None:
        self._workers = [Worker(job) for job in jobs]
        self._announced = False
        self._stop = trio.Event()
        self._status = 0
        self._failure: triows.TriowsError | None = None

    async def run(self) -> int:
        """Run until stopped, by a signal or through one of them; return the exit status.

        Raises:
            As `serve_by_workers`.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                async with trio.open_nursery() as keepers:
                    for worker in self._workers:
                        keepers.start_soon(self._keep, worker, keepers.cancel_scope)
                nursery.cancel_scope.cancel(reason="all workers have ended")
        if self._failure is not None:
            raise self._failure
        if self._status:
            note("aborted", "yellow")
        else:
            note("drained")
        return self._status

    async def _obey(self, signals: AsyncIterable[int]) -> None:
        async for _ in signals:
            if self._stop.is_set():
                break
            self._drain()
        self._send_all(signal.SIGTERM)
        await trio.sleep(ABORTING)
        self._send_all(signal.SIGKILL)

    def _drain(self) -> None:
        """Have all of them drain; one that does so already would take it for an abort."""
        if not self._stop.is_set():
            note(DRAINING)
            self._stop.set()
            self._send_all(signal.SIGTERM)

    def _send_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)

    async def _keep(self, worker: Worker, all_keepers: trio.CancelScope) -> None:
        """Run a worker, and others in its place, until all are stopped."""
        while True:
            began = trio.current_time()
            status = await self._run(worker)
            if self._stop.is_set():
                if status not in (0, -signal.SIGTERM):  # of SIGTERM one dies that was starting
                    self._status = 1
                return
            lived = trio.current_time() - began
            worker.deaths = 1 if lived > STABLE else worker.deaths + 1
            how = _describe(status, worker.error)
            failure = self._failure_by(worker, how)
            if failure is not None:
                self._failure = self._failure or failure  # several may die in one moment
                self._stop.set()  # a signal from now on is for those who do not end
                all_keepers.cancel(reason="the workers cannot be kept alive")
                return
            wait = min(LONGEST, SHORTEST * 2.0**worker.deaths)
            number = worker.job.number
            note(f"worker {number} {how} after {lived:.1f} s; replaced in {wait:.1f} s", "yellow")
            with trio.move_on_after(wait):
                await self._stop.wait()
            if self._stop.is_set():
                return

    def _failure_by(self, worker: Worker, how: str) -> triows.TriowsError | None:
        """Return why there is no hope; while another serves, there is."""
        if worker.error and not self._announced:
            return triows.ConfigError(worker.error)
        others = any(other.url for other in self._workers)
        if worker.deaths < MOST_DEATHS or (others and self._announced):
            return None
        return triows.TriowsError(
            f"worker {worker.job.number} has died {worker.deaths} times, each within "
            f"{STABLE:g} s, and none serves: the last one {how}; its log says more"
        )

    async def _run(self, worker: Worker) -> int:
        """Run one process to its end; return its status."""
        worker.error = ""
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                    process_group=0,  # Ctrl-C is for us to hear, and to pass on
                )
            )
            worker.process = process
            assert process.stdin is not None
            assert process.stdout is not None
            async with process.stdin, process.stdout:
                if self._stop.is_set():
                    process.terminate()
                try:
                    await process.stdin.send_all(worker.job.to_json())
                    await self._hear(worker, process.stdout)
                except trio.BrokenResourceError:
                    pass  # it has died already
                await process.wait()
        worker.url = ""
        assert process.returncode is not None
        return process.returncode

    async def _hear(self, worker: Worker, stream: trio.abc.ReceiveStream) -> None:
        """Take in what a worker says, to its end."""
        text = b""
        async for chunk in stream:
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                self._heard(worker, json.loads(line))

    def _heard(self, worker: Worker, told: dict[str, Any]) -> None:
        worker.url = told.get("listening", worker.url)
        worker.error = told.get("error", "")
        if "draining" in told and not self._stop.is_set():
            process, worker.process = worker.process, None  # it needs no signal
            self._drain()
            worker.process = process
        if not self._announced and all(one.url for one in self._workers):
            self._announced = True
            self._announce(worker)

    def _announce(self, worker: Worker) -> None:
        note(f"triows listens on {worker.url}, {len(self._workers)} workers")
        own = self._workers[0].job.settings.server.worker_port
        if own:
            note(f"each alone on ports {own} to {own + len(self._workers) - 1}")
        if worker.job.secret is not None:
            print_tokens(worker.url, worker.job.secret)


def _describe(status: int, error: str) -> str:
    if error:
        return f"could not start ({error})"
    if status >= 0:
        return f"ended with {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
