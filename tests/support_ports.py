"""Ports for servers that come and go: nobody else is given them meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

_BLOCKS = range(10_000, 32_700, 100)
"""The first port of each hundred. They are below those that the system chooses by itself, of which
it could give one to others while the server that it was meant for is down.
"""


def free_port(count: int = 1) -> int:
    """Return the first of so many ports in a row that nobody listens on; each is returned once,
    and no other process that asks here is given it.
    """
    while True:
        ports = list(islice(_ports, count))
        if ports[-1] - ports[0] == count - 1 and all(map(_is_free, ports)):
            return ports[0]


def _own_ports() -> Iterator[int]:
    """Yield the ports of hundreds that are ours: whoever holds the first has the others."""
    first = os.getpid() % len(_BLOCKS)  # tests that run beside these begin elsewhere
    for block in (*_BLOCKS[first:], *_BLOCKS[:first]):
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", block))
        except OSError:
            holder.close()
            continue
        holder.detach()  # until this process ends
        yield from range(block + 1, block + _BLOCKS.step)
    raise AssertionError("all ports were given out")


_ports = _own_ports()


def _is_free(port: int) -> bool:
    """Whether nobody has a port, those included who do not ask here."""
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def hold_port() -> socket.socket:
    """Bind a free port and never listen: nobody else is given it until the socket is closed.

    A server with SO_REUSEADDR, as ours have, can listen beside it, go, and come back. While there
    is none, connections are refused.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
