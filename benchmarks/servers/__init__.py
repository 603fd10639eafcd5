"""The servers that are measured, each a process of its own: `python -m benchmarks.servers.…`.

Each takes `--ping-interval SECONDS` (0 is never), that of triows `--store URL` and
`--log-messages NUMBER` as well, and once it listens on a free port of 127.0.0.1, writes that port
as a line to stdout.
"""

from __future__ import annotations

import argparse
import socket


def store() -> str:
    """Read the command line; return where channels are kept."""
    return str(_arguments().store)


def log_messages() -> int:
    """Read the command line; return how many messages a channel keeps, 0 for the default."""
    return int(_arguments().log_messages)


def ping_interval() -> float:
    """Read the command line; return the seconds between two pings, 0 for none."""
    return float(_arguments().ping_interval)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ping-interval", type=float, default=0)
    parser.add_argument("--log-messages", type=int, default=0)
    parser.add_argument("--store", default="memory://")
    return parser.parse_args()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, for what cannot say which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def announce(port: int) -> None:
    """Say that the server is ready."""
    print(port, flush=True)
