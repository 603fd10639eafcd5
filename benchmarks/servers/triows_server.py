"""triows as `triows serve` runs it, with the limits on how much one peer may do taken off."""

from __future__ import annotations

import gc

import trio

import triows
from benchmarks.servers import announce, log_messages, ping_interval, store
from triows.cli.serve import COLLECT_EVERY

SECRET = "the-benchmarks-have-no-secrets-at-all"

NEVER = 86_400.0


async def main(interval: float) -> None:
    """Serve until killed."""
    limits = triows.Limits(
        max_connections=0,
        max_connections_per_user=0,
        messages_per_second=0,
        bytes_per_second=0,
        handshakes_per_second_per_address=0,
        handshake_timeout=60,  # a busy machine lets hundreds that open at once wait
        max_subscriptions=0,
        ping_interval=interval or NEVER,
    )
    kept = log_messages()
    log = triows.LogLimits(max_messages=kept, max_bytes=0) if kept else triows.LogLimits()
    settings = triows.Settings(limits=limits, log=log, store=store())
    auth = triows.JWTAuth(SECRET)
    async with triows.open_server(auth=auth, host="127.0.0.1", port=0, settings=settings) as server:
        gc.freeze()
        gc.set_threshold(COLLECT_EVERY, 10, 10)
        announce(server.port)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, ping_interval())
