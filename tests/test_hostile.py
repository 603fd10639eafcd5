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
    PONG,
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
        (f'{{"type":"log","channel":"{A}","data":{"[" * 200 + "]" * 200}}}', "bad_json"),
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
    "reserved bit 1": (b"\xc1" + frame("{}")[1:], 1002),
    "reserved bit 3": (b"\x91" + frame("{}")[1:], 1002),
    "unknown data opcode": (frame("{}", 0x3), 1002),
    "unknown control opcode": (frame("", 0xB), 1002),
    "unmasked": (b"\x81\x02{}", 1002),
    "fragmented ping": (frame("", PING, fin=False), 1002),
    "long ping": (frame("x" * 126, PING), 1002),
    "fragmented close": (frame((1000).to_bytes(2, "big"), CLOSE, fin=False), 1002),
    "close with half a code": (frame(b"\x03", CLOSE), 1002),
    "close with a bad code": (frame((1005).to_bytes(2, "big"), CLOSE), 1002),
    "close with a code below 1000": (frame((999).to_bytes(2, "big"), CLOSE), 1002),
    "close with bad UTF-8": (frame(b"\x03\xe8\xff", CLOSE), 1002),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("stay", [False, True])
async def test_broken_rule(
    nursery: Nursery, autojump_clock: MockClock, name: str, stay: bool
) -> None:
    """Who breaks a rule of RFC 6455 is told which, at once, in a close frame; nothing after it is
    done; others live on.
    """
    data, code = RULES[name]
    async with memory_server() as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        started = trio.current_time()
        await peer.send(data + frame(f'{{"type":"log","channel":"{A}"}}'))
        assert await peer.close_code(stay=stay) == code
        assert trio.current_time() == started
        await trio.sleep(server.settings.limits.close_timeout)
        await wait_all_tasks_blocked()
        assert not stay or await peer.receive() == (CLOSE, b"")
        assert [c.code for c in server.closed_connections()] == [code]
        assert server.statistics().channels == 1  # that of life-cycle events
        assert await _is_well(other)


@pytest.mark.parametrize(
    "broken", [b"\xc1\x80" + bytes(4), frame(b"\x03", CLOSE)], ids=["frame", "close"]
)
async def test_what_came_before_is_answered(
    nursery: Nursery, autojump_clock: MockClock, broken: bytes
) -> None:
    """Messages that came whole before a broken frame are done, and answered before the close."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.send(frame('{"type":"ping","id":"1"}') + frame(b"p", PING) + broken)
        assert (await peer.hear())["id"] == "1"
        assert await peer.receive() == (PONG, b"p")
        assert await peer.close_code(stay=True) == 1002


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


@settings(max_examples=150)
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


@pytest.mark.parametrize(
    "last", [b"", frame("x" * 100)[:50], frame("{", fin=False), b"\x81"], ids=range(4)
)
async def test_peer_vanishes(nursery: Nursery, autojump_clock: MockClock, last: bytes) -> None:
    """A peer that is gone, in the middle of anything, is gone from registry and hub at once."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", channel=A)
        await peer.send(last)
        await trio.aclose_forcefully(peer.stream)
        await server.publish(A, triows.log(1))
        await wait_all_tasks_blocked()
        assert server.connections() == []
        assert server._hub.subscribers(A) == []
        assert [c.code for c in server.closed_connections()] == [1006]
