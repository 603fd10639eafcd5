"""No WebSocket server at all: answers with bytes made before, to find the generator's ceiling.

It looks at nothing but the path. A frame on /pub has one frame written to every connection of
/sub, and when all are written, one to the publisher; a frame on /echo is answered by one.
"""

from __future__ import annotations

import select
import socket

from benchmarks.frames import server_frame
from benchmarks.servers import announce, ping_interval

MARKER = "#"
REQUEST = 208
"""Bytes of a frame of 200 bytes, with its header and mask."""
REPLY = server_frame(MARKER.encode().ljust(310, b"x"))
"""About as long as what triows sends for a message of 200 bytes."""
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: none\r\n\r\n"
)


class Bare:
    """The connections, by file descriptor."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.listening.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self.listening, select.EPOLLIN)
        self._sockets: dict[int, socket.socket] = {}
        self._paths: dict[int, bytes] = {}
        self._rests: dict[int, int] = {}
        self._subscribers: list[socket.socket] = []

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self.listening.fileno():
                    self._accept()
                else:
                    self._read(fd)

    def _accept(self) -> None:
        accepted, _ = self.listening.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[accepted.fileno()] = accepted
        self._poll.register(accepted, select.EPOLLIN)

    def _read(self, fd: int) -> None:
        connection = self._sockets[fd]
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(fd)
            return
        if fd not in self._paths:
            self._open(fd, connection, data)
            return
        count, self._rests[fd] = divmod(self._rests[fd] + len(data), REQUEST)
        if self._paths[fd] == b"/pub":
            for subscriber in self._subscribers:
                subscriber.sendall(REPLY * count)
        connection.sendall(REPLY * count)

    def _open(self, fd: int, connection: socket.socket, head: bytes) -> None:
        self._paths[fd] = head.split(b" ", 2)[1]
        self._rests[fd] = 0
        if self._paths[fd] == b"/sub":
            self._subscribers.append(connection)
        connection.sendall(ACCEPTED)


if __name__ == "__main__":
    ping_interval()
    bare = Bare()
    announce(bare.port)
    bare.run()
