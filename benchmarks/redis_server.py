"""A Redis of a benchmark's own, and what it counts."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.load import LoadError
from benchmarks.process import STARTING, STOPPING, Server, _pin

FROM_NODES = ("evalsha", "subscribe", "unsubscribe", "hello", "client", "script", "select", "auth")
"""Commands that nodes send; what else is counted was called by scripts, but for `TIME`."""


class Redis:
    """A running Redis.

    Attributes:
        server: its process.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def url(self) -> str:
        """What the setting `store` has to say."""
        return f"redis://127.0.0.1:{self.server.port}/0"

    def ask(self, command: str) -> str:
        """Send a command that is answered by one line or one text."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as client:
            client.sendall(command.encode() + b"\r\n")
            file = client.makefile("rb")
            line = file.readline().decode()
            return file.read(int(line[1:])).decode() if line.startswith("$") else line

    def calls(self) -> dict[str, int]:
        """Return how often each command was run so far, by nodes or scripts."""
        found: dict[str, int] = {}
        for line in self.ask("INFO commandstats").splitlines():
            if line.startswith("cmdstat_"):
                name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
                found[name.partition("|")[0]] = int(rest.partition(",")[0])
        return found

    def published_bytes(self) -> int:
        """Return the bytes it has sent to its clients so far."""
        return self._number("stats", "total_net_output_bytes")

    def _number(self, section: str, name: str) -> int:
        for line in self.ask(f"INFO {section}").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.partition(":")[2])
        raise LoadError(f"Redis does not tell its {name}")


def sent_by_nodes(before: dict[str, int], after: dict[str, int]) -> int:
    """Return how many commands came over connections between two counts.

    `TIME` is called by each script that publishes and, every other second, by each node.
    """
    more = {name: count - before.get(name, 0) for name, count in after.items()}
    asked = max(0, more.get("time", 0) - more.get("evalsha", 0))
    return sum(more.get(name, 0) for name in FROM_NODES) + asked


@contextmanager
def running_redis() -> Iterator[Redis]:
    """Run a Redis that keeps nothing on disk, on the servers' core; it is ended afterwards."""
    with tempfile.TemporaryDirectory() as place, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen(
            [*command, "--dir", place], stdout=subprocess.DEVNULL, text=True, preexec_fn=_pin
        )
        redis = Redis(Server(process, port))
        try:
            _wait(redis)
            yield redis
        finally:
            process.terminate()
            process.wait(STOPPING)


def _wait(redis: Redis) -> None:
    until = time.monotonic() + STARTING
    while True:
        try:
            if redis.ask("PING").startswith("+PONG"):
                return
        except OSError:
            if time.monotonic() > until:
                raise LoadError("redis-server does not answer") from None
            time.sleep(0.02)
