"""The rival NATS, over its WebSocket door; in verbose mode it acknowledges what it is told.

This program becomes nats-server.
"""

from __future__ import annotations

import os

from benchmarks.homes import NATS, RIVALS
from benchmarks.servers import announce, free_port, ping_interval

NEVER = 86_400

CONFIGURATION = """
listen: "127.0.0.1:-1"
ping_interval: "{interval:g}s"
write_deadline: "60s"
websocket {{
    listen: "127.0.0.1:{port}"
    no_tls: true
    compression: false
}}
"""


def main(interval: float) -> None:
    """Serve until killed."""
    port = free_port()
    RIVALS.mkdir(exist_ok=True)
    path = RIVALS / "nats.conf"
    path.write_text(CONFIGURATION.format(interval=interval or NEVER, port=port))
    announce(port)
    os.execv(NATS, [str(NATS), "-c", str(path)])


if __name__ == "__main__":
    main(ping_interval())
