"""The server of one run: a process of its own, pinned to the first core, killed in the end."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import LoadError

ROOT = Path(__file__).resolve().parent.parent

STARTING = 20.0
"""Seconds a server has to say its port."""
STOPPING = 3.0
"""Seconds it has to end after SIGTERM."""

LISTEN = "0A"  # in /proc/net/tcp

FILES = 20_000
"""File descriptors wanted, here and in the server."""


class Server:
    """A running server.

    Attributes:
        port: where it listens.
        pid: of its process.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port
        self.pid = process.pid

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise LoadError("the server has ended")

    def busy(self) -> float:
        """Return the processor seconds it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare() -> None:
    """Pin this process to the last core, and allow it, and its servers, many files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("one core only: server and load generator share it", file=sys.stderr)
    os.sched_setaffinity(0, {cores[-1]})
    global _server_core
    _server_core = cores[0]


_server_core: int | None = None  # any, unless `prepare` was called


def _pin() -> None:
    if _server_core is not None:
        os.sched_setaffinity(0, {_server_core})


@contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """Start a server that writes its port as the first line of stdout; stop it afterwards."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=_pin
        )
        try:
            port = _read_port(process)
            _await_listening(port)
            yield Server(process, port)
        except (LoadError, OSError) as error:
            raise LoadError(f"{error}{_last_words(process, errors.fileno())}") from error
        finally:
            _stop(process)


def _read_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], STARTING)
    line = process.stdout.readline() if readable else ""
    if not line.strip().isdigit():
        raise LoadError("the server did not start")
    return int(line)


def _await_listening(port: int) -> None:
    """Wait until the port is open: a program that becomes another cannot say when it is."""
    until = time.perf_counter() + STARTING
    while not _listens(port):
        if time.perf_counter() > until:
            raise LoadError(f"the server does not listen on its port {port}")
        time.sleep(0.01)


def _listens(port: int) -> bool:
    """Whether somebody does; as the kernel's table has it, without a connection."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sockets = (line.split()[1:4] for line in lines)
    return any(local.endswith(f":{port:04X}") and state == LISTEN for local, _, state in sockets)


def _last_words(process: subprocess.Popen[str], errors: int) -> str:
    code = process.poll()
    ended = "" if code is None else f"; the server ended with {code}"
    size = os.fstat(errors).st_size
    text = os.pread(errors, 2000, max(0, size - 2000)).decode(errors="replace").strip()
    return f"{ended}; it said:\n{text}" if text else ended


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
