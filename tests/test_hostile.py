"""Peers that break rules, flood, stall and vanish: contained, bounded, and told why."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import (
    BINARY,
    CLOSE,
    PING,
    Nursery,
    Peer,
    connect,
    dial,
    frame,
    memory_server,
    run_virtually,
)
from triows.connection import BACKLOG, Connection
from triows.hub import PULL_BYTES

A = "session:a"
DEEP = "[" * 10_000 + "]" * 10_000


def _held(server: triows.Server, at: int = 0) -> int:
    """Return how many bytes a connection holds for its peer."""
    connection = server._registry.members()[at]
    assert isinstance(connection, Connection)
    sender = connection.outgoing
    return sender.reply_size + len(sender._unsent or b"")


async def _is_well(peer: Peer) -> bool:
    answer = await peer.ask("ping", id="well")
    return (answer["type"], answer["id"]) == ("pong", "well")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ('{"type":"ping"}}', "bad_json"),
        ('{"type":"ping","data":NaN}', "bad_json"),
        ('{"type":"ping","data":-Infinity}', "bad_json"),
        ('{"type":"ping","data":01}', "bad_json"),
        ('{"type":"ping","data":"\x01"}', "bad_json"),
        (r'{"type":"ping","data":"\ud800"}', "bad_json"),
        (r'{"type":"ping","id":"\udc00\ud800"}', "bad_json"),
        (f'{{"type":"ping","data":{DEEP}}}', "bad_json"),
        (f'{{"type":"ping","ignored":{DEEP}}}', "bad_json"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ("{}", "bad_request"),
        ('{"type":1}', "bad_request"),
        ('{"type":"ping","id":1}', "bad_request"),
        ('{"type":"ping","channel":{}}', "bad_request"),
        (f'{{"type":"ping","id":"{"x" * 65}"}}', "bad_request"),
        ('{"type":"auth","data":{"token":[]}}', "bad_request"),
        (f'{{"type":"history","channel":"{A}","data":{{"limit":{"9" * 99}}}}}', "bad_request"),
        ('{"type":"Ping"}', "unknown_type"),
        ('{"type":"pong"}', "unknown_type"),
        (f'{{"type":"gap","channel":"{A}"}}', "unknown_type"),
    ],
)
async def test_bad_message(
    nursery: Nursery, autojump_clock: MockClock, text: str, code: str
) -> None:
    """A message that cannot be understood is an `error`, and the connection lives on."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.send(frame(text))
        error = await peer.hear()
        assert (error["type"], error["data"]["code"]) == ("error", code)
        assert error["data"]["retry"] is False
        assert len(error["data"]["message"]) < 500
        assert await _is_well(peer)


async def test_too_many_bad_messages(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who sends nonsense all the time is closed with 4502, who does now and then is not."""
    async with memory_server() as server:
        patient, peer = await connect(server, nursery), await connect(server, nursery)
        for _ in range(40):
            await patient.send(frame("nonsense") * 4)
            with suppress(trio.BrokenResourceError):  # closed already
                await peer.send(frame("nonsense") * 8)
            await trio.sleep(0.5)
        assert await peer.close_code() == 4502
        assert {m["data"]["code"] for m in await patient.hear_all()} == {"bad_json"}
        assert await _is_well(patient)


async def test_nothing_is_done_after_the_last_straw(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """What came along with the message that ends the connection is not done any more."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.send(frame("nonsense") * 150 + frame(f'{{"type":"log","channel":"{A}"}}'))
        assert await peer.close_code() == 4502
        assert server.statistics().channels == 1  # that of life-cycle events


async def test_rate_limit(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A message too many is refused, not done, and told when it may come again."""
    limits = triows.Limits(messages_per_second=2, messages_burst=3)
    async with memory_server(limits=limits) as server:
        peer = await connect(server, nursery)
        for i in range(5):
            await peer.say("log", id=str(i), channel=A)
        answers = await peer.hear_all()
        error = answers[3]["data"]
        assert [m["type"] for m in answers] == ["ack"] * 3 + ["error"] * 2
        assert (error["code"], error["retry"]) == ("rate_limited", True)
        assert 0 < error["retry_after"] <= 0.5
        await trio.sleep(0.5)
        assert (await peer.ask("log", id="3", channel=A))["data"]["offset"] == 4


async def test_rate_of_bytes(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Bytes are limited, too: one large message passes, and delays the next."""
    async with memory_server(limits=triows.Limits(bytes_per_second=1000)) as server:
        peer = await connect(server, nursery)
        assert (await peer.ask("ping", data="x" * 5000))["type"] == "pong"
        error = (await peer.ask("ping"))["data"]
        assert error["code"] == "rate_limited"
        assert error["retry_after"] == pytest.approx(4, abs=0.1)
        await trio.sleep(error["retry_after"] + 0.01)
        assert (await peer.ask("ping"))["type"] == "pong"


async def test_persistent_flood(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who ignores the rate limit is closed with 4005, and others notice nothing."""
    limits = triows.Limits(messages_per_second=10, messages_burst=10)
    async with memory_server(limits=limits) as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        await peer.send(frame('{"type":"ping"}') * 200)
        assert await _is_well(other)
        assert await peer.close_code() == 4005


MEBIBYTE_HEAD = b"\x81\xff" + (1024 * 1024 + 1).to_bytes(8, "big")
RULES = {
    "too big, only its head": (MEBIBYTE_HEAD, 1009),
    "2 ** 62 bytes": (b"\x81\xff\x40" + bytes(7), 1009),
    "invalid UTF-8": (frame(b'{"type":"ping","data":"\xff"}'), 1007),
    "half a character": (frame("é".encode()[:1]), 1007),
    "a surrogate in UTF-8": (frame(b"\xed\xa0\x80"), 1007),
    "binary": (frame(b"{}", BINARY), 1003),
    "continuation without a start": (frame("{}", 0), 1002),
    "a start inside a message": (frame("{", fin=False) + frame("{}"), 1002),
}


@pytest.mark.parametrize("name", RULES)
async def test_broken_rule(nursery: Nursery, autojump_clock: MockClock, name: str) -> None:
    """Who breaks a rule of RFC 6455 is told which, at once, and is closed; others live on."""
    data, code = RULES[name]
    async with memory_server() as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        started = trio.current_time()
        await peer.send(data)
        assert await peer.close_code() == code
        assert trio.current_time() == started
        await trio.sleep(server.settings.limits.close_timeout)
        await wait_all_tasks_blocked()
        assert [c.code for c in server.closed_connections()] == [code]
        assert await _is_well(other)


BROKEN = {
    "reserved bit 1": b"\xc1" + frame("{}")[1:],
    "reserved bit 3": b"\x91" + frame("{}")[1:],
    "unknown data opcode": frame("{}", 0x3),
    "unknown control opcode": frame("", 0xB),
    "unmasked": b"\x81\x02{}",
    "fragmented ping": frame("", PING, fin=False),
    "long ping": frame("x" * 126, PING),
    "close with half a code": frame(b"\x03", CLOSE),
    "close with a bad code": frame((1005).to_bytes(2, "big"), CLOSE),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_frame(nursery: Nursery, autojump_clock: MockClock, name: str) -> None:
    """What is no frame at all ends the connection with 1002, and nothing after it is read."""
    async with memory_server() as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        await peer.send(BROKEN[name] + frame(f'{{"type":"log","channel":"{A}"}}'))
        while (await peer.receive())[0] != CLOSE:
            pass
        await trio.sleep(server.settings.limits.close_timeout)
        await wait_all_tasks_blocked()
        assert [c.code for c in server.closed_connections()] == [1002]
        assert server.statistics().channels == 1  # that of life-cycle events
        assert await _is_well(other)


@pytest.mark.parametrize("size", [0, 1000])
async def test_endless_fragments(nursery: Nursery, autojump_clock: MockClock, size: int) -> None:
    """A message in endless pieces is closed with 1009, however small they are."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.send(frame("", fin=False))
        await peer.send(frame("x" * size, 0, fin=False) * 2000)
        assert await peer.close_code() == 1009


async def test_fragments_and_pings_mix(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A ping amid a fragmented message is answered first, and the message is whole."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        parts = [frame('{"type":"pi', fin=False), frame("now", PING), frame('ng"}', 0)]
        await peer.send(b"".join(parts))
        assert await peer.receive() == (0xA, b"now")
        assert (await peer.hear())["type"] == "pong"


@pytest.mark.parametrize(
    "what", [frame("x" * 100, PING), frame('{"type":"ping","data":"xxx"}')], ids=["control", "text"]
)
async def test_asks_and_does_not_read(
    nursery: Nursery, autojump_clock: MockClock, what: bytes
) -> None:
    """The server stops reading who does not read its answers, and cuts it in time."""
    limits = triows.Limits(messages_per_second=0, ping_interval=100)
    async with memory_server(limits=limits) as server:
        peer, started, sent = await connect(server, nursery, narrow=True), trio.current_time(), 0

        async def flood() -> None:
            nonlocal sent
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.send(what * 10)
                    sent += 10

        async with trio.open_nursery() as flooding:
            flooding.start_soon(flood)
            await wait_all_tasks_blocked()
            assert 0 < sent < 2000
            assert _held(server) < 2 * BACKLOG + PULL_BYTES
        assert trio.current_time() - started == pytest.approx(limits.write_timeout)
        await wait_all_tasks_blocked()
        assert [c.code for c in server.closed_connections()] == [4004]


async def test_subscriber_that_never_reads(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A viewer that does not read costs one piece and a number; others are served; it is cut."""
    async with memory_server() as server:
        slow = await connect(server, nursery, narrow=True)
        quick = await connect(server, nursery)
        for peer in (slow, quick):
            await peer.ask("subscribe", channel=A)
        for i in range(200):
            await server.publish(A, triows.log("x" * 10_000))
            if not i % 20:
                await wait_all_tasks_blocked()
                assert _held(server) <= PULL_BYTES
        assert len(await quick.hear_all()) == 200
        statistics, other = server.connections()
        assert (other.lag, statistics.lag > 180) == (0, True)
        await trio.sleep(server.settings.limits.write_timeout)
        await wait_all_tasks_blocked()
        (closed,) = server.closed_connections()
        assert (closed.code, closed.last.id) == (4004, statistics.id)
        assert len(server._hub.subscribers(A)) == 1


async def test_close_is_answered(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A peer that closes gets its close back, then the end of the stream."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        payload = (1001).to_bytes(2, "big") + b"bye"
        await peer.send(frame(payload, CLOSE) + frame("ignored"))
        assert await peer.close_code(stay=True) == 1001
        assert await peer.receive() == (CLOSE, b"")
        await wait_all_tasks_blocked()
        (closed,) = server.closed_connections()
        assert (closed.code, closed.reason) == (1001, "bye")


@pytest.mark.parametrize("behaviour", ["silent", "flood of pings", "flood of messages"])
async def test_close_is_not_answered(
    nursery: Nursery, autojump_clock: MockClock, behaviour: str
) -> None:
    """A peer that does not answer our close, whatever else it sends, is cut in time."""
    async with memory_server() as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        server.disconnect(server.connections()[0].id)
        assert await peer.close_code(stay=True) == 4503
        noise = {"flood of pings": frame("x", PING), "flood of messages": frame('{"type":"ping"}')}
        with trio.move_on_after(server.settings.limits.close_timeout - 0.01):
            while True:
                await peer.send(noise.get(behaviour, b"") * 100)
                await trio.sleep(0.01)
        assert len(server.connections()) == 2
        await trio.sleep(0.02)
        assert len(server.connections()) == 1
        assert await peer.receive() == (CLOSE, b"")
        assert [c.code for c in server.closed_connections()] == [4503]
        assert await _is_well(other)


PIECES = st.one_of(
    st.binary(max_size=300),
    st.builds(frame, st.binary(max_size=150), st.integers(0, 15), fin=st.booleans()),
    st.builds(
        lambda message: frame(json.dumps(message)),
        st.fixed_dictionaries(
            {"type": st.sampled_from(list(triows.MessageType))},
            optional={
                name: st.one_of(st.none(), st.integers(), st.text(), st.just("session:x"))
                for name in ("id", "channel", "data", "offset", "timestamp")
            },
        ),
    ),
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, max_size=8), opened=st.booleans(), leave=st.booleans())
def test_garbage(pieces: list[bytes], opened: bool, leave: bool) -> None:
    """Whatever bytes come, before or after the handshake, nobody else notices."""

    async def main(nursery: Nursery) -> None:
        async with memory_server() as server:
            other = await connect(server, nursery)
            await other.ask("subscribe", channel=A)
            peer = await connect(server, nursery) if opened else dial(server, nursery)
            with suppress(trio.BrokenResourceError):  # hung up on
                for piece in pieces:
                    await peer.send(piece)
                    await trio.lowlevel.checkpoint()
            if leave:
                await trio.aclose_forcefully(peer.stream)
            await server.publish(A, triows.log("fine"))
            assert (await other.hear())["data"] == "fine"
            assert await _is_well(other)
            assert 1011 not in server.statistics().closed
            await trio.sleep(6)
            assert opened or server.statistics().connections == 1

    run_virtually(main)
