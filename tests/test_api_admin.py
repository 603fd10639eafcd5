"""What administrators ask for over HTTP, and what belongs to no channel."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, SECRET, Nursery, connect, dial, memory_server, request_head, token
from tests.support_http import ADMIN, A, Caller, ask, watch
from triows.http.operations import OPERATIONS, Grant
from triows.http.static import FOLDER, Files

EVERY = [(o.method, o.path.format(channel="session:1", id="x")) for o in OPERATIONS]


async def test_connections(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Open and closed ones, each with what there is to know; disconnecting says so."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        other = await connect(server, nursery, token("gone", **ALL))
        await other.stream.aclose()
        await wait_all_tasks_blocked()
        caller = Caller(server, nursery)
        listed = (await caller.ask("GET", "/api/connections", bearer=ADMIN)).body
        (mine,), (closed,) = listed["open"], listed["closed"]
        path = f"/api/connections/{mine['id']}"
        one = (await caller.ask("GET", path, bearer=ADMIN)).body
        assert (one["id"], one["state"], one["user"]) == (mine["id"], "open", "me")
        was = (
            await caller.ask("GET", f"/api/connections/{closed['last']['id']}", bearer=ADMIN)
        ).body
        assert (was["state"], was["code"], was["advice"]) == ("closed", 1006, "reconnect")
        gone = await caller.ask("DELETE", path, bearer=ADMIN)
        assert (gone.status, gone.body) == (204, None)
        assert await peer.close_code() == 4503
        was = (await caller.ask("GET", path, bearer=ADMIN)).body
        assert (was["state"], was["code"], was["advice"]) == ("closed", 4503, "stay away")
        for method in ("GET", "DELETE"):
            unknown = await caller.ask(method, "/api/connections/nobody", bearer=ADMIN)
            assert (unknown.status, unknown.code) == (404, "not_found")


@pytest.mark.parametrize("by", ["token_id", "user"])
async def test_revoke(nursery: Nursery, autojump_clock: MockClock, by: str) -> None:
    """A revoked token is believed by no door any more, and what it opened is closed."""
    bearer = token("me", **ALL)
    identity = await triows.JWTAuth(SECRET).verify(bearer)
    value = identity.token_id if by == "token_id" else "me"
    async with memory_server() as server:
        await server.publish("session:1", triows.log(1))
        peer = await connect(server, nursery, bearer)
        events = await watch(server, nursery, bearer=bearer)
        assert (await events.next()) is not None
        answer = await ask(server, nursery, "POST", "/api/revocations", {by: value}, ADMIN)
        assert (answer.status, answer.body) == (200, {"closed": 2})
        assert await peer.close_code() == 4503
        (last,) = await events.all()
        assert (last.type, last.data["code"], last.data["reconnect"]) == ("close", 4503, False)
        assert (await ask(server, nursery, "GET", A, bearer=bearer)).status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"user":1}',
        b'{"user":"a","token_id":"b"}',
        b'{"user":"a","token_id":null}',
        b'{"user":"a","x":1}',
        b'{"user":"\xff"}',
        b"[" * 10_000,
    ],
    ids=range(9),
)
async def test_bad_revocation(nursery: Nursery, autojump_clock: MockClock, body: bytes) -> None:
    """Anything but one name is refused, and revokes nobody."""
    async with memory_server() as server:
        kind = "application/json"
        path = "/api/revocations"
        answer = await ask(server, nursery, "POST", path, body, ADMIN, Content_Type=kind)
        assert (answer.status, answer.code) == (400, "bad_request")
        await connect(server, nursery, token("a", **ALL))


async def test_drain(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Everybody is let go; an idle HTTP connection ends at once, as does the asking one."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        idle, busy = Caller(server, nursery), Caller(server, nursery)
        await idle.ask("GET", "/openapi.json")
        started = trio.current_time()
        answer = await busy.ask("POST", "/api/drain", bearer=ADMIN)
        assert (answer.status, answer.body) == (202, {"connections": 1, "window": 0.005})
        assert answer.headers["connection"] == "close"
        assert (await peer.hear())["type"] == "reconnect"
        assert await peer.close_code() == 1012
        assert await idle.is_closed()
        assert await busy.is_closed()
        again = await ask(server, nursery, "POST", "/api/drain", bearer=ADMIN)
        assert (again.status, again.body["connections"]) == (202, 0)
        assert trio.current_time() - started < 5
        ready = await ask(server, nursery, "GET", "/readyz")
        assert (ready.status, ready.headers["retry-after"]) == (503, "5")


async def test_statistics(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What `Server.statistics` says, and nothing that went away is forgotten."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", id="1", channel="session:1")
        for number in range(5):
            await server.publish("session:1", triows.log(number))
            await peer.hear()
        await peer.ask("subscribe", id="1", channel="nonsense")
        first = (await ask(server, nursery, "GET", "/api/statistics", bearer=ADMIN)).body
        assert (first["connections"], first["delivered"], first["received_messages"]) == (1, 5, 2)
        assert first["errors"] == {"bad_channel": 1}
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
        then = (await ask(server, nursery, "GET", "/api/statistics", bearer=ADMIN)).body
        assert (then["connections"], then["delivered"], then["received_messages"]) == (0, 5, 2)
        assert then["sent_bytes"] >= first["sent_bytes"] > 500
        assert then["received_bytes"] >= first["received_bytes"] > 100
        assert then["answers"] == {"200": 1}


@pytest.mark.parametrize(("method", "path"), EVERY)
async def test_every_operation_checks_the_token(
    nursery: Nursery, autojump_clock: MockClock, method: str, path: str
) -> None:
    """Without a token 401, with one that grants nothing 403; a token in the address never."""
    operation = next(
        o
        for o in OPERATIONS
        if (o.method, o.path.format(channel="session:1", id="x")) == (method, path)
    )
    async with memory_server() as server:
        await server.publish("session:1", triows.log(1))
        caller = Caller(server, nursery)
        in_address = await caller.ask(method, f"{path}?token={ADMIN}", bearer=None)
        assert (in_address.status, in_address.code) == (400, "bad_request")
        none = await caller.ask(method, path, bearer=None)
        gibberish = await caller.ask(method, path, bearer="gibberish")
        poor = await caller.ask(
            method, path, {"type": "log"} if method == "POST" else b"", token(publish=["x:1"])
        )
        if operation.grant is Grant.NONE:
            assert none.status == gibberish.status == poor.status == 200
        else:
            assert (none.status, gibberish.status) == (401, 401)
            assert poor.status == (200 if operation.name == "channels" else 403)


@pytest.mark.parametrize("path", sorted({path for _, path in EVERY}))
async def test_other_methods(nursery: Nursery, autojump_clock: MockClock, path: str) -> None:
    """What a path does not do is 405, with what it does."""
    known = {method for method, other in EVERY if other == path}
    if "GET" in known and not path.endswith("/events"):
        known.add("HEAD")
    async with memory_server() as server:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"} - known:
            answer = await ask(server, nursery, method, path, bearer=ADMIN)
            assert (answer.status, answer.code) == (405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == known


async def test_connect_is_no_proxy(nursery: Nursery, autojump_clock: MockClock) -> None:
    """CONNECT, and targets that are no paths, lead nowhere."""
    async with memory_server() as server:
        for method, target in (("CONNECT", "a:1"), ("OPTIONS", "*"), ("GET", "http://x/y")):
            answer = await ask(server, nursery, method, target)
            assert (answer.status, answer.code) == (404, "not_found")
        whole = await ask(server, nursery, "GET", "http://localhost:8080/healthz")
        assert whole.status == 200


@pytest.mark.parametrize(
    "path",
    ["//x/api/statistics", "//localhost:8080/dashboard/", "///dashboard/", "//", "/api/statistics/",
     "/api", "/api/", "/API/statistics", "/api//statistics", "/%61pi/channels",
     "/dashboard/../../errors.py", "/dashboard/..%2f..%2ferrors.py", "/errors.py", "/../errors.py",
     "/%2e%2e/errors.py", "/triows.js/", "/index.html/..", "/\\..\\errors.py"],
)  # fmt: skip
async def test_nothing_there(nursery: Nursery, autojump_clock: MockClock, path: str) -> None:
    """Other paths are 404, in JSON, also such that would lead out of a folder."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", path, bearer=ADMIN)
        assert (answer.status, answer.code) == (404, "not_found")


async def test_health_on_a_kept_connection(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Health is answered wherever it is asked for."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.ask("GET", "/openapi.json")
        answer = await caller.ask("GET", "/healthz", bearer=None)
        assert (answer.status, answer.body) == (200, {"status": "ok"})
        posted = await caller.ask("POST", "/healthz", bearer=None)
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")


# Files


async def test_page(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Files come with a policy that lets nothing in, and an ETag."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        path = "/dashboard/"
        page = await caller.ask("GET", path, bearer=None)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-cache"
        etag = page.headers["etag"]
        same = await caller.ask("GET", path, bearer=None, If_None_Match=etag)
        assert (same.status, same.body, same.headers["etag"]) == (304, None, etag)
        head = await caller.ask("HEAD", path, bearer=None)
        assert (head.status, head.headers["content-length"]) == (200, str(len(page.body)))
        posted = await caller.ask("POST", path, bearer=None)
        assert posted.status == 405


async def test_dashboard(
    nursery: Nursery, autojump_clock: MockClock, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page leads to the dashboard; of a folder, only what is a file is there."""
    folder = FOLDER.__class__(str(tmp_path))
    (folder / "dashboard").mkdir()
    (folder / "triows.js").write_text("export {}")
    (folder / "dashboard" / "index.html").write_text("dashboard")
    (folder / "dashboard" / "secret.pem").write_text("secret")
    files = Files.load(folder)
    monkeypatch.setattr(Files, "load", lambda: files)
    async with memory_server() as server:
        caller = Caller(server, nursery)
        for path in ("/", "/dashboard"):
            first = await caller.ask("GET", path, bearer=None)
            assert (first.status, first.headers["location"]) == (307, "/dashboard/")
        page = await caller.ask("GET", "/dashboard/", bearer=None)
        assert (page.status, page.body) == (200, b"dashboard")
        script = await caller.ask("GET", "/triows.js", bearer=None)
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        missing = await caller.ask("GET", "/dashboard/secret.pem", bearer=None)
        assert missing.status == 404


# Without the extra


async def test_without_the_extra(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the libraries of the HTTP side are missing, it says so, and the rest works."""

    def missing(name: str) -> None:
        monkeypatch.setitem(__import__("sys").modules, name, None)

    for name in ("starlette", "starlette.responses", "hypercorn", "prometheus_client"):
        missing(name)
    for name in [n for n in __import__("sys").modules if n.startswith("triows.http.")]:
        if name.split(".")[2] not in ("front", "head"):
            monkeypatch.delitem(__import__("sys").modules, name)
    async with memory_server() as server:
        for path in ("/", "/api/channels", "/metrics", "/openapi.json", "/triows.js"):
            answer = await ask(server, nursery, "GET", path, bearer=ADMIN)
            assert (answer.status, answer.code) == (501, "not_installed")
            assert "pip install 'triows[server]'" in answer.body["data"]["message"]
        assert (await ask(server, nursery, "GET", "/healthz")).status == 200
        assert (await ask(server, nursery, "GET", "/nothing")).status == 404
        peer = dial(server, nursery)
        await peer.send(request_head(token()))
        assert (await peer.response())[0] == 101
