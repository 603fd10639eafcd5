"""Channels as Server-Sent Events."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, connect, memory_server, token
from tests.support_http import ADMIN, A, Event, ask, watch
from triows.codec import clock, encode_published, published_head
from triows.frames import frame_payload
from triows.http.events import SIGN_OF_LIFE, _event
from triows.messages import Message


async def fill(server: triows.Server, first: int, last: int) -> str:
    """Publish numbers, and return the epoch."""
    for number in range(first, last + 1):
        position = await server.publish("session:1", triows.log(number))
    return position.epoch


def is_log(event: Event | None, epoch: str, number: int) -> bool:
    """Whether an event is the message that `fill` published at that offset."""
    assert event is not None
    assert (event.id, event.type) == (f"{epoch}:{number}", "log")
    return bool(event.data["offset"] == event.data["data"] == number)


@pytest.mark.parametrize(
    ("query", "last_id", "first"),
    [
        ("", None, 6),
        ("?tail=0", None, 6),
        ("?tail=2", None, 4),
        ("?tail=1000", None, 1),
        ("?since=E:0", None, 1),
        ("?since=E:3", None, 4),
        ("", "E:3", 4),
        ("?since=E:0", "E:3", 4),
        ("?tail=5", "E:3", 4),
        ("", "", 6),
    ],
)
async def test_events_begin_where_asked(
    nursery: Nursery, autojump_clock: MockClock, query: str, last_id: str | None, first: int
) -> None:
    """After a cursor, with the newest, or with what comes next; then live, without a hole."""
    async with memory_server() as server:
        epoch = await fill(server, 1, 5)
        header = last_id.replace("E", epoch) if last_id is not None else None
        events = await watch(server, nursery, query.replace("E", epoch), Last_Event_ID=header)
        await wait_all_tasks_blocked()
        await fill(server, 6, 8)
        for number in range(first, 9):
            assert is_log(await events.next(), epoch, number)


async def test_events_tell_gaps(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What is not kept any more is an event, from whose id one can go on."""
    async with memory_server(log=triows.LogLimits(max_messages=3)) as server:
        epoch = await fill(server, 1, 10)
        for since, reason, first in ((f"{epoch}:2", "retention", 3), ("abc:9", "epoch", 1)):
            events = await watch(server, nursery, f"?since={since}")
            gap = await events.next()
            assert gap is not None
            assert (gap.id, gap.type) == (f"{epoch}:7", "gap")
            said = {"epoch": epoch, "from": first, "to": 7, "count": 8 - first, "reason": reason}
            assert gap.data == said
            assert is_log(await events.next(), epoch, 8)
        assert server.statistics().gaps == 2


async def test_events_of_a_slow_reader(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A reader that falls behind holds nobody up, is seen to lag, and is told what it lost."""
    log = triows.LogLimits(max_messages=5)
    async with memory_server(log=log, limits=triows.Limits(write_timeout=1000)) as server:
        epoch = await fill(server, 1, 1)
        events = await watch(server, nursery, "?tail=1", narrow=True)
        assert is_log(await events.next(), epoch, 1)
        await fill(server, 2, 2)
        await wait_all_tasks_blocked()  # the stream is stuck with it
        await fill(server, 3, 50)
        (mine,) = server.connections()
        assert mine.lag == 48
        assert is_log(await events.next(), epoch, 2)
        gap = await events.next()
        assert gap is not None
        assert (gap.id, gap.data["from"], gap.data["to"]) == (f"{epoch}:45", 3, 45)
        assert gap.data["reason"] == "lag"
        for number in range(46, 51):
            assert is_log(await events.next(), epoch, number)


async def test_events_end(nursery: Nursery, autojump_clock: MockClock) -> None:
    """After `end` the stream closes; who comes back is told not to."""
    async with memory_server() as server:
        epoch = await fill(server, 1, 2)
        events = await watch(server, nursery)
        await wait_all_tasks_blocked()
        await server.publish("session:1", triows.end(exit_code=0))
        *_, last = await events.all()
        assert (last.id, last.type) == (f"{epoch}:3", "end")
        assert last.data["data"] == {"exit_code": 0}
        assert await events.caller.is_closed()
        for query, header in (("", last.id), (f"?since={last.id}", None), ("?tail=0", None)):
            again = await ask(server, nursery, "GET", f"{A}/events{query}", Last_Event_ID=header)
            assert (again.status, again.body) == (204, None)
        late = await watch(server, nursery, f"?since={epoch}:1")
        assert [event.type for event in await late.all()] == ["log", "end"]
        await wait_all_tasks_blocked()
        assert server.statistics().closed == {1000: 2}


@pytest.mark.parametrize(
    ("query", "last_id", "status", "code"),
    [
        ("?since=1", None, 400, "bad_cursor"),
        ("", "42", 400, "bad_cursor"),
        ("", "abc:1:2", 400, "bad_cursor"),
        ("?since=E:99", None, 400, "bad_position"),
        ("?since=E:1&tail=1", None, 400, "bad_request"),
        ("?tail=1001", None, 400, "bad_request"),
        ("?wait=1", None, 400, "bad_request"),
    ],
)
async def test_events_bad_cursor(
    nursery: Nursery,
    autojump_clock: MockClock,
    query: str,
    last_id: str | None,
    status: int,
    code: str,
) -> None:
    """A stream that cannot begin does not: the answer says what was expected."""
    async with memory_server() as server:
        query = query.replace("E", await fill(server, 1, 3))
        answer = await ask(server, nursery, "GET", f"{A}/events{query}", Last_Event_ID=last_id)
        assert (answer.status, answer.code) == (status, code)
        assert server.statistics().opened == 0


async def test_events_signs_of_life(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A quiet stream says now and then that it lives, and does not count as idle."""
    async with memory_server() as server:
        epoch = await fill(server, 1, 1)
        events = await watch(server, nursery)
        assert is_log(await events.next(), epoch, 1)
        started = trio.current_time()
        nursery.start_soon(_later, server, 10 * SIGN_OF_LIFE + 400)
        event = await events.next()
        assert event is not None
        assert trio.current_time() - started == pytest.approx(10 * SIGN_OF_LIFE + 400, abs=1)
        assert events.comments == (10 * SIGN_OF_LIFE + 400) // SIGN_OF_LIFE


async def _later(server: triows.Server, seconds: float) -> None:
    await trio.sleep(seconds)
    await fill(server, 2, 2)


async def test_events_say_when_to_come_back(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Each stream is given its own pause, so that not all come back at the same instant."""
    async with memory_server() as server:
        await fill(server, 1, 1)
        pauses = set()
        for _ in range(5):
            event = await (await watch(server, nursery)).next()
            assert event is not None
            assert 1000 <= int(event.retry) <= 5000
            pauses.add(event.retry)
        assert len(pauses) > 1


async def test_events_are_a_connection(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A stream is counted, listed, present and announced as a WebSocket is."""
    async with memory_server(limits=triows.Limits(max_connections=2)) as server:
        await fill(server, 1, 3)
        admin = await connect(server, nursery, ADMIN)
        await admin.ask("subscribe", id="1", channel="system:connections")
        events = await watch(server, nursery)
        for _ in range(3):
            await events.next()
        opened = await admin.hear()
        mine = server.connections()[1]
        assert (opened["data"]["event"], opened["data"]["connection"]) == ("opened", mine.id)
        assert (mine.user, mine.peer, mine.state) == ("me", "test", "open")
        assert (mine.channels, mine.sent_messages, mine.lag) == (("session:1",), 3, 0)
        assert mine.sent_bytes > 300
        present = (await ask(server, nursery, "GET", f"{A}/presence")).body["connections"]
        assert [p["connection"] for p in present] == [mine.id]
        full = await ask(server, nursery, "GET", f"{A}/events")
        assert (full.status, full.code) == (503, "unavailable")
        assert full.headers["retry-after"] == "5"
        gone = await ask(server, nursery, "DELETE", f"/api/connections/{mine.id}", bearer=ADMIN)
        assert gone.status == 204
        (last,) = await events.all()
        assert (last.type, last.data["code"]) == ("close", 4503)
        assert (await admin.hear())["data"]["code"] == 4503
        assert server.closed_connections()[-1].last.sent_messages == 3
        await watch(server, nursery)


async def test_events_too_many_of_one_user(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The newest wins, whatever the door."""
    async with memory_server(limits=triows.Limits(max_connections_per_user=1)) as server:
        await fill(server, 1, 1)
        events = await watch(server, nursery)
        assert await events.next() is not None
        peer = await connect(server, nursery)
        (last,) = await events.all()
        assert (last.data["code"], last.data["reconnect"]) == (4504, False)
        await watch(server, nursery)
        assert await peer.close_code() == 4504


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("how", ["revoke", "expire", "disconnect"])
async def test_events_are_cut(
    nursery: Nursery, autojump_clock: MockClock, how: str, reads: bool
) -> None:
    """Whoever may not watch any more is rid of within a second, reading or not."""
    bearer = token("me", ttl=20, **ALL) if how == "expire" else token("me", **ALL)
    async with memory_server(limits=triows.Limits(write_timeout=100)) as server:
        await fill(server, 1, 1)
        events = await watch(server, nursery, bearer=bearer, narrow=not reads)
        if reads:
            assert await events.next() is not None
        else:
            await wait_all_tasks_blocked()
        (mine,) = server.connections()
        if how == "revoke":
            assert await server.revoke(user="me") == 1
        elif how == "disconnect":
            assert server.disconnect(mine.id)
        else:
            await trio.sleep(20)
        await fill(server, 2, 2)
        if reads:
            (last,) = await events.all()  # and not the message that came after
            assert last.data["code"] == (4000 if how == "expire" else 4503)
            assert last.data["reconnect"] == (how == "expire")
        await trio.sleep(1.01)
        assert not server.connections()
        assert not server._hub.subscribers("session:1")
        assert server.closed_connections()[0].code == (4000 if how == "expire" else 4503)


async def test_events_that_nobody_reads(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A reader that never reads is cut after `limits.write_timeout`, and the record says so."""
    async with memory_server(limits=triows.Limits(write_timeout=7)) as server:
        await fill(server, 1, 1)
        await watch(server, nursery, narrow=True)
        await wait_all_tasks_blocked()
        await trio.sleep(6.9)
        assert server.connections()
        await trio.sleep(0.5)
        (closed,) = server.closed_connections()
        assert (closed.code, closed.reason) == (4004, "the peer took nothing for 7 s")
        assert not server._hub.subscribers("session:1")


async def test_events_of_a_peer_that_is_gone(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A reader that hangs up is gone at once, without a message that would show it."""
    async with memory_server() as server:
        await fill(server, 1, 1)
        events = await watch(server, nursery)
        await events.next()
        await trio.aclose_forcefully(events.caller.peer.stream)
        await wait_all_tasks_blocked()
        (closed,) = server.closed_connections()
        assert closed.code == 1006
        assert not server._hub.subscribers("session:1")
        assert not server._registry.guests


async def test_events_drain(nursery: Nursery, autojump_clock: MockClock) -> None:
    """At a drain each stream gets what is its own, then when to come back, and ends."""
    async with memory_server() as server:
        epoch = await fill(server, 1, 3)
        events = await watch(server, nursery)
        server.drain()
        seen = await events.all()
        assert [e.type for e in seen] == ["log", "log", "log", "reconnect"]
        assert seen[-1].data["reason"] == "restart"
        assert int(seen[-1].retry) == round(seen[-1].data["after"] * 1000)
        assert (seen[-1].id, seen[2].id) == ("", f"{epoch}:3")
        refused = await ask(server, nursery, "GET", f"{A}/events")
        assert (refused.status, refused.code) == (503, "unavailable")
        assert server.closed_connections()[0].code == 1012


async def test_events_revoked_while_the_authorizer_thinks(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A token that is revoked before the authorizer has answered opens no stream."""

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
        await server.revoke(user=identity.user)
        return True

    async with memory_server(authorize=authorize) as server:
        await fill(server, 1, 1)
        answer = await ask(server, nursery, "GET", f"{A}/events")
        assert (answer.status, server.statistics().opened) == (401, 0)


async def test_events_of_a_large_log(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A long history comes whole, in order, piece by piece, while others are served."""
    async with memory_server() as server:
        await fill(server, 1, 1)
        for _ in range(100):
            await server.publish("session:1", triows.log("x" * 10_000))
        await server.publish("session:1", triows.end())
        events = await watch(server, nursery, "?tail=1000")
        seen = await events.all()
        assert [e.data["offset"] for e in seen] == list(range(1, 103))


@pytest.mark.parametrize(
    "data", ['{"a":\n1}', '{"a":\r1}', '{"a"\r\n:\n\n1}', "1", '"é\u2028\x85"']
)
def test_line_breaks_in_json(data: str) -> None:
    """JSON with line breaks between its parts stays one event, and the same JSON."""
    message = Message("log", data.encode())
    text = frame_payload(encode_published(message, published_head("session:1"), 1, clock.now()))
    lines = _event("log\nid: evil", "e:1", text).decode().removesuffix("\n\n").split("\n")
    assert lines[:2] == ["id: e:1", "event: log id: evil"]
    assert all(line.startswith("data: ") and "\r" not in line for line in lines[2:])
    found: Any = json.loads("\n".join(line.removeprefix("data: ") for line in lines[2:]))
    assert found["data"] == json.loads(data)


async def test_events_of_an_engine_that_fails(
    nursery: Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What goes wrong in the server ends a stream with 1011, and is logged; it is not a stop."""
    async with memory_server() as server:
        await fill(server, 1, 1)
        events = await watch(server, nursery)
        assert await events.next() is not None

        async def fail(*where: Any) -> list[bytes]:
            await trio.lowlevel.checkpoint()
            raise ValueError("a bug")

        monkeypatch.setattr(server._bus, "history", fail)
        await fill(server, 2, 2)
        await wait_all_tasks_blocked()
        closed = server.closed_connections()[-1]
        assert (closed.code, closed.reason) == (1011, "the server failed")
        assert "a bug" in caplog.text
        assert not server.connections()
