"""What a client publishes: kept once, acknowledged, and refused without a trace."""

from __future__ import annotations

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, connect, frame, memory_server, token

A, B = "session:a", "session:b"


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


@pytest.mark.parametrize("silent", [False, True])
async def test_revoked_publishes_nothing(
    nursery: Nursery, autojump_clock: MockClock, silent: bool
) -> None:
    """What the revoked had sent but the server not yet read is not published any more."""
    async with memory_server() as server:
        viewer = await connect(server, nursery, token("viewer", **ALL))
        await viewer.ask("subscribe", channel=A)
        peer = await connect(server, nursery, token("bad", **ALL))
        fields = "" if silent else '"id":"x",'
        text = f'{{"type":"log",{fields}"channel":"{A}","data":%d}}'
        assert silent or (await peer.ask("log", id="first", channel=A))["type"] == "ack"
        before = server.statistics().published
        nursery.start_soon(peer.send, b"".join(frame(text % i) for i in range(50)))
        assert await server.revoke(user="bad") == 1
        await wait_all_tasks_blocked()
        assert server.statistics().published == before
        await peer.send(frame(text % 99))
        await wait_all_tasks_blocked()
        assert [m["id"] for m in await viewer.hear_all()] == ([] if silent else ["first"])
        assert await peer.close_code() == 4503


@pytest.mark.parametrize("type", ["ping", "ack", "error", "gap", "subscribe", "reconnect"])
async def test_server_publishes_no_reserved_type(
    nursery: Nursery, autojump_clock: MockClock, type: str
) -> None:
    """What means something to a client's own protocol cannot be published by mistake."""
    async with memory_server() as server:
        for made in (triows.message(type), triows.log(1, id="x" * 65)):
            with pytest.raises(triows.RequestError) as caught:
                await server.publish(A, made)
            assert caught.value.code == "bad_request"
        assert (await server.publish(A, triows.message("own", id="x" * 64))).offset == 1
