"""Reading over HTTP: pages of logs, waiting for more, and the channels there are."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, SECRET, Nursery, connect, memory_server, token
from tests.support_http import ADMIN, A, Answer, Caller, ask


async def fill(server: triows.Server, count: int, channel: str = "session:1") -> str:
    """Publish numbers from 1 on, and return the epoch."""
    for number in range(1, count + 1):
        position = await server.publish(channel, triows.log(number))
    return position.epoch


def numbers(answer: Answer) -> list[int]:
    """Return the offsets in a page, in which data and offset are the same."""
    assert [m["data"] for m in answer.body["messages"]] == [
        m["offset"] for m in answer.body["messages"]
    ]
    return [m["offset"] for m in answer.body["messages"]]


@pytest.mark.parametrize(
    ("query", "expected", "cursor"),
    [
        ("", range(51, 151), 150),
        ("?tail=3", range(148, 151), 150),
        ("?tail=0", [], 150),
        ("?limit=2", [149, 150], 150),
        ("?tail=9&limit=2", [149, 150], 150),
        ("?tail=1000", range(1, 151), 150),
        ("?before=3", [1, 2], 2),
        ("?before=1", [], 0),
        ("?before=99&limit=2", [97, 98], 98),
        ("?before=99999&limit=1", [150], 150),
        ("?since=E:0&limit=2", [1, 2], 2),
        ("?since=E:148", [149, 150], 150),
        ("?since=E:150", [], 150),
        ("?since=E:10&before=13", [11, 12], 12),
        ("?since=E:10&before=5", [], 10),
        ("?since=E:149&wait=30", [150], 150),
    ],
)
async def test_history(
    nursery: Nursery, autojump_clock: MockClock, query: str, expected: Any, cursor: int
) -> None:
    """Every page says where it ends, and can be gone on from."""
    async with memory_server() as server:
        epoch = await fill(server, 150)
        page = await ask(server, nursery, "GET", f"{A}/messages{query.replace('E', epoch)}")
        assert (page.status, numbers(page)) == (200, list(expected))
        assert page.body["cursor"] == f"{epoch}:{cursor}"
        assert page.headers["etag"] == f'"{epoch}:{cursor}"'
        assert page.headers["cache-control"] == "private, no-cache"
        outline = {key: page.body[key] for key in ("channel", "epoch", "offset", "earliest")}
        assert outline == {"channel": "session:1", "epoch": epoch, "offset": 150, "earliest": 1}
        assert (page.body["gap"], page.body["ended"]) == (None, None)


async def test_history_tells_what_is_gone(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A cursor before what is kept, or of another epoch, gets the gap and what is there."""
    async with memory_server(log=triows.LogLimits(max_messages=3)) as server:
        epoch = await fill(server, 10)
        lost = await ask(server, nursery, "GET", f"{A}/messages?since={epoch}:4")
        gap = {"epoch": epoch, "from": 5, "to": 7, "count": 3, "reason": "retention"}
        assert (numbers(lost), lost.body["gap"]) == ([8, 9, 10], gap)
        other = await ask(server, nursery, "GET", f"{A}/messages?since=abc:4&wait=30")
        gap |= {"from": 1, "count": 7, "reason": "epoch"}
        assert (numbers(other), other.body["gap"]) == ([8, 9, 10], gap)
        old = await ask(server, nursery, "GET", f"{A}/messages?before=5")
        assert numbers(old) == []
        assert server.statistics().gaps == 2


async def test_history_pages_backwards_without_a_hole(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A page that would be too large is cut at its old end, where the next one goes on."""
    async with memory_server() as server:
        for _ in range(30):
            await server.publish("session:1", triows.log("x" * 100_000))
        seen: list[int] = []
        before = 31
        while before > 1:
            page = await ask(server, nursery, "GET", f"{A}/messages?before={before}&limit=1000")
            found = [m["offset"] for m in page.body["messages"]]
            assert found == list(range(found[0], before))
            assert len(found) < 12
            seen = found + seen
            before = found[0]
        assert seen == list(range(1, 31))


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=1", "bad_cursor"),
        ("since=", "bad_cursor"),
        ("since=E:-1", "bad_cursor"),
        ("since=E:1%0A", "bad_cursor"),
        ("since=E:%D9%A3", "bad_cursor"),
        ("since=E:4", "bad_position"),
        ("since=E:1&tail=1", "bad_request"),
        ("tail=-1", "bad_request"),
        ("tail=1001", "bad_request"),
        ("tail=1e1", "bad_request"),
        ("tail=%201", "bad_request"),
        ("tail=", "bad_request"),
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("before=0", "bad_request"),
        ("wait=31&since=E:1", "bad_request"),
        ("wait=nan&since=E:1", "bad_request"),
        ("wait=1", "bad_request"),
        ("wait=1&since=E:1&before=2", "bad_request"),
        ("limit=1&limit=2", "bad_request"),
        ("nonsense=1", "bad_request"),
        ("tail=%ff", "bad_request"),
        ("&".join("tail=1" for _ in range(30)), "bad_request"),
    ],
)
async def test_history_bad_query(
    nursery: Nursery, autojump_clock: MockClock, query: str, code: str
) -> None:
    """What cannot be meant is refused, with what was expected."""
    async with memory_server() as server:
        query = query.replace("E", await fill(server, 3))
        answer = await ask(server, nursery, "GET", f"{A}/messages?{query}")
        assert (answer.status, answer.code) == (400, code)


async def test_history_not_modified(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who has the newest page is told so, and nothing else."""
    async with memory_server() as server:
        await fill(server, 3)
        caller = Caller(server, nursery)
        etag = (await caller.ask("GET", f"{A}/messages")).headers["etag"]
        for offered in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            same = await caller.ask("GET", f"{A}/messages", If_None_Match=offered)
            assert (same.status, same.body, same.headers["etag"]) == (304, None, etag)
        await server.publish("session:1", triows.log(4))
        more = await caller.ask("GET", f"{A}/messages", If_None_Match=etag)
        assert (more.status, len(more.body["messages"])) == (200, 4)


@pytest.mark.parametrize("path", ["", "/messages", "/messages?tail=1", "/events"])
async def test_unknown_channel(nursery: Nursery, autojump_clock: MockClock, path: str) -> None:
    """What nobody has published to is not there, and asking does not make it."""
    async with memory_server() as server:
        answer = await ask(server, nursery, "GET", A + path)
        assert (answer.status, answer.code) == (404, "not_found")
        assert server.statistics().channels == 0
        foreign = await ask(server, nursery, "GET", A + path, bearer=token(publish=["*"]))
        assert (foreign.status, foreign.code) == (403, "forbidden")


# Waiting


async def test_wait_ends_with_the_first_message(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Whoever waits is told at once, and counts as a viewer meanwhile."""
    async with memory_server() as server:
        epoch = await fill(server, 3)
        caller, started = Caller(server, nursery), trio.current_time()
        await caller.send("GET", f"{A}/messages?since={epoch}:3&wait=30")
        await trio.sleep(7)
        assert (await ask(server, nursery, "GET", A)).body["viewers"] == 1
        present = await ask(server, nursery, "GET", f"{A}/presence")
        assert [p["user"] for p in present.body["connections"]] == ["me"]
        await server.publish("session:1", triows.log(4))
        page = await caller.hear()
        assert numbers(page) == [4]
        assert trio.current_time() - started == pytest.approx(7)
        again = await caller.ask("GET", f"{A}/messages?since={epoch}:4&wait=2.5")
        assert numbers(again) == []
        assert trio.current_time() - started == pytest.approx(9.5)
        etag = again.headers["etag"]
        same = await caller.ask("GET", f"{A}/messages?since={epoch}:4&wait=1", If_None_Match=etag)
        assert same.status == 304
        assert (await ask(server, nursery, "GET", A)).body["viewers"] == 0


@pytest.mark.parametrize("how", ["end", "drain", "token", "user", "expiry"])
async def test_wait_is_cut_short(nursery: Nursery, autojump_clock: MockClock, how: str) -> None:
    """Nobody waits for what will not come, or for what he may not have any more."""
    bearer = token("me", ttl=10, **ALL) if how == "expiry" else token("me", **ALL)
    identity = await triows.JWTAuth(SECRET).verify(bearer)
    async with memory_server() as server:
        epoch = await fill(server, 3)
        caller, started, before = Caller(server, nursery), trio.current_time(), time.time()
        await caller.send("GET", f"{A}/messages?since={epoch}:3&wait=30", bearer=bearer)
        await wait_all_tasks_blocked()
        asked = time.time()
        if how == "end":
            await server.publish("session:1", triows.end(exit_code=0))
        elif how == "drain":
            server.drain()
        elif how == "token":
            await server.revoke(token_id=identity.token_id)
        elif how == "user":
            await server.revoke(user="me")
        answer = await caller.hear()
        late = trio.current_time() - started
        if how == "expiry":
            # The token's time is that of the calendar, which does not jump.
            assert before <= identity.expires_at - late <= asked
        else:
            assert late < 0.5
        assert answer.status == (200 if how in ("end", "drain", "expiry") else 401)
        if how == "drain":
            assert await caller.is_closed()
        if how == "end":
            assert answer.body["ended"] == {"exit_code": 0}


async def test_wait_that_begins_while_the_server_drains(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A connection that was let in before, and asks after: it does not hold the server up."""
    async with memory_server() as server:
        epoch = await fill(server, 1)
        caller, started = Caller(server, nursery), trio.current_time()
        await wait_all_tasks_blocked()
        server.drain()
        await caller.send("GET", f"{A}/messages?since={epoch}:1&wait=30")
        assert (await caller.hear()).headers["connection"] == "close"
        assert trio.current_time() - started < 1


async def test_wait_of_a_peer_that_is_gone(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A peer that hangs up while it waits leaves nothing behind."""
    async with memory_server() as server:
        epoch = await fill(server, 1)
        caller, started = Caller(server, nursery), trio.current_time()
        await caller.send("GET", f"{A}/messages?since={epoch}:1&wait=30")
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(caller.peer.stream)
        await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        assert not server._hub.subscribers("session:1")
        assert not server._registry.guests
        assert trio.current_time() - started < 2


# Channels


async def test_channels(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Those that the token covers, page by page, by name; the server's own for administrators."""
    async with memory_server() as server:
        viewer = await connect(server, nursery)
        await viewer.ask("subscribe", id="1", channel="session:0")
        names = [f"session:{number}" for number in range(5)] + ["job:1"]
        for name in names[1:]:
            await fill(server, 2, name)
        some = token(subscribe=["session:*"])
        found: list[str] = []
        after = ""
        while True:
            path = f"/api/channels?limit=2&after={after}"
            page = (await ask(server, nursery, "GET", path, bearer=some)).body
            found += [channel["channel"] for channel in page["channels"]]
            if page["next"] is None:
                break
            assert page["next"] == found[-1]
            after = page["next"]
        assert found == names[:5]

        async def listed(query: str, bearer: str) -> list[str]:
            answer = await ask(server, nursery, "GET", f"/api/channels{query}", bearer=bearer)
            return [channel["channel"] for channel in answer.body["channels"]]

        assert await listed("", ADMIN) == ["job:1", *names[:5], "system:connections"]
        assert await listed("?pattern=*", ADMIN) == ["job:1", *names[:5]]
        assert await listed("?pattern=session:3", ADMIN) == ["session:3"]
        assert await listed("?pattern=job:*", some) == []
        bad = await ask(server, nursery, "GET", "/api/channels?pattern=a*b")
        assert (bad.status, bad.code) == (400, "bad_request")


async def test_channels_asks_the_authorizer(nursery: Nursery, autojump_clock: MockClock) -> None:
    """With an authorizer of the application, it decides what is listed."""

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:  # noqa: ASYNC124 awaited like all of its kind
        return channel in ("session:2", "session:4")

    async with memory_server(authorize=authorize) as server:
        for number in range(6):
            await fill(server, 1, f"session:{number}")
        page = await ask(server, nursery, "GET", "/api/channels?limit=1")
        assert [c["channel"] for c in page.body["channels"]] == ["session:2"]
        assert page.body["next"] == "session:2"


async def test_channel(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One channel: where it stands, what it holds, who watches; also with a slash in its name."""
    async with memory_server(log=triows.LogLimits(max_messages=2)) as server:
        epoch = await fill(server, 3, "session:w/messages")
        await trio.sleep(5)
        before = time.time()
        answer = await ask(server, nursery, "GET", "/api/channels/session:w%2Fmessages")
        body = answer.body
        assert {key: body[key] for key in ("channel", "epoch", "offset", "earliest", "ended")} == {
            "channel": "session:w/messages",
            "epoch": epoch,
            "offset": 3,
            "earliest": 2,
            "ended": None,
        }
        assert (body["viewers"], body["bytes"] > 100) == (0, True)
        # Five virtual seconds ago.
        assert before - 5 <= body["opened_at"] <= body["touched_at"] <= time.time() - 5
        raw = await ask(server, nursery, "GET", "/api/channels/session:w/messages/messages")
        assert numbers(raw) == [2, 3]


async def test_presence(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who watches, as on the socket; of a channel that is not there, nobody."""
    async with memory_server() as server:
        viewer = await connect(server, nursery)
        await viewer.ask("subscribe", id="1", channel="session:1")
        said = await viewer.ask("presence", id="2", channel="session:1")
        answer = await ask(server, nursery, "GET", f"{A}/presence")
        assert (answer.status, answer.body) == (200, said["data"])
        nobody = await ask(server, nursery, "GET", "/api/channels/session:2/presence")
        assert nobody.body == {"count": 0, "connections": []}
        refused = await ask(server, nursery, "GET", f"{A}/presence", bearer=token(subscribe=["*"]))
        assert (refused.status, refused.code) == (403, "forbidden")
