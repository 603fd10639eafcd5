"""Publishing over HTTP: the same rules as on the socket."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import Nursery, connect, memory_server, token
from tests.support_http import NDJSON, A, Answer, Caller, ask


async def test_publish(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A message gets its place, is delivered byte for byte, and an id publishes it once."""
    async with memory_server() as server:
        viewer = await connect(server, nursery)
        await viewer.ask("subscribe", id="1", channel="session:1")
        caller = Caller(server, nursery)
        body = b'{"id":"a", "type":"log","data":{"x" :\n [1.00, "\\u00e9"]}}'
        first = await caller.ask("POST", f"{A}/messages", body)
        again = await caller.ask("POST", f"{A}/messages", body)
        assert (first.status, again.status) == (201, 200)
        assert first.body == {**again.body, "duplicate": False}
        assert (again.body["offset"], again.body["duplicate"]) == (1, True)
        _, payload = await viewer.receive()
        assert b'"data":{"x" :\n [1.00, "\\u00e9"]}}' in payload
        assert (await caller.ask("GET", A)).body["offset"] == 1


async def test_publish_ids_are_those_of_the_socket(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """What a user published by one door is known at the other; another user's id is his own."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("log", id="a", channel="session:1")
        mine = await ask(server, nursery, "POST", f"{A}/messages", {"type": "log", "id": "a"})
        other = await ask(
            server,
            nursery,
            "POST",
            f"{A}/messages",
            {"type": "log", "id": "a"},
            token("other", publish=["*"]),
        )
        assert (mine.body["duplicate"], other.body["duplicate"]) == (True, False)


async def test_publish_many(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Lines are published in order; one that is refused says why in its place."""
    lines = [
        b'{"type":"log","data":1,"id":"a"}\r',
        b"",
        b'{"type":"log","id":"a"}',
        b'{"type":"command","data":2}',
        b"no JSON",
        b'{"type":"ping"}',
        b'{"type":"log","channel":"session:2"}',
        b'{"type":"end","data":{"exit_code":"0"}}',
        b'{"type":"end","data":{"exit_code":0}}',
        b'{"type":"log"}',
    ]
    async with memory_server() as server:
        answer = await ask(
            server,
            nursery,
            "POST",
            f"{A}/messages",
            b"\n".join(lines),
            token(publish=["session:*"]),
            Content_Type=NDJSON,
        )
        page = await ask(server, nursery, "GET", f"{A}/messages")
    results = answer.body["results"]
    assert answer.status == 200
    assert [r.get("offset", r.get("error", {}).get("code")) for r in results] == [
        *(1, 1, "forbidden", "bad_json", "unknown_type"),
        *("bad_request", "bad_request", 2, "ended"),
    ]
    assert [r.get("duplicate") for r in results[:2]] == [False, True]
    assert [m["type"] for m in page.body["messages"]] == ["log", "end"]


DEEP = b'{"type":"log","data":' + b"[" * 200 + b"]" * 200 + b"}"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {"Content_Type": "application/json"}, 400, "bad_json"),
        (b"{", {}, 400, "bad_json"),
        (b"{} x", {}, 400, "bad_request"),
        (b"[]", {}, 400, "bad_request"),
        (b'{"data":1}', {}, 400, "bad_request"),
        (b'{"type":1}', {}, 400, "bad_request"),
        (b'{"type":"log","id":1}', {}, 400, "bad_request"),
        (b'{"type":"log","id":"%b"}' % (b"x" * 65), {}, 400, "bad_request"),
        (b'{"type":"log","data":"\xff"}', {}, 400, "bad_json"),
        (DEEP, {}, 400, "bad_json"),
        (b'{"type":"nonsense"}', {}, 400, "unknown_type"),
        (b'{"type":"subscribe"}', {}, 400, "unknown_type"),
        (b'{"type":"log","channel":"session:2"}', {}, 400, "bad_request"),
        (b'{"type":"end","data":[]}', {}, 400, "bad_request"),
        (b'{"type":"log"}', {"Content_Type": None}, 415, "unsupported_media_type"),
        (b'{"type":"log"}', {"Content_Type": "text/plain"}, 415, "unsupported_media_type"),
        (
            b'{"type":"log"}',
            {"Content_Type": "application/json; charset=latin1"},
            415,
            "unsupported_media_type",
        ),
        (b"x" * 1025, {}, 413, "too_large"),
        (b"\n \n", {"Content_Type": NDJSON}, 400, "bad_request"),
        (b"1\n" * 500 + b"1\n" * 12, {"Content_Type": NDJSON}, 200, ""),
        (b"{}", {"Content_Length": "x"}, 400, "bad_request"),
        (b"{}", {"Content_Length": "-1"}, 400, "bad_request"),
        (b"{}", {"Content_Length": "9" * 20}, 413, "too_large"),
        (b"{}", {"Content_Length": None, "Transfer_Encoding": "chunked"}, 411, "length_required"),
    ],
    ids=range(24),
)
async def test_bad_message_changes_nothing(
    nursery: Nursery,
    autojump_clock: MockClock,
    body: bytes,
    headers: dict[str, Any],
    status: int,
    code: str,
) -> None:
    """What cannot be published is refused, with what was expected, and nothing has happened."""
    async with memory_server(limits=triows.Limits(max_message_bytes=1024)) as server:
        answer = await ask(server, nursery, "POST", f"{A}/messages", body, **headers)
        assert answer.status == status
        assert not code or answer.code == code
        assert server.statistics().published == 0
        assert server.statistics().channels == 0


async def test_publish_too_many_lines(nursery: Nursery, autojump_clock: MockClock) -> None:
    """More messages than one request may hold are refused, all of them."""
    async with memory_server() as server:
        body = b'{"type":"log"}\n' * 1001
        answer = await ask(server, nursery, "POST", f"{A}/messages", body, Content_Type=NDJSON)
        assert (answer.status, answer.code) == (413, "too_large")
        assert server.statistics().published == 0


@pytest.mark.parametrize(
    ("path", "bearer", "status", "code"),
    [
        ("/api/channels/session:1/messages", token(publish=["session:2"]), 403, "forbidden"),
        ("/api/channels/session:1/messages", token(command=["session:1"]), 403, "forbidden"),
        ("/api/channels/session:1/messages", token(subscribe=["*"]), 403, "forbidden"),
        ("/api/channels/session:1/end", token(subscribe=["*"]), 403, "forbidden"),
        ("/api/channels/system/messages", token(publish=["*"]), 403, "forbidden"),
        ("/api/channels/Session/messages", token(publish=["*"]), 400, "bad_channel"),
        ("/api/channels/a:%ff/messages", token(publish=["*"]), 400, "bad_channel"),
        ("/api/channels//messages", token(publish=["*"]), 400, "bad_channel"),
        ("/api/channels/session:1/messages", None, 401, "unauthorized"),
        ("/api/channels/session:1/messages", token(ttl=-1, publish=["*"]), 401, "unauthorized"),
        ("/api/channels/session:1/messages?x=1", token(publish=["*"]), 400, "bad_request"),
        ("/api/channels/session:1/messages?token=x", token(publish=["*"]), 400, "bad_request"),
    ],
    ids=range(12),
)
async def test_publish_needs_its_grant(
    nursery: Nursery,
    autojump_clock: MockClock,
    path: str,
    bearer: str | None,
    status: int,
    code: str,
) -> None:
    """Grants count as on the socket, before anything of the body does."""
    async with memory_server() as server:
        body = {} if path.endswith("end") else {"type": "log"}
        answer = await ask(server, nursery, "POST", path, body, bearer)
        assert (answer.status, answer.code) == (status, code)
        assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
        assert server.statistics().published == 0


async def test_publish_is_rate_limited_per_user(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """The rate is the user's, on however many connections; a request passes whole or not."""
    limits = triows.Limits(messages_per_second=10, messages_burst=20)
    async with memory_server(limits=limits) as server:
        body = b'{"type":"log"}\n' * 30

        async def publish(who: str = "me") -> Answer:
            bearer = token(who, publish=["*"])
            path = f"{A}/messages"
            return await ask(server, nursery, "POST", path, body, bearer, Content_Type=NDJSON)

        assert (await publish()).status == 200
        refused = await publish()
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert server.statistics().published == 30
        assert (await publish("other")).status == 200
        await trio.sleep(int(refused.headers["retry-after"]))
        assert (await publish()).status == 200
        assert server.statistics().errors == {"rate_limited": 1}


async def test_command_is_answered_by_the_application(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """The handler's result is in the answer; the same id again gets the position alone."""
    seen: list[triows.Request] = []

    async def steer(request: triows.Request) -> object:  # noqa: ASYNC124 awaited like all of its kind
        seen.append(request)
        if request.message.data == "no":
            raise triows.RequestError(triows.ErrorCode.FORBIDDEN, "not now")
        return {"did": request.message.data}

    async with memory_server(on_command=steer) as server:

        async def command(data: object) -> Answer:
            body = {"type": "command", "data": data, "id": str(data)}
            return await ask(server, nursery, "POST", f"{A}/messages", body)

        done, again, refused = await command("go"), await command("go"), await command("no")
        assert (done.status, done.body["result"], done.body["offset"]) == (201, {"did": "go"}, 1)
        assert (again.status, "result" in again.body, again.body["offset"]) == (200, False, 1)
        assert (refused.status, refused.code) == (403, "forbidden")
        assert [r.identity.user for r in seen] == ["me", "me"]
        assert len({r.connection for r in seen}) == 2

        lines = b'{"type":"command","data":"x"}\n' * 18
        many = await ask(server, nursery, "POST", f"{A}/messages", lines, Content_Type=NDJSON)
        results = many.body["results"]
        assert [r.get("result") for r in results] == [{"did": "x"}] * 16 + [None] * 2
        assert [r["error"]["code"] for r in results[16:]] == ["unavailable"] * 2


async def test_end(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A channel ends once; what was said stays to be read."""
    async with memory_server() as server:
        caller = Caller(server, nursery)
        bad = await caller.ask("POST", f"{A}/end", {"exit_code": "none"})
        assert (bad.status, bad.code) == (400, "bad_request")
        done = await caller.ask("POST", f"{A}/end", {"exit_code": 3, "reason": "so"})
        assert (done.status, done.body["offset"]) == (200, 1)
        again = await caller.ask("POST", f"{A}/end")
        assert (again.status, again.code) == (409, "ended")
        late = await caller.ask("POST", f"{A}/messages", {"type": "log"})
        assert (late.status, late.code) == (409, "ended")
        info = await caller.ask("GET", A)
        assert info.body["ended"] == {"exit_code": 3, "reason": "so"}
        bare = await caller.ask("POST", "/api/channels/session:2/end")
        assert (bare.status, bare.body["offset"]) == (200, 1)


async def test_revoked_while_the_authorizer_thinks(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A token that is revoked before the authorizer has answered publishes nothing."""

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
        await server.revoke(user=identity.user)
        return True

    async with memory_server(authorize=authorize) as server:
        answer = await ask(server, nursery, "POST", f"{A}/messages", {"type": "log"})
        assert (answer.status, server.statistics().published) == (401, 0)
