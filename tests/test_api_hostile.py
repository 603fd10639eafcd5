"""The HTTP side under attack: foreign pages, tricks with framing, peers that dawdle."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, connect, dial, memory_server, request_head, token
from tests.support_http import ADMIN, ME, A, Caller, ask, head_of, watch
from triows.http import exchange
from triows.http.call import BODY_TIMEOUT
from triows.http.operations import OPERATIONS

EVERY = [(o.method, o.path.format(channel="session:1", id="x")) for o in OPERATIONS]
CORS = "access-control-"


# Pages of other origins


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8081"])
@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/"), ("GET", "/healthz")])
async def test_foreign_page(
    nursery: Nursery, autojump_clock: MockClock, method: str, path: str, origin: str
) -> None:
    """A page of another origin can neither ask nor read, not even with a token; first and later
    requests alike.
    """
    async with memory_server() as server:
        position = await server.publish("session:1", triows.log(1))
        caller = Caller(server, nursery)
        if path != "/healthz":  # health has nothing to hide on a connection of its own
            await caller.ask("GET", "/openapi.json")
            first = await ask(server, nursery, method, path, b"", ADMIN, Origin=origin)
            assert (first.status, first.code) == (403, "forbidden")
        else:
            await caller.ask("GET", "/openapi.json")
        later = await caller.ask(method, path, b"", ADMIN, Origin=origin)
        assert (later.status, later.code) == (403, "forbidden")
        preflight = await ask(
            server, nursery, "OPTIONS", path, b"", None,
            Origin=origin, Access_Control_Request_Method=method,
        )  # fmt: skip
        assert not [name for name in (*later.headers, *preflight.headers) if CORS in name]
        assert preflight.status in (403, 405)
        info = await ask(server, nursery, "GET", A)
        assert (info.body["offset"], info.body["ended"]) == (position.offset, None)


async def test_own_page(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A page of the server's own needs no permission, and no header for it."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", "/api/channels", Origin="http://localhost:8080")
        assert answer.status == 200
        assert not [name for name in answer.headers if CORS in name]


@pytest.mark.parametrize("allowed", ["https://app.example", "*"])
async def test_allowed_page(nursery: Nursery, autojump_clock: MockClock, allowed: str) -> None:
    """A page that is listed may ask and read, refusals and event streams, too."""
    settings = triows.ServerSettings(allowed_origins=(allowed,))
    async with memory_server(server=settings) as server:
        await server.publish("session:1", triows.end())
        caller = Caller(server, nursery)
        page: dict[str, Any] = {"Origin": "https://app.example"}
        preflight = await caller.ask(
            "OPTIONS", f"{A}/messages", bearer=None, Access_Control_Request_Method="POST", **page
        )
        assert preflight.status == 204
        allow = preflight.headers["access-control-allow-headers"].lower()
        assert set(allow.split(", ")) == {
            "authorization",
            "content-type",
            "last-event-id",
            "if-none-match",
        }
        assert "POST" in preflight.headers["access-control-allow-methods"]
        for path, bearer, status in ((A, ME, 200), (A, None, 401), ("/api/nothing", ME, 404)):
            answer = await caller.ask("GET", path, bearer=bearer, **page)
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["access-control-expose-headers"] == "ETag, Retry-After"
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers
        events = await watch(server, nursery, **page)
        assert len(await events.all()) == 1
        other = await caller.ask("GET", A, Origin="https://app.example.evil")
        assert other.status == (200 if allowed == "*" else 403)


async def test_rebound_name(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A name of the attacker's that was made to point to this machine is a foreign page."""
    async with memory_server() as server:
        answer = await ask(
            server, nursery, "GET", A, Origin="http://evil.example", Host="evil.example"
        )
        assert answer.status == 403


# Framing


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 0x5\r\n",
        " Content-Length: 5\r\n",
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_length_that_can_be_read_in_two_ways(
    nursery: Nursery, autojump_clock: MockClock, headers: str, later: bool
) -> None:
    """Nothing that follows such a head is taken for a request."""
    smuggled = head_of("POST", f"{A}/end", bearer=ME)
    head = f"POST {A}/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ME}\r\n{headers}\r\n"
    async with memory_server() as server:
        caller = Caller(server, nursery)
        if later:
            await caller.ask("GET", "/openapi.json")
        await caller.peer.send(head.encode() + b"0\r\n\r\n" + smuggled)
        answer = await caller.hear()
        assert answer.status in (400, 411, 501)
        assert answer.headers["connection"] == "close"
        assert await caller.is_closed()
        assert server.statistics().channels == 0


@pytest.mark.parametrize("later", [False, True])
async def test_two_heads_in_one(nursery: Nursery, autojump_clock: MockClock, later: bool) -> None:
    """A head that ends sooner for those who take a bare line feed is refused."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        if later:
            await caller.ask("GET", "/openapi.json")
        await caller.peer.send(b"GET /healthz HTTP/1.1\nHost: a\n\n" + head_of("GET", "/x"))
        assert (await caller.hear()).status == 400
        assert await caller.is_closed()


@pytest.mark.parametrize(
    "upgrade",
    [
        request_head(token()),
        request_head(token(), path="/api/channels"),
        head_of("GET", "/healthz", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c",
                HTTP2_Settings="AAMAAABkAAQAoAAAAAIAAAAA"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    ],
    ids=range(6),
)  # fmt: skip
async def test_no_other_protocol(
    nursery: Nursery, autojump_clock: MockClock, upgrade: bytes
) -> None:
    """A kept connection speaks HTTP/1.1 and ends when asked for anything else."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.ask("GET", "/openapi.json")
        await caller.peer.send(upgrade)
        answer = await caller.hear()
        assert answer.status in (200, 400, 505)
        assert "upgrade" not in answer.headers
        assert await caller.is_closed()
        assert server.statistics().opened == 0


async def test_http2_from_the_start(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The preface of HTTP/2 is refused as what it is not."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await caller.hear()).status in (400, 505)


async def test_pipelined_requests(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Requests sent at once are answered one after the other, bodies included."""
    body = b'{"type":"log"}'
    async with memory_server() as server:
        caller = Caller(server, nursery)
        request = head_of("POST", f"{A}/messages", body) + body
        await caller.peer.send(request * 20 + head_of("GET", A))
        offsets = [(await caller.hear("POST")).body["offset"] for _ in range(20)]
        assert offsets == list(range(1, 21))
        assert (await caller.hear()).body["offset"] == 20


async def test_body_byte_by_byte(nursery: Nursery, autojump_clock: MockClock) -> None:
    """However a request is cut, it is the same request."""
    body = b'{"type":"log","data":"%b"}' % (b"x" * 500)
    async with memory_server() as server:
        caller = Caller(server, nursery)
        request = head_of("POST", f"{A}/messages", body, Expect="100-continue") + body
        for byte in request:
            await caller.peer.send(bytes((byte,)))
            await trio.lowlevel.checkpoint()
        assert (await caller.hear()).status == 201


async def test_large_bodies(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A body may be as large as a message on the socket, many times on one connection."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        data = "x" * (server.settings.limits.max_message_bytes - 30)
        for _ in range(3):
            answer = await caller.ask("POST", f"{A}/messages", {"type": "log", "data": data})
            assert answer.status == 201
        refused = await caller.ask("GET", "/openapi.json", data.encode(), None)
        assert refused.status == 200  # a body that nobody wants is no harm …
        assert await caller.is_closed()  # … and not waited for


# Peers that dawdle


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", exchange.KEEP_ALIVE),
        (b"GET /heal", 5),
    ],
    ids=["no request", "half a head"],
)
async def test_half_a_request_on_a_kept_connection(
    nursery: Nursery, autojump_clock: MockClock, sent: bytes, seconds: float
) -> None:
    """Each part of a request has its time."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.ask("GET", "/openapi.json")
        started = trio.current_time()
        if sent:
            await caller.peer.send(sent)
        assert await caller.is_closed()
        assert trio.current_time() - started == pytest.approx(seconds, abs=1)
        await trio.sleep(2)
        assert not server._registry.guests


async def test_dribbled_body(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A body that comes byte by byte does not keep its connection for ever."""
    async with memory_server() as server:
        caller, started = Caller(server, nursery), trio.current_time()
        await caller.peer.send(head_of("POST", f"{A}/messages", b"x" * 1000))

        async def dribble() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    await trio.sleep(1)
                    await caller.peer.send(b"x")

        async with trio.open_nursery() as dribbling:
            dribbling.start_soon(dribble)
            answer = await caller.hear()
            assert (answer.status, answer.code) == (408, "bad_request")
            assert trio.current_time() - started == pytest.approx(BODY_TIMEOUT)
            assert await caller.is_closed()
            await trio.aclose_forcefully(caller.peer.stream)
        assert not server._registry.guests


async def test_answer_that_nobody_takes(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who asks and does not read is cut off after `limits.write_timeout`."""
    async with memory_server(limits=triows.Limits(write_timeout=3)) as server:
        caller = Caller(server, nursery, narrow=True)
        await caller.send("GET", "/openapi.json")
        await trio.sleep(2)
        assert server._registry.guests
        await trio.sleep(2.5)
        assert not server._registry.guests


async def test_answers_that_nobody_takes(nursery: Nursery, autojump_clock: MockClock) -> None:
    """So is who asks several things at once: nothing waits for what was asked last."""
    async with memory_server(limits=triows.Limits(write_timeout=3)) as server:
        for path in ("/openapi.json", "/openapi.json", f"{A}/events?tail=5"):
            caller = Caller(server, nursery, narrow=True)
            await server.publish("session:1", triows.log("x" * 100_000))
            request = head_of("GET", path)
            nursery.start_soon(caller.peer.send, request + head_of("GET", "/openapi.json"))
        await trio.sleep(2)
        assert len(server._registry.guests) == 2
        assert len(server.connections()) == 1
        await trio.sleep(2.5)
        assert not server._registry.guests
        assert server.closed_connections()[0].code == 4004
        assert len(nursery.child_tasks) == 0


async def test_request_that_comes_as_the_connection_ends(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an answer that did not wait for the body nothing is read, nor waited for."""
    body = b"x" * 1000

    async def send_the_rest(_: exchange.Exchange) -> None:
        await caller.peer.send(body[500:] + head_of("GET", "/openapi.json"))
        await wait_all_tasks_blocked()

    monkeypatch.setattr(exchange.Exchange, "send_eof", send_the_rest)
    async with memory_server() as server:
        caller = Caller(server, nursery)
        request = head_of("POST", f"{A}/messages", body, bearer=None) + body[:500]
        await caller.peer.send(request)
        with trio.fail_after(5):
            assert (await caller.hear()).status == 401
            assert await caller.is_closed()
            await trio.sleep(2)
        assert not server._registry.guests


async def test_peer_that_vanishes_while_it_is_answered(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Whenever a peer hangs up, its connection ends, and nothing is logged as a failure."""
    request = head_of("POST", f"{A}/messages", b"{}") + b"{}" + head_of("GET", "/openapi.json")
    async with memory_server() as server:
        for size in range(0, len(request), 7):
            caller = Caller(server, nursery)
            await caller.peer.send(request[:size])
            await trio.aclose_forcefully(caller.peer.stream)
        await trio.sleep(2)
        assert not server._registry.guests
        assert len(nursery.child_tasks) == 0


async def test_http_connections_are_bounded(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Of too many the one idle for longest gives way; busy ones do not, and nobody else gets in."""
    limits = triows.Limits(max_http_connections=3)
    async with memory_server(limits=limits) as server:
        position = await server.publish("session:1", triows.log(1))
        idle = [Caller(server, nursery) for _ in range(5)]
        for caller in idle:
            assert (await caller.ask("GET", "/openapi.json")).status == 200
        assert len(server._registry.guests) == 3
        for caller in idle[:2]:
            assert await caller.is_closed()
        wait = f"{A}/messages?since={position.epoch}:1&wait=30"
        for caller in idle[2:]:
            await caller.send("GET", wait)
        await wait_all_tasks_blocked()
        refused = await ask(server, nursery, "GET", A)
        assert (refused.status, refused.code) == (503, "unavailable")
        assert refused.headers["retry-after"] == "5"
        await server.publish("session:1", triows.log(2))
        for caller in idle[2:]:
            assert (await caller.hear()).body["offset"] == 2
        assert (await ask(server, nursery, "GET", A)).status == 200


async def test_one_user_does_not_take_all_http_connections(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Of one user, so many requests may be under way, whatever they wait for; others are served."""
    limits = triows.Limits(max_http_connections=5, max_connections_per_user=2)
    async with memory_server(limits=limits) as server:
        position = await server.publish("session:1", triows.log(1))
        waiting, sending = Caller(server, nursery), Caller(server, nursery)
        await waiting.send("GET", f"{A}/messages?since={position.epoch}:1&wait=30")
        await sending.peer.send(head_of("POST", f"{A}/messages", b"x" * 100))
        await wait_all_tasks_blocked()
        third = await ask(server, nursery, "GET", A)
        assert (third.status, third.code) == (429, "rate_limited")
        assert third.headers["retry-after"] == "1"
        assert (await ask(server, nursery, "GET", "/openapi.json", bearer=None)).status == 200
        assert (await ask(server, nursery, "GET", "/metrics", bearer=ADMIN)).status == 200
        await trio.aclose_forcefully(sending.peer.stream)
        await wait_all_tasks_blocked()
        assert (await ask(server, nursery, "GET", A)).status == 200
        await server.publish("session:1", triows.log(2))
        assert (await waiting.hear()).body["offset"] == 2


async def test_who_takes_nothing_makes_room(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Peers that ask and do not read, without any token, keep nobody else out for long."""
    limits = triows.Limits(max_http_connections=3)
    async with memory_server(limits=limits) as server:
        for _ in range(3):
            await Caller(server, nursery, narrow=True).send("GET", "/openapi.json", bearer=None)
        assert (await ask(server, nursery, "GET", "/metrics", bearer=ADMIN)).status == 503
        await trio.sleep(1.5)
        for _ in range(3):
            assert (await ask(server, nursery, "GET", "/metrics", bearer=ADMIN)).status == 200
        assert len(server._registry.guests) == 3


async def test_requests_of_one_connection_are_not_endless_in_memory(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """While one request waits, at most one more is read: the rest stays with the peer."""
    async with memory_server() as server:
        position = await server.publish("session:1", triows.log(1))
        caller = Caller(server, nursery, narrow=True)
        await caller.send("GET", f"{A}/messages?since={position.epoch}:1&wait=30")

        async def flood() -> None:
            for _ in range(1000):
                await caller.send("GET", A)

        nursery.start_soon(flood)
        await wait_all_tasks_blocked()
        (guest,) = server._registry.guests
        assert isinstance(guest, exchange.Exchange)
        assert len(guest.requests) <= 1
        nursery.cancel_scope.cancel()


# The end of the server


@pytest.mark.parametrize("what", ["idle", "waiting", "events", "body", "unread"])
async def test_cancelling_leaves_no_task(autojump_clock: MockClock, what: str) -> None:
    """A server that is cancelled is gone at once, whatever its HTTP connections were doing."""
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with memory_server() as server:
                position = await server.publish("session:1", triows.log("x" * 500_000))
                caller = Caller(server, nursery, narrow=what == "unread")
                requests: dict[str, Any] = {
                    "idle": head_of("GET", "/healthz") and head_of("GET", A),
                    "waiting": head_of("GET", f"{A}/messages?since={position.epoch}:1&wait=30"),
                    "events": head_of("GET", f"{A}/events"),
                    "body": head_of("POST", f"{A}/messages", b"x" * 9) + b"x",
                    "unread": head_of("GET", f"{A}/messages"),
                }
                await caller.peer.send(requests[what])
                await wait_all_tasks_blocked()
                started = trio.current_time()
                scope.cancel()
        await trio.lowlevel.checkpoint()
        assert trio.current_time() == started
        done.set()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) <= 1  # `serve_stream` is the test's own
        nursery.cancel_scope.cancel()


async def test_leaving_waits_for_no_idle_connection(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Leaving ends idle connections, waiting requests and streams at once, and cleanly."""
    async with memory_server() as server:
        position = await server.publish("session:1", triows.log(1))
        idle, waiting = Caller(server, nursery), Caller(server, nursery)
        await idle.ask("GET", A)
        await waiting.send("GET", f"{A}/messages?since={position.epoch}:1&wait=30")
        events = await watch(server, nursery)
        await events.next()
        await wait_all_tasks_blocked()
        started = trio.current_time()
    (last,) = await events.all()
    assert last.type == "reconnect"
    assert (await waiting.hear()).status == 200
    assert await idle.is_closed()
    assert trio.current_time() - started < 2


async def test_nothing_is_said_of_the_software(nursery: Nursery, autojump_clock: MockClock) -> None:
    """No answer names what serves it, and failures keep their details for the log."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", A)
        assert "server" not in answer.headers


async def test_failure_inside(
    nursery: Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What goes wrong in the server is 500 to one request, a line in the log, and no more."""
    async with memory_server() as server:

        async def fail(channel: str) -> None:  # noqa: ASYNC124 awaited like all of its kind
            raise ValueError("a secret")

        monkeypatch.setattr(server._bus, "find", fail)
        caller = Caller(server, nursery)
        answer = await caller.ask("GET", A)
        assert (answer.status, answer.code) == (500, "internal")
        assert "secret" not in str(answer)
        assert "answering GET" in caplog.text
        assert (await caller.ask("GET", "/healthz")).status == 200


async def test_websocket_after_refusal(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A WebSocket wants a connection of its own, and gets one."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.ask("GET", A)
        refused = await caller.ask("GET", "/ws", Connection="Upgrade", Upgrade="websocket")
        assert (refused.status, refused.code) == (400, "bad_request")
        peer = dial(server, nursery)
        await peer.send(request_head(token()))
        assert (await peer.response())[0] == 101


async def test_guessing_is_slowed_down(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Too many requests from one address without a token that is believed get 429; who has one
    is not kept out by them, nor is anybody from files, health and the socket.
    """
    limits = triows.Limits(handshakes_per_second_per_address=0.5)  # and five at once
    async with memory_server(limits=limits) as server:
        await server.publish("session:1", triows.log(1))
        caller = Caller(server, nursery)
        wrong = [None, "nonsense", token(ttl=-1, **ALL), None, "nonsense"]
        assert [(await caller.ask("GET", A, bearer=b)).status for b in wrong] == [401] * 5
        for bearer in wrong:
            refused = await caller.ask("GET", A, bearer=bearer)
            assert (refused.status, refused.code) == (429, "rate_limited")
            assert "limits.handshakes_per_second_per_address" in refused.body["data"]["message"]
        for path in (A, "/api/connections", "/metrics"):
            assert (await caller.ask("GET", path, bearer=ADMIN)).status == 200
        for path in ("/healthz", "/readyz", "/openapi.json", "/triows.js", "/dashboard/"):
            assert (await caller.ask("GET", path, bearer=None)).status == 200
        await connect(server, nursery)
        await trio.sleep(int(refused.headers["retry-after"]))
        assert (await caller.ask("GET", A, bearer=None)).status == 401
        assert (await caller.ask("GET", A, bearer=None)).status == 429
