"""The rival nchan: nginx with its module, as Debian has it; one process, and no temporary files.

A publisher's frames are answered with what became of the channel: that is its acknowledgement.
This program becomes nginx.
"""

from __future__ import annotations

import os

from benchmarks.homes import NCHAN, NGINX, RIVALS
from benchmarks.servers import announce, free_port, ping_interval

PLACE = RIVALS / "nginx"

CONFIGURATION = """
load_module {module};
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {place}/pid;
error_log stderr warn;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {ping}
        location = /sub {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
        }}
        location = /pub {{
            nchan_publisher websocket;
            nchan_channel_id bench;
        }}
        location = /ask {{
            nchan_publisher websocket;
            nchan_channel_id ask-$connection;
        }}
    }}
}}
"""


def main(interval: float) -> None:
    """Serve until killed."""
    port = free_port()
    ping = f"nchan_websocket_ping_interval {interval:g};" if interval else ""
    PLACE.mkdir(parents=True, exist_ok=True)
    path = PLACE / "nginx.conf"
    path.write_text(CONFIGURATION.format(module=NCHAN, place=PLACE, port=port, ping=ping))
    announce(port)
    os.execv(NGINX, [str(NGINX), "-p", str(PLACE), "-c", str(path), "-e", "stderr"])


if __name__ == "__main__":
    main(ping_interval())
