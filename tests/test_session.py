"""The protocol of one connection, over memory streams."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, connect, frame, memory_server, token
from triows import Request

A, B = "session:a", "session:b"


def _offsets(messages: list[Any]) -> list[int]:
    return [m["offset"] for m in messages]


async def test_subscriber_gets_what_is_published(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A published message reaches a subscriber with channel, offset, timestamp and its data."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        ack = await peer.ask("subscribe", id="1", channel=A)
        position = await server.publish(A, triows.log({"a": 1}, id="x"))
        message = await peer.hear()

        assert (ack["type"], ack["id"], ack["channel"]) == ("ack", "1", A)
        assert ack["data"] == {"epoch": position.epoch, "offset": 0, "earliest": 1, "ended": None}
        assert message.pop("timestamp").endswith("Z")
        assert message == {"type": "log", "id": "x", "channel": A, "offset": 1, "data": {"a": 1}}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({}, [4]),
        ({"tail": 0}, [4]),
        ({"tail": 2}, [2, 3, 4]),
        ({"tail": 10**20}, [1, 2, 3, 4]),
        ({"from": "start"}, [1, 2, 3, 4]),
        ({"since": 0}, [1, 2, 3, 4]),
        ({"since": 2, "on_lag": "latest", "newer": "member"}, [3, 4]),
        ({"since": 3}, [4]),
    ],
)
async def test_subscribe_begins_where_asked(
    nursery: Nursery, autojump_clock: MockClock, start: dict[str, Any], expected: list[int]
) -> None:
    """`since`, `tail` and `from` say with which message a subscription begins."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        for i in range(3):
            position = await server.publish(A, triows.log(i))
        if "since" in start:
            start = {**start, "since": {"epoch": position.epoch, "offset": start["since"]}}
        ack = await peer.ask("subscribe", channel=A, data=start)
        await server.publish(A, triows.log(3))

        assert ack["data"]["offset"] == 3
        assert _offsets(await peer.hear_all()) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"tail": 1, "from": "start"}, "bad_request"),
        ({"tail": 1, "since": {"epoch": "x", "offset": 0}}, "bad_request"),
        ({"tail": -1}, "bad_request"),
        ({"tail": "1"}, "bad_request"),
        ({"from": "end"}, "bad_request"),
        ({"since": {"epoch": "x", "offset": -1}}, "bad_request"),
        ({"since": {"epoch": 1, "offset": 1}}, "bad_request"),
        ({"since": {"epoch": "x"}}, "bad_request"),
        ({"since": {"epoch": None, "offset": 2}}, "bad_position"),
        ({"on_lag": "wait"}, "bad_request"),
        ([], "bad_request"),
    ],
)
async def test_subscribe_refuses_nonsense(
    nursery: Nursery, autojump_clock: MockClock, data: Any, code: str
) -> None:
    """A subscription that says nonsense is refused, and one that was there before stays."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        position = await server.publish(A, triows.log(0))
        await peer.ask("subscribe", channel=A)
        if code == "bad_position":
            data["since"]["epoch"] = position.epoch
        error = await peer.ask("subscribe", id="1", channel=A, data=data)
        await server.publish(A, triows.log(1))

        assert (error["type"], error["id"], error["channel"]) == ("error", "1", A)
        assert (error["data"]["code"], error["data"]["retry"]) == (code, False)
        assert _offsets(await peer.hear_all()) == [2]


async def test_resubscribing_replaces(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Subscribing again begins anew, and nothing comes twice from then on."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        await server.publish(A, triows.log(0))
        await peer.hear()
        await peer.ask("subscribe", channel=A, data={"from": "start"})
        await server.publish(A, triows.log(1))

        assert _offsets(await peer.hear_all()) == [1, 2]
        assert len(server.connections()[0].channels) == 1


async def test_unsubscribe(nursery: Nursery, autojump_clock: MockClock) -> None:
    """After an unsubscribe nothing comes any more; what is not watched cannot be left."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        ack = await peer.ask("unsubscribe", id="1", channel=A)
        await server.publish(A, triows.log(0))

        assert (ack["type"], ack["id"]) == ("ack", "1")
        assert await peer.hear_all() == []
        error = await peer.ask("unsubscribe", id="2", channel=A)
        assert (error["id"], error["data"]["code"]) == ("2", "not_subscribed")


async def test_subscriptions_are_limited(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One channel too many is refused; one that is watched already may be watched anew."""
    async with memory_server(limits=triows.Limits(max_subscriptions=1)) as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        error = await peer.ask("subscribe", channel=B)
        again = await peer.ask("subscribe", channel=A)

        assert error["data"]["code"] == "too_many_subscriptions"
        assert again["type"] == "ack"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, [1, 2, 3, 4, 5]),
        ({"limit": 2}, [4, 5]),
        ({"from": 2, "to": 3}, [2, 3]),
        ({"from": 2, "limit": 2}, [2, 3]),
        ({"to": 3, "limit": 2}, [2, 3]),
        ({"from": -3, "to": 1}, [1]),
        ({"from": 4, "to": 2}, []),
        ({"from": 9}, []),
        ({"to": 0}, []),
    ],
)
async def test_history_range(
    nursery: Nursery, autojump_clock: MockClock, data: Any, expected: list[int]
) -> None:
    """`history` answers with a range, both ends inclusive, or the newest `limit`."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        for i in range(1, 6):
            position = await server.publish(A, triows.log(i))
        fields = {} if data is None else {"data": data}
        ack = (await peer.ask("history", id="1", channel=A, **fields))["data"]

        assert _offsets(ack["messages"]) == expected == [m["data"] for m in ack["messages"]]
        assert (ack["epoch"], ack["offset"], ack["earliest"]) == (position.epoch, 5, 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"limit": 0}, "bad_request"),
        ({"limit": 1001}, "bad_request"),
        ({"from": "1"}, "bad_request"),
        ({"epoch": "another"}, "bad_position"),
    ],
)
async def test_history_refuses_nonsense(
    nursery: Nursery, autojump_clock: MockClock, data: Any, code: str
) -> None:
    """A range that says nonsense, or is of another epoch, is refused."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        error = await peer.ask("history", id="1", channel=A, data=data)
        assert (error["type"], error["id"], error["data"]["code"]) == ("error", "1", code)


async def test_data_passes_byte_for_byte(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Nobody encodes `data` again: viewers, `history` and `pong` have the publisher's bytes."""
    data = '{ "b":1.50e0,\t"a" : [ ] , "a":"\\u00e9é\\/" }'
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        await peer.send(frame(f'{{"type":"log", "data" : {data} ,"channel":"{A}"}}'))
        published = await peer.receive()
        await peer.say("history", channel=A)
        history = await peer.receive()
        await peer.send(frame(f'{{"data":{data},"type":"ping"}}'))
        pong = await peer.receive()

        for _, payload in (published, history, pong):
            assert data in payload.decode()


async def test_history_pages_by_bytes(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A page ends before it grows large, and `next` says where the following one begins."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        for i in range(5):
            await server.publish(A, triows.log(str(i) * 100_000))
        pages: list[list[int]] = []
        following: Any = 1
        while following is not None:
            page = await peer.ask("history", channel=A, data={"from": following, "to": 5})
            pages.append(_offsets(page["data"]["messages"]))
            following = page["data"]["next"]

        assert pages == [[1, 2], [3, 4], [5]]


async def test_presence_names_subscribers(nursery: Nursery, autojump_clock: MockClock) -> None:
    """`presence` says which connections watch a channel, and whose they are."""
    async with memory_server() as server:
        peers = [await connect(server, nursery, token(name, **ALL)) for name in ("ann", "bob")]
        for peer in peers:
            await peer.ask("subscribe", channel=A)
        answer = (await peers[0].ask("presence", id="1", channel=A))["data"]
        nobody = (await peers[0].ask("presence", id="2", channel=B))["data"]

        assert nobody == {"count": 0, "connections": []}
        assert answer["count"] == 2
        assert [(p["connection"], p["user"]) for p in answer["connections"]] == [
            (c.id, c.user) for c in server.connections()
        ]


async def test_ping_tells_positions(nursery: Nursery, autojump_clock: MockClock) -> None:
    """`pong` has the same data, and where each watched log stands."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        position = await server.publish(A, triows.log(0))
        await peer.ask("subscribe", channel=A)
        pong = await peer.ask("ping", id="1", data=[1, {}])
        bare = await peer.ask("ping")

        assert (pong["type"], pong["id"], pong["data"]) == ("pong", "1", [1, {}])
        assert pong["positions"] == {A: {"epoch": position.epoch, "offset": 1}}
        assert "data" not in bare


async def test_unknown_members_are_ignored(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A member that a newer client may send does no harm; a type nobody knows is an error."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        assert (await peer.ask("ping", id="1", colour="red", offset=7))["type"] == "pong"
        error = await peer.ask("dance", id="2")
        assert (error["id"], error["data"]["code"]) == ("2", "unknown_type")


async def test_disconnect_and_statistics(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Connections are listed, can be ended by id, and what ended them can be looked up."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        await server.publish(A, triows.log(0))
        await peer.hear()
        (mine,) = server.connections()

        assert (mine.user, mine.peer, mine.state, mine.channels) == ("me", "test", "open", (A,))
        assert (mine.received_messages, mine.sent_messages, mine.lag) == (1, 1, 0)
        assert not server.disconnect("nobody")
        assert server.disconnect(mine.id, "go away")
        assert await peer.close_code() == 4503
        await trio.sleep(server.settings.limits.close_timeout)
        await wait_all_tasks_blocked()

        (closed,) = server.closed_connections()
        assert (closed.last.id, closed.code, closed.reason) == (mine.id, 4503, "go away")
        assert server.connections() == []
        statistics = server.statistics()
        assert (statistics.connections, statistics.opened, statistics.closed) == (0, 1, {4503: 1})


@pytest.mark.parametrize("type", ["log", "status", "event", "command", "end"])
async def test_publish(nursery: Nursery, autojump_clock: MockClock, type: str) -> None:
    """What a client publishes is kept, delivered, and acknowledged if it has an id."""
    async with memory_server() as server:
        peer, viewer = await connect(server, nursery), await connect(server, nursery)
        await viewer.ask("subscribe", channel=A)
        if type != "end":
            await peer.say(type, channel=A, data={"n": 0})
        ack = await peer.ask(type, id="x", channel=A, data={"exit_code": 1})
        *_, message = await viewer.hear_all()

        assert (ack["type"], ack["id"], ack["channel"]) == ("ack", "x", A)
        assert ack["data"]["offset"] == message["offset"] == (1 if type == "end" else 2)
        assert (message["type"], message["id"], message["channel"]) == (type, "x", A)
        assert message["data"] == {"exit_code": 1}
        assert await peer.hear_all() == []


async def test_same_id_is_published_once(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A repeated id gets the first answer; ids of another user are their own."""
    async with memory_server() as server:
        mine, again = await connect(server, nursery), await connect(server, nursery)
        other = await connect(server, nursery, token("other", **ALL))
        viewer = await connect(server, nursery)
        await viewer.ask("subscribe", channel=A)
        acks = [await p.ask("log", id="x", channel=A, data=1) for p in (mine, mine, again)]
        another = await other.ask("log", id="x", channel=A, data=2)
        elsewhere = await mine.ask("log", id="x", channel=B, data=1)

        assert [a["data"] for a in acks] == [acks[0]["data"]] * 3
        assert (another["data"]["offset"], elsewhere["data"]["offset"]) == (2, 1)
        assert [m["data"] for m in await viewer.hear_all()] == [1, 2]


async def test_nothing_follows_the_end(nursery: Nursery, autojump_clock: MockClock) -> None:
    """After `end` publishing is refused; repeating the `end` itself is not."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        bad = await peer.ask("end", id="0", channel=A, data={"exit_code": "x"})
        ack = await peer.ask("end", id="1", channel=A, data={"exit_code": 3, "more": [1]})
        error = await peer.ask("log", id="2", channel=A, data="late")
        again = await peer.ask("end", id="1", channel=A, data={"exit_code": 3})
        subscribed = await peer.ask("subscribe", channel=A)

        assert bad["data"]["code"] == "bad_request"
        assert error["data"]["code"] == "ended"
        assert again["data"] == ack["data"]
        assert subscribed["data"]["ended"] == {"exit_code": 3, "more": [1]}
        assert subscribed["data"]["offset"] == 1
        with pytest.raises(triows.RequestError, match="has ended"):
            await server.publish(A, triows.log(1))


@pytest.mark.parametrize(
    "channel", ["nope", "session:", "Session:1", "session:a b", "session:é", "session:" + "a" * 248]
)
@pytest.mark.parametrize("type", ["subscribe", "unsubscribe", "history", "presence", "log"])
async def test_bad_channel(
    nursery: Nursery, autojump_clock: MockClock, type: str, channel: str
) -> None:
    """A name that is no channel is refused, and so is a request that needs one and has none."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        error = await peer.ask(type, id="1", channel=channel)
        missing = await peer.ask(type, id="2")
        assert (error["id"], error["data"]["code"]) == ("1", "bad_channel")
        assert (missing["id"], missing["data"]["code"]) == ("2", "bad_request")


GRANTED = {"subscribe": "subscribe", "history": "subscribe", "presence": "presence"}
GRANTED |= {"log": "publish", "end": "publish", "command": "command"}


@pytest.mark.parametrize(("type", "grant"), GRANTED.items())
async def test_without_grant(
    nursery: Nursery, autojump_clock: MockClock, type: str, grant: str
) -> None:
    """Each request needs its own grant for its own channel; refused, it has done nothing."""
    others = {name: ["*"] for name in ALL if name != grant}
    async with memory_server() as server:
        peer = await connect(server, nursery, token("me", **others, **{grant: [A]}))
        before = server.statistics()
        error = await peer.ask(type, id="1", channel=B)
        after = server.statistics()
        allowed = await peer.ask(type, id="2", channel=A)

        assert (error["id"], error["data"]["code"]) == ("1", "forbidden")
        assert (after.published, after.channels) == (before.published, before.channels)
        assert allowed["type"] == "ack"


async def test_system_channel(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Everybody may listen to `system`; only the server and tokens that name it may publish."""
    async with memory_server() as server:
        anybody = await connect(server, nursery, token("anybody", publish=["*"]))
        named = await connect(server, nursery, token("named", publish=["system"]))
        assert (await anybody.ask("subscribe", channel="system"))["type"] == "ack"
        assert (await anybody.ask("log", channel="system"))["data"]["code"] == "forbidden"
        await named.ask("log", id="1", channel="system", data=1)
        await server.publish("system", triows.log(2))
        assert [m["data"] for m in await anybody.hear_all()] == [1, 2]


async def test_life_cycle_is_for_administrators(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Openings and ends of connections are events that administrators can watch."""
    async with memory_server() as server:
        admin = await connect(server, nursery, token("admin", admin=True))
        peer = await connect(server, nursery)
        error = await peer.ask("subscribe", channel="system:connections")
        assert error["data"]["code"] == "forbidden"
        await admin.ask("subscribe", channel="system:connections")
        third = await connect(server, nursery, token("third", **ALL))
        id = server.connections()[-1].id
        await third.stream.aclose()
        opened, closed = (m["data"] for m in await admin.hear_all())

        assert opened == {"event": "opened", "connection": id, "user": "third"}
        assert closed.pop("reason")
        assert closed == {"event": "closed", "connection": id, "user": "third", "code": 1006}


async def test_command_handler(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A command is published and handled once; what the handler returns is in the `ack`."""
    seen: list[Request] = []

    async def steer(request: Request) -> Any:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return {"done": request.message.data}

    async with memory_server(on_command=steer) as server:
        peer, viewer = await connect(server, nursery), await connect(server, nursery)
        await viewer.ask("subscribe", channel=A)
        ack = await peer.ask("command", id="1", channel=A, data="stop")
        again = await peer.ask("command", id="1", channel=A, data="stop")
        await peer.say("command", channel=A, data="silent")
        (first, second) = await viewer.hear_all()

        assert ack["data"].pop("result") == {"done": "stop"}
        assert ack["data"]["offset"] == again["data"]["offset"] == first["offset"] == 1
        assert second["data"] == "silent"
        assert [r.message.data for r in seen] == ["stop", "silent"]
        assert (seen[0].identity.user, seen[0].connection) == ("me", server.connections()[0].id)
        assert seen[0].position is not None
        assert seen[0].position.offset == 1
        assert await peer.hear_all() == []


async def _raise(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise ValueError("secret detail")


async def _refuse(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise triows.RequestError(triows.ErrorCode.NOT_FOUND, "no such thing")


async def _hang(request: Request) -> Any:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "code", "after"),
    [(_raise, "handler_failed", 0), (_refuse, "not_found", 0), (_hang, "handler_failed", 3)],
)
async def test_handler_fails(
    nursery: Nursery, autojump_clock: MockClock, handler: triows.Handler, code: str, after: float
) -> None:
    """A handler that fails is an `error` to who asked, in time, and nothing to anybody else."""
    limits = triows.Limits(handler_timeout=3)
    async with memory_server(limits=limits, handlers={"app": handler}) as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        started = trio.current_time()
        await peer.say("app", id="1")
        assert (await other.ask("ping"))["type"] == "pong"
        error = await peer.hear()

        assert (error["id"], error["data"]["code"]) == ("1", code)
        assert trio.current_time() - started == pytest.approx(after)
        assert "secret detail" not in str(error)
        assert (await peer.ask("ping"))["type"] == "pong"


async def test_custom_types(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A type of the application's own is handled, acknowledged if it has an id, not published."""

    async def answer(request: Request) -> Any:
        await trio.lowlevel.checkpoint()
        assert request.position is None
        return [request.message.data, request.message.channel]

    async with memory_server(handlers={"app": answer}) as server:
        peer = await connect(server, nursery)
        before = server.statistics().published
        await peer.say("app", data="silent")
        ack = await peer.ask("app", id="1", channel=A, data=7)
        assert (ack["type"], ack["id"], ack["data"]) == ("ack", "1", [7, A])
        assert server.statistics().published == before


async def test_too_many_wait_for_the_handler(nursery: Nursery, autojump_clock: MockClock) -> None:
    """While the application is slow a client may have some messages wait, not endlessly many."""
    go_on = trio.Event()

    async def slow(request: Request) -> Any:
        await go_on.wait()

    async with memory_server(handlers={"app": slow}) as server:
        peer = await connect(server, nursery)
        for i in range(40):
            await peer.say("app", id=str(i))
        errors = await peer.hear_all()
        go_on.set()
        acks = await peer.hear_all()

        assert {(e["data"]["code"], e["data"]["retry"]) for e in errors} == {("unavailable", True)}
        assert 10 < len(acks) < 20
        assert sorted(int(m["id"]) for m in [*errors, *acks]) == list(range(40))


@pytest.mark.parametrize(
    ("verdict", "bearer", "expected", "after"),
    [
        (True, token("me", publish=["system"]), "ack", 0),
        (False, token(), "error", 0),
        ("yes", token(), "error", 0),
        (ValueError, token(), "error", 0),
        ("hang", token(), "error", 3),
    ],
    ids=range(5),
)
async def test_authorize_replaces_grants(
    nursery: Nursery,
    autojump_clock: MockClock,
    verdict: Any,
    bearer: str,
    expected: str,
    after: float,
) -> None:
    """An application's own check decides; one that fails or does not answer is a no."""
    asked = []

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
        asked.append((identity.user, action, channel))
        if verdict == "hang":
            await trio.sleep_forever()
        if verdict is ValueError:
            raise ValueError
        return verdict  # type: ignore[no-any-return]

    limits = triows.Limits(handler_timeout=3)
    async with memory_server(limits=limits, authorize=authorize) as server:
        peer = await connect(server, nursery, bearer)
        started = trio.current_time()
        answer = await peer.ask("log", id="1", channel=A)

        assert asked == [("me", "publish", A)]
        assert answer["type"] == expected
        assert expected == "ack" or answer["data"]["code"] == "forbidden"
        assert trio.current_time() - started == pytest.approx(after)
