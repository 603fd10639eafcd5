"""A small echo server on the wire layer alone, for the conformance suite."""

from __future__ import annotations

import sys

import trio

from triows.config import Limits, ServerSettings
from triows.errors import Close, CloseCode, ConnectionClosed
from triows.frames import encode_frame
from triows.http.head import read_head
from triows.listeners import Listeners
from triows.transport import Transport
from triows.wire import PeerError, Wire, opening

# The suite sends messages of 16 MiB, and 4 MiB in fragments of 64 bytes.
LIMITS = Limits(max_message_bytes=32 * 1024 * 1024, max_fragments=100_000)


async def echo(transport: Transport) -> None:
    """Serve one connection: every message goes back as it came."""
    wire = Wire(transport, LIMITS, transport.send_all)
    try:
        async with trio.open_nursery() as nursery:
            head = await read_head(transport)
            await transport.send_all(opening(head.header("sec-websocket-key"), None))
            wire.begin(nursery, head.rest)
            close = Close(CloseCode.NORMAL)
            try:
                while True:
                    for kind, payload in await wire.receive():
                        await transport.send_all(encode_frame(payload, kind))
            except PeerError as error:
                close = error.close
            except ConnectionClosed:
                pass
            with trio.move_on_after(1):
                await wire.close(close)
                await transport.finish()
            nursery.cancel_scope.cancel()
    except* (OSError, trio.BrokenResourceError):
        pass
    finally:
        await transport.close()  # noqa: ASYNC102 it does not wait


async def main() -> None:
    """Listen on a free port, say which, and serve until ended."""
    listeners = await Listeners.open(ServerSettings(port=0))
    sys.stdout.write(f"{listeners.port}\n")
    sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        await listeners.accept(nursery, echo)


if __name__ == "__main__":
    trio.run(main)
