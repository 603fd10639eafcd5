"""The peers of a soak: good ones, slow ones, and those that break every rule."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

import triows
from tests.support import ALL, BINARY, CLOSE, PING, PONG, SECRET, TEXT, Peer, frame, request_head
from tests.support_http import head_of
from triows.conformance.matcher import Mismatch

BUSY = "session:busy"
"""The channel that is always written to."""

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, EOFError)
MOST_TOLD = 20  # failures
PATIENCE = 40  # seconds for one part
TOKEN_SECONDS = 600  # that a token of our own client is good for; it renews it
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: nothing is sent any more, not even a goodbye


class Failure(Exception):
    """The server did what it must not."""


class World:
    """Where the server is, and what peers draw their chance from.

    Attributes:
        port: of the server.
        random: decides everything.
        done: how often each kind of peer came to its end.
        cut: how often it did not, because the server hung up.
        failures: what went wrong.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.failures: list[str] = []

    def faults(self) -> list[str]:
        """Return what went wrong, in words; to be cut off too often is wrong, too."""
        played, cut = self.done.total(), self.cut.total()
        found = [f"{cut} parts were cut off, {played} played"] if cut > played / 10 else []
        found += self.failures[:MOST_TOLD]
        if len(self.failures) > MOST_TOLD:
            found.append(f"and {len(self.failures) - MOST_TOLD} more")
        return found

    @property
    def url(self) -> str:
        """Return the server's address."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def token(self, sub: str, **options: Any) -> str:
        """Return a token for a user, for everything if no options say less."""
        return triows.make_token(SECRET, sub, **(options or ALL))

    def channel(self) -> str:
        """Return the busy channel, or one of many that are rarely written to."""
        if self.random.random() < 0.5:
            return BUSY
        return f"session:{self.random.randrange(500)}"

    async def open(self, *, small: bool = False) -> trio.SocketStream:
        """Connect, from one of many addresses of this machine."""
        sock = trio.socket.socket()
        try:
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.bind((f"127.0.0.{self.random.randint(2, 250)}", 0))
            await sock.connect(("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def peer(self, sub: str = "peer", *, small: bool = False) -> Peer:
        """Return a peer that is connected, with its greeting read."""
        peer = Peer(await self.open(small=small))
        await peer.send(request_head(self.token(sub), host=f"127.0.0.1:{self.port}"))
        try:
            status, _, body = await peer.response()
        except Mismatch as error:
            raise trio.BrokenResourceError(str(error)) from None
        expect(status == 101, f"an opening was refused: {status} {body}")
        greeting = await hear(peer)
        expect(greeting["type"] == "auth", f"no greeting: {greeting}")
        return peer

    def client(self, sub: str) -> Any:
        """Return our own client, which stays longer than any token is good for."""

        async def renew() -> str:
            await trio.lowlevel.checkpoint()
            return self.token(sub, **ALL, ttl=TOKEN_SECONDS)

        return triows.open_client(self.url, token=renew, open_stream=self.open)


def expect(sound: bool, otherwise: str) -> None:
    """Raises Failure if something is not as it has to be."""
    if not sound:
        raise Failure(otherwise)


async def hear(peer: Peer) -> Any:
    """Return the next message; pings are answered meanwhile."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == TEXT:
            return json.loads(payload)
        if opcode == CLOSE:
            raise trio.BrokenResourceError(f"closed: {payload!r}")
        if opcode == PING:
            await peer.send(frame(payload, PONG))


def reset(peer: Peer) -> None:
    """End a connection with a reset."""
    stream = peer.stream
    assert isinstance(stream, trio.SocketStream)
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()


async def viewer(world: World) -> None:
    """Watch for a while, in order and without an untold hole, and leave politely."""
    channel, last = world.channel(), None
    async with world.client("viewer") as client:
        async with client.subscribe(channel, tail=world.random.randrange(200)) as messages:
            with trio.move_on_after(world.random.uniform(0.5, 4)):
                async for message in messages:
                    if message.type == "gap":
                        last = message.data["to"]
                        continue
                    expect(last in (None, message.offset - 1), f"{message.offset} after {last}")
                    last = message.offset


async def publisher(world: World) -> None:
    """Publish a burst; every acknowledgement names a place of its own."""
    channel = world.channel()
    size = world.random.choice((10, 200, 200, 5000, 50_000))
    async with world.client("publisher") as client:
        batch = [triows.log("x" * size) for _ in range(world.random.randint(1, 40))]
        positions = await client.publish_many(channel, batch)
        offsets = [position.offset for position in positions]
        expect(len(set(offsets)) == len(batch), f"acknowledged twice: {offsets}")


async def spring(world: World) -> None:
    """Publish to the busy channel steadily, for a while."""
    async with world.client("spring") as client:
        with trio.move_on_after(3):
            while True:
                await client.publish(BUSY, triows.log("x" * 500))
                await trio.sleep(0.05)


async def steerer(world: World) -> None:
    """Send a command; its handler answers or fails."""
    async with world.client("steerer") as client:
        answer = await client.command(world.channel(), "go")
        expect(answer["result"] == {"done": "go"}, f"a command: {answer}")
        with suppress(triows.RequestError):
            await client.command(world.channel(), "fail")


async def vanisher(world: World) -> None:
    """Watch, then be gone without a word, now and then in the middle of a frame."""
    peer = await world.peer()
    await peer.say("subscribe", id="1", channel=BUSY, data={"from": "start"})
    with trio.move_on_after(2):
        for _ in range(world.random.randrange(50)):
            await hear(peer)
    if world.random.random() < 0.5:
        await peer.send(frame("x" * 1000)[: world.random.randrange(1, 900)])
    reset(peer)


async def resumer(world: World) -> None:
    """Watch, be cut, come back from where it was: what follows has no hole that is not told."""
    last, epoch = None, ""
    for _ in range(3):
        peer = await world.peer("resumer")
        since = {"since": {"epoch": epoch, "offset": last}} if last else {"tail": 5}
        await peer.say("subscribe", id="1", channel=BUSY, data=since)
        with trio.move_on_after(3):
            for _ in range(world.random.randrange(5, 60)):
                message = await hear(peer)
                if message["type"] == "ack":
                    epoch = message["data"]["epoch"]
                elif message["type"] == "gap":
                    last = message["data"]["to"]
                else:
                    offset = message["offset"]
                    expect(last in (None, offset - 1), f"{offset} after {last}, resumed")
                    last = offset
        reset(peer)


async def staller(world: World) -> None:
    """Ask for everything and read nothing: the server must let go of it."""
    peer = await world.peer("staller", small=True)
    for number in range(5):
        await peer.say("subscribe", id=str(number), channel=BUSY, data={"from": "start"})
    await trio.sleep(world.random.uniform(2, 5))
    await peer.hang_up()


async def garbage(world: World) -> None:
    """Break a rule of WebSocket; be told which, and let go."""
    noise = world.random.randbytes(world.random.randrange(1, 3000))
    rule = world.random.choice(
        (
            noise,
            frame(noise),
            frame(noise, BINARY),
            frame("", fin=False) + frame("", 0, fin=False) * 2000,
            frame("", 0),
            frame("x" * 126, PING),
            frame("{" * 5000),
            b"\x81\xff\x7f" + b"\xff" * 7,
            frame("nonsense") * 200,
            frame(b"\x03\xe8", CLOSE) + noise,
        )
    )
    peer = await world.peer("garbage")
    await peer.send(rule)
    with trio.move_on_after(5):
        while (await peer.receive())[0] != CLOSE:
            pass
    reset(peer)


async def knocker(world: World) -> None:
    """Knock in a wrong way: no request at all, half of one, a bad token, an unfit page."""
    stranger = world.random.choice((None, "ey.J.x", world.token("me") + "x", "x" * 9000))
    knock = world.random.choice(
        (
            world.random.randbytes(200) + b"\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: a",
            request_head(stranger),
            request_head(world.token("me"), headers={"Origin": "https://evil.example"}),
            request_head(headers={"X": "x" * 20_000}),
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        )
    )
    peer = Peer(await world.open())
    await peer.send(knock)
    with trio.move_on_after(4):
        data = bytes(await peer.stream.receive_some())
        expect(b" 101 " not in data[:20], f"let in: {knock!r}")
    reset(peer)


async def dribbler(world: World) -> None:
    """Send an opening byte by byte, too slowly."""
    peer = Peer(await world.open())
    with suppress(*GONE):
        for byte in request_head(world.token("me")):
            await peer.send(bytes((byte,)))
            await trio.sleep(0.05)
    reset(peer)


async def revoked(world: World) -> None:
    """Be revoked while watching."""
    user = f"revoked-{world.random.randrange(20)}"
    peer = await world.peer(user)
    await peer.say("subscribe", id="1", channel=BUSY)
    await hear(peer)
    await trio.sleep(0.01)
    status, _ = await ask(world, "POST", "/api/revocations", {"user": user})
    expect(status == 200, f"revoking: {status}")
    code = await peer.close_code()
    expect(code in (4503, 1006), f"revoked, and closed with {code}")


async def ask(world: World, method: str, path: str, body: object = b"") -> tuple[int, bytes]:
    """Send one request over HTTP as an administrator; return status and body."""
    peer = Peer(await world.open())
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    bearer = world.token("admin", admin=True)
    await peer.send(head_of(method, path, text, bearer, Connection="close") + text)
    found = b""
    with suppress(*GONE):
        while data := bytes(await peer.stream.receive_some()):
            found += data
    await peer.hang_up()
    expect(found.startswith(b"HTTP/1.1 "), f"{path}: no answer but {found[:60]!r}")
    head, _, rest = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


async def caller(world: World) -> None:
    """Ask over HTTP."""
    log = f"/api/channels/{world.channel()}"
    method, path, body, statuses = world.random.choice(
        (
            ("GET", "/metrics", b"", (200,)),
            ("GET", "/api/connections", b"", (200,)),
            ("GET", "/api/channels?limit=50", b"", (200,)),
            ("GET", "/dashboard/", b"", (200,)),
            ("GET", f"{log}/messages?tail=100", b"", (200, 404)),
            ("GET", f"{log}/messages?since=a:0&wait=1", b"", (200, 404)),
            ("POST", f"{log}/messages", {"type": "log", "data": "hi"}, (200, 201)),
            ("POST", f"{log}/messages", b"{" * 1000, (400,)),
            ("POST", f"{log}/messages", {"type": "gap"}, (400,)),
        )
    )
    status, text = await ask(world, method, path, body)
    expect(status in statuses, f"{method} {path}: {status} {text[:200]!r}")


async def listener(world: World) -> None:
    """Watch by Server-Sent Events, then be gone."""
    peer = Peer(await world.open())
    await peer.send(head_of("GET", f"/api/channels/{BUSY}/events?tail=50", b"", world.token("sse")))
    with trio.move_on_after(world.random.uniform(0.2, 3)):
        while await peer.stream.receive_some():
            pass
    reset(peer)


Act = Callable[[World], Awaitable[None]]
CAST: tuple[tuple[Act, int], ...] = (
    (viewer, 4),
    (spring, 1),
    (publisher, 4),
    (steerer, 1),
    (vanisher, 3),
    (resumer, 3),
    (staller, 2),
    (garbage, 3),
    (knocker, 3),
    (dribbler, 1),
    (revoked, 1),
    (caller, 3),
    (listener, 2),
)
"""Who plays, and how many at a time."""


async def play(world: World, act: Act, until: float) -> None:
    """Play one part again and again."""
    name = act.__name__
    while time.monotonic() < until:
        try:
            with trio.move_on_after(PATIENCE) as patience:
                await act(world)
            if patience.cancelled_caught:
                world.failures.append(f"{name}: nothing came of it in {PATIENCE} s")
            world.done[name] += 1
        except* GONE:
            world.cut[name] += 1  # the server may, when it is held up for long
        except* Exception as errors:
            world.failures += [f"{name}: {error!r}" for error in errors.exceptions]
        await trio.sleep(world.random.uniform(0, 0.2))
