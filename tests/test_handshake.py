"""Who may in: opening handshakes, in-band authentication, and the HTTP endpoints."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

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
    plain_head,
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
    limits = triows.Limits(ping_interval=7, max_message_bytes=1000, messages_burst=17)
    async with memory_server(limits=limits) as server:
        peer = dial(server, nursery)
        before = time.time()
        bearer = token("ann", **ALL, ttl=100)
        made = time.time()
        await peer.send(request_head(bearer))
        status, _, _ = await peer.response()
        greeting = await peer.hear()
        data = greeting["data"]
        assert (status, greeting["type"], data["user"]) == (101, "auth", "ann")
        assert data["connection"] == server.connections()[0].id
        assert before + 99 <= data["expires_at"] <= made + 100  # in whole seconds
        assert data["heartbeat"]["ping_interval"] == 7
        assert data["limits"] == {
            "max_message_bytes": 1000,
            "max_subscriptions": 128,
            "messages_per_second": 100,
            "messages_burst": 17,
            "bytes_per_second": 10 * 1024 * 1024,
        }
        assert data["server"]["protocol"] == "triows.v1"


async def test_messages_right_behind_the_head(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What a client sends before it has the answer is not lost."""
    async with memory_server() as server:
        peer = dial(server, nursery)
        await peer.send(request_head(token()) + frame('{"type":"ping","id":"early"}'))
        await peer.response()
        assert [(await peer.hear()).get("id") for _ in range(2)] == [None, "early"]


async def test_a_lot_right_behind_the_head(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The limit of the head is of the head: what comes with it may be much more."""
    async with memory_server() as server:
        peer = dial(server, nursery)
        await peer.send(
            request_head(token()) + frame('{"type":"ping","data":"%s"}' % ("x" * 60_000))
        )
        assert (await peer.response())[0] == 101
        assert [(await peer.hear())["type"] for _ in range(2)] == ["auth", "pong"]


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
    [("log", 1, []), ("auth", {"token": "gibberish"}, ["unauthorized"]), (None, None, [])],
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
        for bearer in (None, token()):  # a good token in a header does not excuse it
            head = request_head(bearer, path=f"/ws?token={token()}")
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


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (plain_head("/ws"), 426, "upgrade_required"),
        (request_head(headers={"Upgrade": "h2c, websocket"}), 426, "upgrade_required"),
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
        await wait_all_tasks_blocked()
        await connect(server, nursery)


async def test_draining(nursery: Nursery, autojump_clock: MockClock) -> None:
    """While the server drains nobody is let in, and it says that it is not ready."""
    async with memory_server() as server:
        assert (await _answer(server, nursery, plain_head("/readyz")))[0] == 200
        server.drain()
        for head in (request_head(token()), plain_head("/readyz")):
            status, headers, body = await _answer(server, nursery, head)
            assert (status, int(headers["retry-after"]) > 0) == (503, True)
            assert body["data"]["code"] == "unavailable"
        assert (await _answer(server, nursery, plain_head("/healthz")))[0] == 200


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


async def test_drain_during_the_handshake(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who is admitted but not yet answered gets its answers in order, and then has to go."""
    async with memory_server() as server:
        peer = dial(server, nursery, narrow=True)
        nursery.start_soon(peer.send, request_head(token()))
        while not server.connections():  # noqa: ASYNC110 it takes some ticks
            await trio.lowlevel.checkpoint()
        server.drain()
        await wait_all_tasks_blocked()
        assert (await peer.response())[0] == 101
        assert [(await peer.hear())["type"] for _ in range(2)] == ["auth", "reconnect"]
        assert await peer.close_code() == 1012


@pytest.mark.parametrize("ticks", range(12))
@pytest.mark.parametrize("narrow", [False, True])
async def test_drain_at_any_moment_of_the_handshake(
    nursery: Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    ticks: int,
    narrow: bool,
) -> None:
    """Whenever it is asked for, a peer hears a refusal, or everything in its order."""
    async with memory_server() as server:
        peer = dial(server, nursery, narrow=narrow)
        nursery.start_soon(peer.send, request_head(token()))
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        server.drain()
        status, _, _ = await peer.response()
        assert status in (101, 503)
        if status == 101:
            assert [(await peer.hear())["type"] for _ in range(2)] == ["auth", "reconnect"]
            assert await peer.close_code() == 1012
        assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_revoked_during_the_handshake(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A token that is revoked while it is being checked does not get in."""
    checking, go_on = trio.Event(), trio.Event()
    bearer = token("me", **ALL)

    class Slow:
        async def verify(self, text: str) -> triows.Identity:
            identity = await triows.JWTAuth(SECRET).verify(text)
            checking.set()
            await go_on.wait()
            return identity

    async with memory_server(auth=Slow()) as server:
        peer = dial(server, nursery)
        await peer.send(request_head(bearer))
        await checking.wait()
        assert await server.revoke(user="me") == 0
        go_on.set()
        assert (await peer.response())[0] == 401
        assert server.connections() == []
