"""Who may in: opening handshakes, in-band authentication, and the HTTP endpoints."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import (
    ALL,
    SECRET,
    Nursery,
    Peer,
    connect,
    dial,
    frame,
    memory_server,
    request_head,
    token,
)

NOW = int(time.time())
SUBPROTOCOL = "Sec-WebSocket-Protocol"
Answer = tuple[int, dict[str, str], Any]


async def _answer(
    server: triows.Server, nursery: Nursery, head: bytes, peer: str = "test"
) -> Answer:
    """Send a head and return the answer."""
    client = dial(server, nursery, peer)
    await client.send(head)
    return await client.response()


async def _offer(server: triows.Server, nursery: Nursery) -> Peer:
    """Return a peer that agreed on the subprotocol and has sent no token yet."""
    peer = dial(server, nursery)
    await peer.send(request_head(headers={SUBPROTOCOL: "triows.v1"}))
    status, headers, _ = await peer.response()
    assert (status, headers["sec-websocket-protocol"]) == (101, "triows.v1")
    return peer


def _encode(key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    payload = {"sub": "me", "exp": NOW + 3600, **claims}
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm)


@pytest.mark.parametrize(
    ("bearer", "words"),
    [
        (None, "no token"),
        ("gibberish", "not a valid token"),
        (_encode("another secret that has 32 bytes and more"), "signature"),
        (_encode(exp=NOW - 10), "expired"),
        (_encode("", "none"), "algorithm"),
        (_encode(SECRET + SECRET, "HS512"), "algorithm"),
        (_encode(exp=None), "lacks 'exp'"),
        (_encode(sub=None), "lacks 'sub'"),
        (_encode(triows={"subscribe": "*"}), "not a list"),
        (_encode(more="x" * 9000), "limit is 8192"),
    ],
    ids=range(10),
)
async def test_token_is_refused(
    nursery: Nursery, autojump_clock: MockClock, bearer: str | None, words: str
) -> None:
    """A handshake without a token to believe is a 401 that says why, never with the token."""
    async with memory_server() as server:
        status, headers, body = await _answer(server, nursery, request_head(bearer))
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert headers["content-type"] == "application/json"
        assert (body["type"], body["data"]["code"]) == ("error", "unauthorized")
        assert words in body["data"]["message"]
        assert bearer is None or bearer not in str(body)
        assert body["data"]["retry"] is False
        assert server.statistics().refused == {401: 1}
        assert server.statistics().opened == 0


async def test_greeting(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The server's first message says who the client is and what is expected of it."""
    limits = triows.Limits(ping_interval=7, max_message_bytes=1000)
    async with memory_server(limits=limits) as server:
        peer = dial(server, nursery)
        bearer = token("ann", **ALL, ttl=100)
        await peer.send(request_head(bearer))
        status, _, _ = await peer.response()
        greeting = await peer.hear()
        data = greeting["data"]
        assert (status, greeting["type"], data["user"]) == (101, "auth", "ann")
        assert data["connection"] == server.connections()[0].id
        assert data["expires_at"] == pytest.approx(time.time() + 100, abs=5)
        assert data["heartbeat"]["ping_interval"] == 7
        assert data["limits"]["max_message_bytes"] == 1000
        assert data["server"]["protocol"] == "triows.v1"


async def test_messages_right_behind_the_head(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What a client sends before it has the answer is not lost."""
    async with memory_server() as server:
        peer = dial(server, nursery)
        await peer.send(request_head(token()) + frame('{"type":"ping","id":"early"}'))
        await peer.response()
        assert [(await peer.hear()).get("id") for _ in range(2)] == [None, "early"]


async def test_token_as_subprotocol(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A browser may offer its token as a subprotocol, which is not the one agreed on."""
    async with memory_server() as server:
        head = request_head(headers={SUBPROTOCOL: f"triows.v1, bearer.{token('ann', **ALL)}"})
        status, headers, _ = await _answer(server, nursery, head)
        assert (status, headers["sec-websocket-protocol"]) == (101, "triows.v1")
        assert [c.user for c in server.connections()] == ["ann"]


async def test_auth_as_first_message(nursery: Nursery, autojump_clock: MockClock) -> None:
    """With the subprotocol agreed on, the token may be the first message."""
    async with memory_server() as server:
        peer = await _offer(server, nursery)
        assert server.connections()[0].user is None
        answer = await peer.ask("auth", id="1", data={"token": token("ann", **ALL)})
        assert (answer["type"], answer["id"], answer["data"]["user"]) == ("auth", "1", "ann")
        await trio.sleep(server.settings.limits.handshake_timeout + 1)
        assert (await peer.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("type", "data", "answers"),
    [
        ("log", 1, []),
        ("auth", {"token": "gibberish"}, ["unauthorized"]),
        (None, None, []),
    ],
)
async def test_no_auth_as_first_message(
    nursery: Nursery, autojump_clock: MockClock, type: str | None, data: Any, answers: list[str]
) -> None:
    """Another first message, a bad token, or none in time: 4500, and nothing was done."""
    async with memory_server() as server:
        started = trio.current_time()
        peer = await _offer(server, nursery)
        if type is not None:
            await peer.say(type, channel="session:1", data=data)
        assert [(await peer.hear())["data"]["code"] for _ in answers] == answers
        assert await peer.close_code() == 4500
        after = 0 if type else server.settings.limits.handshake_timeout
        assert trio.current_time() - started == pytest.approx(after)
        assert server.statistics().published == 0


@pytest.mark.parametrize(("switched_on", "expected"), [(False, 400), (True, 101)])
async def test_token_in_the_address(
    nursery: Nursery, autojump_clock: MockClock, switched_on: bool, expected: int
) -> None:
    """A token in the address is refused unless that is switched on."""
    settings = triows.ServerSettings(token_in_query=switched_on)
    async with memory_server(server=settings) as server:
        head = request_head(path=f"/ws?token={token()}")
        assert (await _answer(server, nursery, head))[0] == expected


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://evil.example", "localhost:8080", 403),
        ("null", "localhost:8080", 403),
        ("http://localhost:8081", "localhost:8080", 403),
        ("http://rebound.example", "rebound.example", 403),
        ("http://[", "localhost:8080", 403),
        ("http://localhost:8080", "localhost:8080", 101),
        ("https://app.example", "localhost:8080", 101),
        ("https://any.example", "open", 101),
    ],
)
async def test_origin(
    nursery: Nursery, autojump_clock: MockClock, origin: str, host: str, expected: int
) -> None:
    """Pages of the server's own address and of `allowed_origins` may connect (`*`: all)."""
    allowed = ("*",) if host == "open" else ("https://app.example",)
    settings = triows.ServerSettings(allowed_origins=allowed)
    async with memory_server(server=settings) as server:
        head = request_head(token(), headers={"Origin": origin, "Host": host})
        assert (await _answer(server, nursery, head))[0] == expected


def _plain(path: str, method: str = "GET", bearer: str | None = None) -> bytes:
    extra = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost:8080\r\n{extra}\r\n".encode()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (_plain("/ws"), 426, "upgrade_required"),
        (request_head(headers={"Upgrade": "h2c"}), 426, "upgrade_required"),
        (request_head(headers={"Sec-WebSocket-Version": "8"}), 426, "upgrade_required"),
        (request_head(path="/wss"), 404, "not_found"),
        (request_head(headers={"X": "x" * 16_384}), 431, "head_too_large"),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 17_000, 431, "head_too_large"),
        (request_head(headers={"X": "é"}), 400, "bad_request"),
        (request_head(headers={SUBPROTOCOL: "mqtt"}), 400, "bad_request"),
        (request_head(headers={"Sec-WebSocket-Key": "%%"}), 400, "bad_request"),
        (
            request_head(headers={"Sec-WebSocket-Key": base64.b64encode(b"short").decode()}),
            400,
            "bad_request",
        ),
        (request_head(headers={"Sec-WebSocket-Key": ""}), 400, "bad_request"),
        (request_head(headers={"Host": ""}), 400, "bad_request"),
        (request_head("x", headers={"authorization": "Bearer y"}), 400, "bad_request"),
        (request_head().replace(b"GET", b"POST"), 400, "bad_request"),
        (request_head().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "bad_request"),
        (b"\x16\x03\x01 what TLS would say\r\n\r\n", 400, "bad_request"),
        (b"\r\n\r\n", 400, "bad_request"),
    ],
    ids=range(17),
)
async def test_bad_request(
    nursery: Nursery, autojump_clock: MockClock, head: bytes, status: int, code: str
) -> None:
    """What does not open a WebSocket is answered before any token is looked at."""
    async with memory_server() as server:
        answer, headers, body = await _answer(server, nursery, head)
        assert (answer, body["type"], body["data"]["code"]) == (status, "error", code)
        assert headers["connection"] == "close"
        if status == 426:
            assert (headers["upgrade"], headers["sec-websocket-version"]) == ("websocket", "13")
        assert server.statistics().opened == 0


async def test_pool_is_full(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One connection too many is a 503 with `Retry-After`; once one has left there is room."""
    async with memory_server(limits=triows.Limits(max_connections=1)) as server:
        first = await connect(server, nursery)
        status, headers, body = await _answer(server, nursery, request_head(token()))
        assert (status, int(headers["retry-after"]) > 0) == (503, True)
        assert (body["data"]["code"], body["data"]["retry"]) == ("unavailable", True)
        await first.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await connect(server, nursery)


async def test_draining(nursery: Nursery, autojump_clock: MockClock) -> None:
    """While the server drains nobody is let in, and it says that it is not ready."""
    async with memory_server() as server:
        assert (await _answer(server, nursery, _plain("/readyz")))[0] == 200
        server.drain()
        for head in (request_head(token()), _plain("/readyz")):
            status, headers, body = await _answer(server, nursery, head)
            assert (status, int(headers["retry-after"]) > 0) == (503, True)
            assert body["data"]["code"] == "unavailable"
        assert (await _answer(server, nursery, _plain("/healthz")))[0] == 200


async def test_handshakes_are_rate_limited(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One address may open only so often; others are not affected, and waiting helps."""
    limits = triows.Limits(handshakes_per_second_per_address=0.1)
    async with memory_server(limits=limits) as server:
        assert (await _answer(server, nursery, request_head(token())))[0] == 101
        status, headers, body = await _answer(server, nursery, request_head(token()))
        assert (status, body["data"]["code"]) == (429, "rate_limited")
        assert (await _answer(server, nursery, request_head(token()), "other"))[0] == 101
        await trio.sleep(int(headers["retry-after"]))
        assert (await _answer(server, nursery, request_head(token())))[0] == 101


async def test_connections_of_one_user_are_limited(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """The newest connections of a user stay, and the oldest have to go."""
    async with memory_server(limits=triows.Limits(max_connections_per_user=2)) as server:
        other = await connect(server, nursery, token("other", **ALL))
        mine = [await connect(server, nursery) for _ in range(4)]
        assert [await peer.close_code() for peer in mine[:2]] == [4504, 4504]
        for peer in (other, *mine[2:]):
            assert (await peer.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize("sent", [b"", b"GET /ws HT", b"bit by bit"])
async def test_half_a_request(nursery: Nursery, autojump_clock: MockClock, sent: bytes) -> None:
    """A peer that does not finish its request is hung up on in time, and takes no place."""
    async with memory_server(limits=triows.Limits(max_connections=1)) as server:
        peer, started = dial(server, nursery), trio.current_time()

        async def dawdle() -> None:
            for byte in request_head(token()):
                await trio.sleep(0.3)
                await peer.send(bytes((byte,)))

        async with trio.open_nursery() as dawdling:
            if sent == b"bit by bit":
                dawdling.start_soon(dawdle)
            elif sent:
                await peer.send(sent)
            other = await connect(server, nursery)
            assert await peer.receive() == (0x8, b"")
            dawdling.cancel_scope.cancel()

        timeout = server.settings.limits.handshake_timeout
        assert trio.current_time() - started == pytest.approx(timeout)
        assert (await other.ask("ping"))["type"] == "pong"
        assert server.statistics().opened == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (_plain("/healthz"), 200),
        (_plain("/readyz"), 200),
        (_plain("/healthz", "POST"), 405),
        (_plain("/nothing"), 404),
        (_plain("/api/connections"), 401),
        (_plain("/api/connections", bearer="gibberish"), 401),
        (_plain("/api/connections", bearer=token()), 403),
        (_plain("/api/connections", bearer=token(admin=True)), 200),
        (_plain(f"/api/connections?token={token(admin=True)}"), 400),
        (_plain("/api/statistics"), 401),
        (_plain("/api/statistics", bearer=token()), 403),
        (_plain("/api/statistics", bearer=token(admin=True)), 200),
        (_plain("/api/statistics", "DELETE", bearer=token(admin=True)), 405),
    ],
    ids=range(13),
)
async def test_http(nursery: Nursery, autojump_clock: MockClock, head: bytes, status: int) -> None:
    """Health is for everybody, the API for administrators, by the same tokens."""
    async with memory_server() as server:
        answer, headers, body = await _answer(server, nursery, head)
        assert (answer, headers["content-type"]) == (status, "application/json")
        assert headers["cache-control"] == "no-store"
        assert (status < 400) == (body.get("type") != "error")


async def test_http_tells_who_is_connected(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The API says of each connection what `Server.connections` says."""
    async with memory_server() as server:
        await connect(server, nursery)
        gone = await connect(server, nursery, token("gone", **ALL))
        await gone.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        admin = token(admin=True)
        _, _, body = await _answer(server, nursery, _plain("/api/connections", bearer=admin))
        _, _, counts = await _answer(server, nursery, _plain("/api/statistics", bearer=admin))

        (mine,), (closed,) = body["open"], body["closed"]
        assert (mine["id"], mine["user"]) == (server.connections()[0].id, "me")
        assert (closed["code"], closed["last"]["user"]) == (1006, "gone")
        assert (counts["connections"], counts["opened"], counts["closed"]) == (1, 2, {"1006": 1})
