"""The servers that are measured, each a process of its own: `python -m benchmarks.servers.…`.

Each takes `--ping-interval SECONDS` (0 is never) and, once it listens on a free port of
127.0.0.1, writes that port as a line to stdout.
"""

from __future__ import annotations

import argparse


def ping_interval() -> float:
    """Read the command line; return the seconds between two pings, 0 for none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ping-interval", type=float, default=0)
    return float(parser.parse_args().ping_interval)


def announce(port: int) -> None:
    """Say that the server is ready."""
    print(port, flush=True)
