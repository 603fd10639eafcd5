"""The rival picows, on its own callbacks and uvloop: fan-out, and an echo."""

from __future__ import annotations

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.servers import announce, ping_interval

subscribers: set[WSTransport] = set()


class Listener(WSListener):  # type: ignore[misc]  # it is not in our environment
    """A connection; every kind answers to the closing handshake."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame; messages of one frame only, as there are no others here."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            self.take(transport, frame)

    def take(self, transport: WSTransport, frame: WSFrame) -> None:
        """Echo it."""
        transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())


class Subscriber(Listener):
    """Gets what publishers send."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        subscribers.add(transport)
        transport.send(WSMsgType.TEXT, b"subscribed")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        subscribers.discard(transport)


class Publisher(Listener):
    """Sends to all subscribers."""

    def take(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        for subscriber in subscribers:
            subscriber.send(WSMsgType.TEXT, message)


ROLES = {"/sub": Subscriber, "/pub": Publisher, "/echo": Listener}


def listen(request: WSUpgradeRequest) -> Listener:
    """Serve one connection, as its path says."""
    return ROLES[request.path.decode()]()


async def main(interval: float) -> None:
    """Serve until killed."""
    server = await ws_create_server(
        listen,
        "127.0.0.1",
        0,
        backlog=4096,
        websocket_handshake_timeout=None,
        enable_auto_ping=bool(interval),
        auto_ping_idle_timeout=interval or 20,
    )
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(ping_interval()))
