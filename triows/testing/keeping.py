"""What an engine holds, against what was said of it."""

from __future__ import annotations

from collections.abc import Callable

from triows.codec import decode
from triows.logs import Log
from triows.server import Server
from triows.testing.ledger import Ledger


async def check_kept(server: Server, ledger: Ledger, blame: Callable[[str], None]) -> None:
    """Check all that is kept, and that nothing is missing that was acknowledged.

    Raises:
        RequestError: `unavailable`, it cannot be read now.
    """
    in_memory = server.settings.store.startswith("memory")
    for channel, epoch in list(ledger.places):
        log = await server._bus.find(channel)
        if log is not None and log.epoch == epoch:
            await _check_log(server, log, ledger, blame)
            if in_memory:  # a disk that fails puts messages off
                ledger.check_order(channel, epoch)
        elif not in_memory:  # else it is gone with its process
            blame(f"{channel} has lost epoch {ledger.number(epoch)}")


async def _check_log(
    server: Server, log: Log, ledger: Ledger, blame: Callable[[str], None]
) -> None:
    acknowledged = ledger.acknowledged.get((log.channel, log.epoch), 0)
    if log.head < acknowledged:
        blame(f"{log.channel} is at {log.head}; {acknowledged} was acknowledged")
    first = log.earliest
    while first <= log.head:
        texts = await server._bus.history(log, first, log.head, 4000)
        if not texts and first >= log.earliest:
            blame(f"{log.channel}: offset {first} of {log.earliest} to {log.head} is gone")
            return
        for text in texts:
            message = decode(text)
            if message.offset != first:
                blame(f"{log.channel} holds {message.offset} in the place of {first}")
            ledger.message(log.channel, log.epoch, first, message.id, message.type, message.raw)
            first += 1
        first = max(first, log.earliest)
