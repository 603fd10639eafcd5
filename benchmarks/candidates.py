"""What is measured: how to start each server, and how to speak to it."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from benchmarks.frames import client_frame, client_header, mask
from benchmarks.homes import OWN, Home
from benchmarks.load import LoadError, Unable
from benchmarks.opening import Script

MARKER = b"#"
"""Stands once in each request, and so in each answer."""

SIZE = 200
"""Bytes of a message's data."""

Source = Callable[[int], bytes]
"""Returns the frames of that many new requests."""


class Candidate(ABC):
    """A server that is measured.

    Attributes:
        name: as in the report, and on the command line.
        packages: what its server needs; their versions are reported.
        home: where those packages are.
        module: the server's program, in `benchmarks.servers`.
        marker: stands once in each answer, and nowhere else.
        packed: stands once in each message and nowhere else, for those that may put several into
            one frame; empty, each has its own frame, and they are counted by their bytes.
        waits: why a viewer that has stopped reading stops all others; empty if it does not.
        pings: those its protocol has beside WebSocket's own, and the frames to answer them with.
    """

    name: str
    packages: tuple[str, ...]
    home: Home = OWN
    module: str
    marker = MARKER
    packed = b""
    waits = ""
    pings: Mapping[bytes, bytes] = {}

    def missing(self) -> str:
        """Return what is not installed and how to get it; nothing if it can take part."""
        return self.home.missing(self.packages)

    def versions(self) -> dict[str, str]:
        """Return the versions of what its server needs."""
        return self.home.versions(self.packages)

    def command(self, *, ping_interval: float = 0) -> list[str]:
        """Return the command that starts the server."""
        return [*self.home.program(self.module), "--ping-interval", str(ping_interval)]

    @abstractmethod
    def subscriber(self) -> Script:
        """Return what makes a connection get every message."""

    @abstractmethod
    def publisher(self) -> Script:
        """Return what opens a connection for `message`."""

    @abstractmethod
    def asker(self) -> Script:
        """Return what opens a connection for requests."""

    @abstractmethod
    def message(self) -> bytes:
        """Return the frame that publishes one message to all subscribers, without an answer."""

    @abstractmethod
    def requests(self, number: int) -> Source:
        """Return the source of the requests of the connection of that number."""

    def growth(self, offset: int) -> int:
        """Return by how many bytes the message at `offset` is longer than the first."""
        return 0

    def resumption(self, answer: bytes) -> bytes:
        """Return the frame with which an asker gets all messages since a place, and goes on.

        Args:
            answer: what was answered to it at that place; nothing begins with what comes next.

        Raises:
            Unable: it keeps nothing.
        """
        raise Unable("it keeps no messages to resume from")

    @abstractmethod
    def check(self, payload: bytes, offset: int) -> None:
        """Check a message or an answer.

        Args:
            offset: how many there were on its channel, this one included.

        Raises:
            LoadError: it is wrong.
        """


def upgrade(path: str, *headers: str) -> bytes:
    """Return the request that opens a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(b'sixteen bytes...').decode()}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Triows(Candidate):
    """This project's server: real tokens, real subscriptions, everything kept in the log."""

    name = "triows"
    packages: tuple[str, ...] = ("triows", "trio", "trio-websocket", "msgspec")
    module = "triows_server"

    def __init__(self, store: str = "memory://") -> None:
        self.store = store
        self._upgrade = b""
        text = MARKER.decode().ljust(SIZE - len(b'{"text":""}'), "x")
        self._data = json.dumps({"text": text}, separators=(",", ":"))
        self._ids = [mask(b"%04d" % number) for number in range(10_000)]

    def command(self, *, ping_interval: float = 0) -> list[str]:
        return [*super().command(ping_interval=ping_interval), "--store", self.store]

    def _open(self) -> Script:
        if not self._upgrade:
            from benchmarks.servers.triows_server import SECRET
            from triows import make_token

            token = make_token(SECRET, "user", subscribe=["session:*"], publish=["session:*"])
            headers = (f"Authorization: Bearer {token}", "Sec-WebSocket-Protocol: triows.v1")
            self._upgrade = upgrade("/ws", *headers)
        return [(self._upgrade, b"\r\n\r\n"), (b"", b'"type":"auth"'), (b"", b'Z"}')]

    def subscriber(self) -> Script:
        request = b'{"type":"subscribe","id":"s","channel":"session:bench"}'
        return [*self._open(), (client_frame(request), b'"type":"ack"'), (b"", b'Z"}')]

    def publisher(self) -> Script:
        return self._open()

    def asker(self) -> Script:
        return self._open()

    def message(self) -> bytes:
        text = f'{{"type":"log","channel":"session:bench","data":{self._data}}}'
        return client_frame(text.encode())

    def requests(self, number: int) -> Source:
        """Each with an id of its own, put together from masked pieces of 4 bytes."""
        data = self._data.replace("#", "x")
        before = b'{"type":"log","id":"request' + MARKER
        after = f'","channel":"session:bench-{number:03}","data":{data}}}'.encode()
        assert len(before) % 4 == 0
        head = client_header(len(before) + 8 + len(after)) + mask(before)
        tail, ids, sent = mask(after), self._ids, 0

        def take(count: int) -> bytes:
            nonlocal sent
            pieces: list[bytes] = []
            for serial in range(sent, sent + count):
                high, low = divmod(serial, 10_000)
                pieces += (head, ids[high], ids[low], tail)
            sent += count
            return b"".join(pieces)

        return take

    def resumption(self, answer: bytes) -> bytes:
        request: dict[str, object] = {"type": "subscribe", "id": "s", "channel": "session:bench"}
        if answer:
            place = json.loads(answer)["data"]
            request["data"] = {"since": {key: place[key] for key in ("epoch", "offset")}}
        return client_frame(json.dumps(request, separators=(",", ":")).encode())

    def growth(self, offset: int) -> int:
        return len(str(offset)) - 1

    def check(self, payload: bytes, offset: int) -> None:
        message = json.loads(payload)
        place = message["data"] if message["type"] == "ack" else message
        if place.get("offset") != offset:
            raise LoadError(f"expected offset {offset}: {payload!r}")


class Websockets(Candidate):
    """The rival on asyncio: its own `broadcast`, and a bare echo.

    Most others are servers to the same requests: paths, no tokens, the bytes that were sent.
    """

    name = "websockets"
    packages: tuple[str, ...] = ("websockets",)
    module = "websockets_server"

    def __init__(self) -> None:
        self._text = MARKER.ljust(SIZE, b"x")

    def subscriber(self) -> Script:
        return [(upgrade("/sub"), b"\r\n\r\n"), (b"", b"subscribed")]

    def publisher(self) -> Script:
        return [(upgrade("/pub"), b"\r\n\r\n")]

    def asker(self) -> Script:
        return [(upgrade("/echo"), b"\r\n\r\n")]

    def message(self) -> bytes:
        return client_frame(self._text)

    def requests(self, number: int) -> Source:
        frame = client_frame(self._text)
        return lambda count: frame * count

    def check(self, payload: bytes, offset: int) -> None:
        if payload != self._text:
            raise LoadError(f"this is not what was sent: {payload!r}")


class Bare(Websockets):
    """No server: what answers with bytes made before, to find the generator's ceiling."""

    name = "bare"
    packages: tuple[str, ...] = ()
    module = "bare_server"

    def subscriber(self) -> Script:
        return [(upgrade("/sub"), b"\r\n\r\n")]

    def check(self, payload: bytes, offset: int) -> None:
        """Nothing can be wrong with it."""
