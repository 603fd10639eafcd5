"""Rivals that speak Socket.IO (version 5, on Engine.IO 4), on nothing but WebSocket."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.candidates import MARKER, SIZE, Candidate, Source, upgrade
from benchmarks.frames import client_frame
from benchmarks.homes import NODE, VENV, Home
from benchmarks.load import LoadError
from benchmarks.opening import Script

EVENT = "42"
ACKNOWLEDGEMENT = "43"


class SocketIo(Candidate):
    """What all of them have in common: events with arguments, and acknowledgements of them."""

    pings: Mapping[bytes, bytes] = {b"2": client_frame(b"3")}

    def __init__(self) -> None:
        self._text = MARKER.decode().ljust(SIZE, "x")

    def _open(self) -> Script:
        request = upgrade("/socket.io/?EIO=4&transport=websocket")
        return [(request, b"\r\n\r\n"), (b"", b'0{"sid"'), (client_frame(b"40"), b'40{"sid"')]

    def subscriber(self) -> Script:
        request = f'{EVENT}0["subscribe"]'
        return [
            *self._open(),
            (client_frame(request.encode()), f'{ACKNOWLEDGEMENT}0["subscribed"]'.encode()),
        ]

    def publisher(self) -> Script:
        return self._open()

    def asker(self) -> Script:
        return self._open()

    def message(self) -> bytes:
        return client_frame(f'{EVENT}["publish","{self._text}"]'.encode())

    def requests(self, number: int) -> Source:
        frame = client_frame(f'{EVENT}1["echo","{self._text}"]'.encode())
        return lambda count: frame * count

    def check(self, payload: bytes, offset: int) -> None:
        message = f'{EVENT}["message","{self._text}"]'.encode()
        answer = f'{ACKNOWLEDGEMENT}1["{self._text}"]'.encode()
        if payload not in (message, answer):
            raise LoadError(f"this is not what was sent: {payload!r}")


class PythonSocketIo(SocketIo):
    """python-socketio, on uvicorn."""

    name = "python-socketio"
    packages: tuple[str, ...] = ("python-socketio", "uvicorn", "uvloop", "websockets")
    home: Home = VENV
    module = "python_socketio_server"


class SocketIoOnNode(SocketIo):
    """Socket.IO itself, on Node."""

    name = "socket.io"
    packages: tuple[str, ...] = ("socket.io", "ws", "bufferutil", "node")
    home: Home = NODE
    module = "socketio_server"
