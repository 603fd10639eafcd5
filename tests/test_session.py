"""The protocol of one connection, over memory streams."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, connect, frame, memory_server, token

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


@pytest.mark.parametrize(
    ("bounds", "pages"),
    [
        ({"from": 1, "to": 5, "limit": 2}, [[1, 2], [3, 4], [5]]),
        ({"from": 2, "to": 3, "limit": 1}, [[2], [3]]),
        ({"from": 1, "to": 4, "limit": 2}, [[1, 2], [3, 4]]),
        ({"from": 3, "to": 99, "limit": 2}, [[3, 4], [5]]),
        ({"from": 4, "limit": 1}, [[4], [5]]),
        ({"to": 4, "limit": 2}, [[3, 4]]),
        ({"limit": 2}, [[4, 5]]),
    ],
    ids=str,
)
async def test_history_pages_by_limit(
    nursery: Nursery, autojump_clock: MockClock, bounds: dict[str, int], pages: list[list[int]]
) -> None:
    """`next` leads through a whole range, however small `limit` is, and then is null."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        for i in range(5):
            await server.publish(A, triows.log(i))
        found: list[list[int]] = []
        following: Any = bounds.get("from")
        while not found or following is not None:
            data = bounds if following is None else {**bounds, "from": following}
            page = (await peer.ask("history", channel=A, data=data))["data"]
            found.append(_offsets(page["messages"]))
            following = page["next"]
        assert found == pages


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
