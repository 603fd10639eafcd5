"""The clocks of a connection: is the peer there, is it busy, is it still allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import (
    ALL,
    CLOSE,
    PING,
    PONG,
    Nursery,
    Peer,
    connect,
    dial,
    frame,
    memory_server,
    request_head,
    token,
)
from triows.testing import Network, open_site

A, B = "session:a", "session:b"
LIMITS = triows.Limits(ping_interval=30, pong_timeout=10, idle_timeout=300, close_timeout=1)
Act = Callable[[Peer], Awaitable[None]]


async def _ping_message(peer: Peer) -> None:
    await peer.say("ping")


async def _half_a_frame(peer: Peer) -> None:
    await peer.send(frame("x" * 100)[:20])


async def _foreign_pong(peer: Peer) -> None:
    await peer.send(frame(b"another payload", PONG))


async def _be_good(peer: Peer, seen: list[tuple[int, bytes]]) -> None:
    """Answer pings and closes as every client does, and note down everything else."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == PING:
            await peer.send(frame(payload, PONG))
            continue
        seen.append((opcode, payload))
        if opcode == CLOSE:
            if payload:
                await peer.send(frame(payload, CLOSE))
            return


def _code(seen: list[tuple[int, bytes]]) -> int:
    opcode, payload = seen[-1]
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


async def test_pings_come_at_intervals(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The server pings every `ping_interval`, counted from the pong, and measures."""
    async with memory_server(limits=LIMITS) as server:
        peer, times = await connect(server, nursery), [trio.current_time()]
        assert server.connections()[0].round_trip is None
        for _ in range(3):
            opcode, payload = await peer.receive()
            assert opcode == PING
            await trio.sleep(2)
            await peer.send(frame(payload, PONG))
            times.append(trio.current_time())
        await wait_all_tasks_blocked()

        assert [b - a for a, b in pairwise(times)] == pytest.approx([32] * 3)
        assert server.connections()[0].round_trip == pytest.approx(2)


async def test_no_pong(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A peer that says nothing at all after a ping is closed with 4002."""
    async with memory_server(limits=LIMITS) as server:
        peer, started = await connect(server, nursery), trio.current_time()
        assert (await peer.receive())[0] == PING
        assert await peer.close_code() == 4002
        assert trio.current_time() - started == pytest.approx(40)


@pytest.mark.parametrize("act", [_ping_message, _half_a_frame, _foreign_pong])
async def test_any_byte_is_a_sign_of_life(
    nursery: Nursery, autojump_clock: MockClock, act: Act
) -> None:
    """Any byte after a ping says that the peer is there, if not how far away."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery)
        assert (await peer.receive())[0] == PING
        await act(peer)
        await trio.sleep(39)

        (mine,) = server.connections()
        assert (mine.state, mine.round_trip) == ("open", None)
        while (opcode := (await peer.receive())[0]) != CLOSE:
            last = opcode
        assert last == PING


async def test_pings_must_be_answered_at_last(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who never answers a ping is closed with 4002 after the tenth, whatever else it sends; one
    answer in between, and the count begins anew.
    """
    async with memory_server(limits=attrs.evolve(LIMITS, idle_timeout=10_000)) as server:
        peer, pings = await connect(server, nursery), 0
        while (received := await peer.receive())[0] != CLOSE:
            if received[0] == PING:
                pings += 1
                await peer.send(frame(received[1] if pings == 5 else b"wrong", PONG))
                await peer.say("ping")
        assert int.from_bytes(received[1][:2], "big") == 4002
        assert pings == 5 + 10


async def test_idle(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A connection without messages is closed with 4001, whatever its pongs say."""
    async with memory_server(limits=LIMITS) as server:
        peer, started = await connect(server, nursery), trio.current_time()
        seen: list[tuple[int, bytes]] = []
        await _be_good(peer, seen)

        assert _code(seen) == 4001
        assert trio.current_time() - started == pytest.approx(300)


@pytest.mark.parametrize("what", ["requests", "deliveries"])
async def test_busy_is_not_idle(nursery: Nursery, autojump_clock: MockClock, what: str) -> None:
    """A message every now and then, either way, keeps a connection open."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        seen: list[tuple[int, bytes]] = []
        ended = trio.Event()

        async def stay() -> None:
            await _be_good(peer, seen)
            ended.set()

        nursery.start_soon(stay)
        for i in range(4):
            await trio.sleep(299)
            if what == "requests":
                await peer.say("ping")
            else:
                await server.publish(A, triows.log(i))
        await wait_all_tasks_blocked()
        assert len(seen) == 4
        last = trio.current_time()
        await ended.wait()
        assert _code(seen) == 4001
        assert trio.current_time() - last == pytest.approx(300)


async def test_stall_of_the_server_is_not_the_peers(
    nursery: Nursery, mock_clock: MockClock
) -> None:
    """A server that was blocked for long itself does not declare its peers dead: it asks again."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery)
        await wait_all_tasks_blocked()
        mock_clock.jump(30)
        assert (await peer.receive())[0] == PING
        await wait_all_tasks_blocked()
        mock_clock.jump(60)  # at once: the loop was blocked for a minute
        opcode, payload = await peer.receive()
        assert opcode == PING
        await peer.send(frame(payload, PONG))
        await wait_all_tasks_blocked()
        mock_clock.jump(20)
        await wait_all_tasks_blocked()
        assert server.connections()[0].state == "open"

        mock_clock.jump(10)
        assert (await peer.receive())[0] == PING
        await wait_all_tasks_blocked()
        mock_clock.jump(10)  # in time: now it is the peer that says nothing
        assert await peer.close_code() == 4002


async def test_token_expires(nursery: Nursery, autojump_clock: MockClock) -> None:
    """When the token expires the connection is closed with 4000, before another ping."""
    async with memory_server(limits=LIMITS) as server:
        peer, started = await connect(server, nursery, token("me", ttl=20)), trio.current_time()
        assert await peer.close_code() == 4000
        assert trio.current_time() - started == pytest.approx(20, abs=1.5)


async def test_token_expires_during_a_ping(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Waiting for a pong does not put off the end of a token."""
    async with memory_server(limits=LIMITS) as server:
        peer, started = await connect(server, nursery, token("me", ttl=35)), trio.current_time()
        assert await peer.close_code() == 4000
        assert trio.current_time() - started == pytest.approx(35, abs=1.5)


async def test_token_is_shortened_during_a_ping(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A new token that expires earlier counts, also while a pong is waited for."""
    limits = attrs.evolve(LIMITS, pong_timeout=100)
    async with memory_server(limits=limits) as server:
        peer, started = await connect(server, nursery), trio.current_time()
        assert (await peer.receive())[0] == PING
        bearer = token("me", **ALL, ttl=20)
        assert (await peer.ask("auth", data={"token": bearer}))["type"] == "auth"
        assert await peer.close_code() == 4000
        assert trio.current_time() - started == pytest.approx(50, abs=1.5)


async def test_token_is_prolonged_during_a_ping(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A new token that expires later counts, too, and the missing pong still does."""
    async with memory_server(limits=LIMITS) as server:
        peer, started = await connect(server, nursery, token("me", **ALL, ttl=35)), 0.0
        started = trio.current_time()
        assert (await peer.receive())[0] == PING
        bearer = token("me", **ALL, ttl=1000)
        assert (await peer.ask("auth", data={"token": bearer}))["type"] == "auth"
        assert (await peer.receive())[0] == PING  # the renewal was a sign of life
        assert trio.current_time() - started > 60
        assert await peer.close_code() == 4002


@pytest.mark.parametrize(("first", "second"), [(20, 200), (200, 20)])
async def test_renewed_token_counts(
    nursery: Nursery, autojump_clock: MockClock, first: float, second: float
) -> None:
    """A new token's expiry replaces the old one, later or earlier."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery, token("me", **ALL, ttl=first))
        started = trio.current_time()
        answer = await peer.ask("auth", id="1", data={"token": token("me", **ALL, ttl=second)})
        seen: list[tuple[int, bytes]] = []
        await _be_good(peer, seen)

        assert (answer["type"], answer["id"], answer["data"]["user"]) == ("auth", "1", "me")
        assert _code(seen) == 4000
        assert trio.current_time() - started == pytest.approx(second, abs=1.5)


@pytest.mark.parametrize(
    "bearer",
    [token("another", **ALL), token("me", ttl=-5), "gibberish"],
    ids=["another", "expired", "gibberish"],
)
async def test_bad_renewal_changes_nothing(
    nursery: Nursery, autojump_clock: MockClock, bearer: str
) -> None:
    """A token of another user, or a bad one, is refused; the old one goes on to count."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery, token("me", **ALL, ttl=20))
        started = trio.current_time()
        error = await peer.ask("auth", id="1", data={"token": bearer})
        assert (error["id"], error["data"]["code"]) == ("1", "unauthorized")
        assert (await peer.ask("log", id="2", channel=A))["type"] == "ack"
        assert server.connections()[0].user == "me"
        assert await peer.close_code() == 4000
        assert trio.current_time() - started == pytest.approx(20, abs=1.5)


async def test_renewal_checks_subscriptions(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A subscription that the new token does not cover ends with an `error`; others go on."""
    async with memory_server(limits=LIMITS) as server:
        peer = await connect(server, nursery)
        for channel in (A, B):
            await peer.ask("subscribe", channel=channel)
        bearer = token("me", subscribe=[B])
        error = await peer.ask("auth", id="1", data={"token": bearer})
        assert (error["type"], error["channel"], "id" in error) == ("error", A, False)
        assert error["data"]["code"] == "forbidden"
        assert (await peer.hear())["type"] == "auth"
        for channel in (A, B):
            await server.publish(channel, triows.log(1))
        assert [m["channel"] for m in await peer.hear_all()] == [B]
        assert (await peer.ask("log", id="2", channel=B))["data"]["code"] == "forbidden"


@pytest.mark.parametrize("by", ["token", "user"])
@pytest.mark.parametrize("behaviour", ["polite", "silent", "reads nothing", "reads too late"])
async def test_revocation_cuts(
    nursery: Nursery, autojump_clock: MockClock, by: str, behaviour: str
) -> None:
    """Revoked: nothing more is delivered, and whatever the peer does it is gone in a second."""
    bearer = token("bad", **ALL, claims={"jti": "7"})
    async with memory_server(limits=LIMITS) as server:
        other = await connect(server, nursery)
        narrow = behaviour.startswith("reads")
        peer = await connect(server, nursery, bearer, narrow=narrow)
        for watcher in (other, peer):
            await watcher.ask("subscribe", channel=A)
        before = "before" * (20_000 if narrow else 1)
        await server.publish(A, triows.log(before))
        assert narrow or (await peer.hear())["data"] == before
        await wait_all_tasks_blocked()

        by_token = by == "token"
        count = await (server.revoke(token_id="7") if by_token else server.revoke(user="bad"))
        await server.publish(A, triows.log("after"))
        assert count == 1
        seen: list[tuple[int, bytes]] = []
        if behaviour == "reads too late":
            assert await peer.receive() == (CLOSE, b"")
            await wait_all_tasks_blocked()
        elif behaviour == "polite":
            await _be_good(peer, seen)
            await wait_all_tasks_blocked()
        else:
            await trio.sleep(1)
            await wait_all_tasks_blocked()
        assert [c.user for c in server.connections()] == ["me"]
        if behaviour == "silent":
            seen = [await peer.receive()]
        if narrow:  # cut by force, before it has taken what was sent before
            assert await peer.receive() == (CLOSE, b"")
        else:
            assert (len(seen), _code(seen)) == (1, 4503)
        assert server.closed_connections()[-1].code == 4503

        late = dial(server, nursery)
        await late.send(request_head(bearer))
        assert (await late.response())[0] == 401
        assert [m["data"] for m in await other.hear_all()] == [before, "after"]
        assert await server.revoke(user="nobody") == 0


async def test_nothing_follows_a_close_frame(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who is being closed is not told of a drain that begins meanwhile."""
    async with memory_server() as server:
        peer = await connect(server, nursery, token("vic", subscribe=["*"]))
        await server.revoke(user="vic")
        await wait_all_tasks_blocked()  # the close frame is out; its answer is not there yet
        server.drain()
        opcode, payload = await peer.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 4503)

        assert not await peer.stream.receive_some()


async def test_revoked_gets_no_more_when_there_is_room_again(
    triows_clock: MockClock,
) -> None:
    """What a full socket had not taken is not sent, even if it takes more at that very moment."""
    sent: list[bytes] = []
    async with open_site(Network(capacity=500)) as site:
        async with site.connect("vic") as vic, vic.subscribe(A, tail=0) as messages:
            await wait_all_tasks_blocked()
            (link,) = site.network.links
            link.stall("down")
            for _ in range(5):
                await site.server.publish(A, triows.log("x" * 200))
            await wait_all_tasks_blocked()
            link.down.set(capacity=10_000, tap=sent.append)
            assert await site.server.revoke(user="vic") == 1
            await trio.sleep(2)
            assert messages.position is not None

    assert not sent
