"""What is answered in plain HTTP, and connections that are still opening."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import (
    ALL,
    Nursery,
    connect,
    dial,
    memory_server,
    plain_head,
    request_head,
    token,
)
from triows.http import front


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (plain_head("/healthz"), 200),
        (plain_head("/readyz"), 200),
        (plain_head("/healthz", "POST"), 405),
        (plain_head("/nothing"), 404),
        (plain_head("/api/connections"), 401),
        (plain_head("/api/connections", bearer="gibberish"), 401),
        (plain_head("/api/connections", bearer=token()), 403),
        (plain_head("/api/connections", bearer=token(admin=True)), 200),
        (plain_head(f"/api/connections?token={token(admin=True)}"), 400),
        (plain_head("/api/statistics"), 401),
        (plain_head("/api/statistics", bearer=token()), 403),
        (plain_head("/api/statistics", bearer=token(admin=True)), 200),
        (plain_head("/api/statistics", "DELETE", bearer=token(admin=True)), 405),
    ],
    ids=range(13),
)
async def test_http(nursery: Nursery, autojump_clock: MockClock, head: bytes, status: int) -> None:
    """Health is for everybody, the API for administrators, by the same tokens."""
    async with memory_server() as server:
        peer = dial(server, nursery)
        await peer.send(head)
        answer, headers, body = await peer.response()
        assert (answer, headers["content-type"]) == (status, "application/json")
        assert headers.get("allow") == ("GET, HEAD" if status == 405 else None)
        assert headers["cache-control"] == "no-store"
        assert (status < 400) == (body.get("type") != "error")


async def test_http_tells_who_is_connected(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The API says of each connection what `Server.connections` says."""
    async with memory_server() as server:
        await connect(server, nursery)
        gone = await connect(server, nursery, token("gone", **ALL))
        await gone.stream.aclose()
        await wait_all_tasks_blocked()
        admin = token(admin=True)
        answers = []
        for path in ("/api/connections", "/api/statistics"):
            peer = dial(server, nursery)
            await peer.send(plain_head(path, bearer=admin))
            answers.append((await peer.response())[2])
        body, counts = answers
        (mine,), (closed,) = body["open"], body["closed"]
        assert (mine["id"], mine["user"]) == (server.connections()[0].id, "me")
        assert (closed["code"], closed["last"]["user"]) == (1006, "gone")
        assert (counts["connections"], counts["opened"], counts["closed"]) == (1, 2, {"1006": 1})


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/nothing", 404), ("/api/connections", 401), ("/ws", 426)],
)
async def test_http_head_has_no_body(
    nursery: Nursery, autojump_clock: MockClock, path: str, status: int
) -> None:
    """HEAD is answered as GET is, length included, without the body."""
    async with memory_server() as server:
        get, head = dial(server, nursery), dial(server, nursery)
        await get.send(plain_head(path))
        await head.send(plain_head(path, "HEAD"))
        expected, headers, body = await get.response()
        raw = b""
        while data := await head.stream.receive_some():
            raw += data
        lines, end, rest = raw.decode().partition("\r\n\r\n")
        assert (expected, bool(body), end, rest) == (status, True, "\r\n\r\n", "")
        assert lines.startswith(f"HTTP/1.1 {status} ")
        assert f"content-length: {headers['content-length']}" in lines.lower()


@pytest.mark.parametrize(
    "head",
    [
        "GET /ws?token=SECRET HTTP/1.1\r\nHost: a\r\nno colon SECRET\r\n\r\n",
        "GET /ws?token=SECRET\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer SECRET\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\x01\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: SECRET\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: SECRET\r\n\r\n",
        "GET http://[SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_http_error_repeats_no_token(
    nursery: Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, head: str
) -> None:
    """What is no HTTP may hold a token all the same: neither the answer nor the log has it."""
    caplog.set_level(logging.DEBUG)
    async with memory_server() as server:
        peer = dial(server, nursery)
        await peer.send(head.encode())
        status, headers, body = await peer.response()
        assert status >= 400
        assert "SECRET" not in f"{headers} {body} {caplog.text}"
        assert "refused test" in caplog.text


@pytest.mark.parametrize("at_once", [False, True])
async def test_pending_handshakes_are_limited(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """When more are opening than may, the oldest have to go, also if all come in one tick."""
    monkeypatch.setattr(front, "MAX_PENDING", 3)
    async with memory_server() as server:
        peers = []
        for _ in range(10):
            peers.append(dial(server, nursery))
            if not at_once:
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(server._front._pending) == 3
        gone = []
        for peer in peers:
            with trio.move_on_after(0.001):
                gone.append(await peer.receive())
        assert gone == [(0x8, b"")] * 7
        await trio.sleep(server.settings.limits.handshake_timeout)
        assert len(server._front._pending) == 0
        await connect(server, nursery)


@pytest.mark.parametrize("sent", [b"", b"GET /ws HT", b"bit by bit"])
async def test_half_a_request(nursery: Nursery, autojump_clock: MockClock, sent: bytes) -> None:
    """A peer that does not finish its request is hung up on in time, and takes no place."""
    limits = triows.Limits(max_connections=1, handshake_timeout=5)
    async with memory_server(limits=limits) as server:
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
        assert trio.current_time() - started == pytest.approx(5)
        assert (await other.ask("ping"))["type"] == "pong"
        assert server.statistics().opened == 1
