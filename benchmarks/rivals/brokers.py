"""Rivals that are programs of the system, each with a protocol of its own over WebSocket."""

from __future__ import annotations

import json
from collections.abc import Mapping

from benchmarks.candidates import SIZE, Candidate, Source, Websockets, upgrade
from benchmarks.frames import BINARY, client_frame
from benchmarks.homes import NATS, NCHAN, NGINX, Home, System
from benchmarks.load import LoadError
from benchmarks.opening import Script

PING = b"PING\r\n"


class Nchan(Websockets):
    """nginx with nchan: C, one process; it keeps the last messages of each channel."""

    name = "nchan"
    packages: tuple[str, ...] = ("nginx", "libnginx-mod-nchan")
    home: Home = System({"nginx": NGINX, "libnginx-mod-nchan": NCHAN})
    module = "nchan_server"
    marker = b"{"

    def subscriber(self) -> Script:
        return [(upgrade("/sub"), b"\r\n\r\n")]

    def asker(self) -> Script:
        return [(upgrade("/ask", "Accept: application/json"), b"\r\n\r\n")]

    def check(self, payload: bytes, offset: int) -> None:
        """What it answers to a publisher tells the message's id."""
        if payload.startswith(self.marker) and "last_message_id" in json.loads(payload):
            return
        super().check(payload, offset)


class Nats(Candidate):
    """nats-server: Go; `+OK` to each message in verbose mode, with neither id nor number."""

    name = "nats"
    packages: tuple[str, ...] = ("nats-server",)
    home: Home = System({"nats-server": NATS})
    module = "nats_server"
    marker = b"+"
    packed = b"{"
    pings: Mapping[bytes, bytes] = {PING: client_frame(b"PONG\r\n", BINARY)}

    subject = "viewer"
    """Its length makes that of a message even, so that no length of frames is the odd `packed`."""

    def __init__(self) -> None:
        self._text = self.packed.decode().ljust(SIZE, "x")

    def _open(self, *commands: str, verbose: bool = False) -> Script:
        options = json.dumps({"verbose": verbose, "pedantic": False})
        lines = [f"CONNECT {options}", *commands, "PING", ""]
        return [(upgrade("/"), b"INFO {"), (_frame("\r\n".join(lines)), b"PONG\r\n")]

    def subscriber(self) -> Script:
        return self._open(f"SUB {self.subject} 1")

    def publisher(self) -> Script:
        return self._open()

    def asker(self) -> Script:
        return self._open(verbose=True)

    def message(self) -> bytes:
        return _frame(f"PUB {self.subject} {SIZE}\r\n{self._text}\r\n")

    def requests(self, number: int) -> Source:
        frame = _frame(f"PUB ask-{number} {SIZE}\r\n{self._text}\r\n")
        return lambda count: frame * count

    def check(self, payload: bytes, offset: int) -> None:
        """A ping, the one it sends soon after the opening, may share the frame."""
        message = f"MSG {self.subject} 1 {SIZE}\r\n{self._text}\r\n".encode()
        if payload.replace(PING, b"") not in (message, b"+OK\r\n"):
            raise LoadError(f"this is not what was sent: {payload!r}")


def _frame(text: str) -> bytes:
    return client_frame(text.encode(), BINARY)
