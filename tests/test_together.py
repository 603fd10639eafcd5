"""Messages that come together are published together, and fare as one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, Peer, connect, frame, memory_server, run_virtually, token
from triows import connection, session
from triows.bus.memory import MemoryBus
from triows.codec import decode
from triows.config import LogLimits
from triows.messages import Message
from triows.session import TOGETHER

A, B = "session:a", "session:b"
BURST = 24
WARM = 6  # messages by which the token's grants get known

_ids = st.sampled_from(("1", "2", "3", None))
_published = st.builds(
    lambda type_, channel, id_: {"type": type_, "channel": channel, **({"id": id_} if id_ else {})},
    st.sampled_from(("log", "log", "log", "status", "command")),
    st.sampled_from((A, A, A, B)),
    _ids,
)
_others = st.sampled_from(
    (
        {"type": "end", "channel": A, "id": "end", "data": {}},
        {"type": "ping", "id": "ping"},
        {"type": "log", "channel": "system", "id": "forbidden"},
        {"type": "log", "channel": "nonsense", "id": "nonsense"},
        {"type": "log", "id": "no channel"},
        {"type": "own", "id": "own"},
        {"type": 1, "id": "wrong"},
    )
)
_requests = st.lists(_published | _published | _published | _others, max_size=30)


async def answer(request: triows.Request) -> object:
    """Handle a command."""
    await trio.lowlevel.checkpoint()
    return {"for": request.message.data}


def said(message: dict[str, Any]) -> tuple[object, ...]:
    """Return what a message says, without what time and chance have put into it."""
    data = message.get("data")
    if isinstance(data, dict):
        data = {k: v for k, v in data.items() if k not in ("epoch", "retry_after", "message")}
    return message["type"], message.get("id"), message.get("channel"), message.get("offset"), data


async def play(nursery: Nursery, requests: list[dict[str, Any]], *, at_once: bool) -> list[Any]:
    """Return what a publisher and a viewer of both channels hear."""
    limits = triows.Limits(messages_per_second=0.001, messages_burst=BURST)
    async with memory_server(limits=limits, on_command=answer, handlers={"own": answer}) as server:
        viewer, peer = await connect(server, nursery), await connect(server, nursery)
        for channel in (A, B):
            await viewer.ask("subscribe", channel=channel, id="s")
            for type_ in ("log", "status", "command"):
                await peer.say(type_, channel=channel)
        await viewer.hear_all()
        await peer.hear_all()
        frames = [
            frame(json.dumps({"data": number, **request}))
            for number, request in enumerate(requests)
        ]
        heard: list[Any] = []
        for part in [b"".join(frames)] if at_once else frames:
            await peer.send(part)
            heard += await peer.hear_all()
        seen = await viewer.hear_all()
        received = {c.received_messages for c in server.connections()}
        assert received == {2, WARM + len(requests)}
    # A handler answers when it is done, apart from all others.
    handled = [m for m in heard if m["type"] == "ack" and {"for", "result"} & m["data"].keys()]
    others = [m for m in heard if m not in handled]
    return [
        [said(message) for message in others],
        sorted(str(said(message)) for message in handled),
        [said(message) for message in seen if message["channel"] == A],
        [said(message) for message in seen if message["channel"] == B],
    ]


@settings(max_examples=60)
@given(_requests)
def test_as_one_after_the_other(requests: list[dict[str, Any]]) -> None:
    """Whatever comes together is answered and delivered as if it had come alone."""
    found: list[list[Any]] = []

    async def both(nursery: Nursery) -> None:
        found.append(await play(nursery, requests, at_once=True))
        found.append(await play(nursery, requests, at_once=False))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HANDLER_QUEUE", 100)  # else some that come at once are refused
        run_virtually(both)
    assert found[0] == found[1]


async def test_more_than_the_rate_allows(nursery: Nursery, autojump_clock: MockClock) -> None:
    """As many as the rate allows are published; the others are refused, each by itself."""
    limits = triows.Limits(messages_per_second=0.001, messages_burst=10)
    async with memory_server(limits=limits) as server:
        peer = await connect(server, nursery)
        await peer.ask("log", channel=A, id="first")
        await peer.send(_logs(A, range(20)))
        heard = await peer.hear_all()

        assert [m["type"] for m in heard] == ["ack"] * 9 + ["error"] * 11
        assert [m["id"] for m in heard] == [str(number) for number in range(20)]
        assert {m["data"]["code"] for m in heard[9:]} == {"rate_limited"}


async def test_more_than_go_together(nursery: Nursery, autojump_clock: MockClock) -> None:
    """However many come at once, listeners, viewers and the log have each once, in order."""
    count = 3 * TOGETHER + 5
    limits = triows.Limits(messages_per_second=0)
    async with memory_server(limits=limits) as server, server.listen(A) as messages:
        viewer, peer = await connect(server, nursery), await connect(server, nursery)
        await viewer.ask("subscribe", channel=A)
        await peer.ask("log", channel=A, id="first")
        await peer.send(_logs(A, range(count)))
        heard, seen = await peer.hear_all(), await viewer.hear_all()
        listened = [(await anext(messages)).offset for _ in range(count + 1)]

        assert [m["data"]["offset"] for m in heard] == list(range(2, count + 2))
        assert [m["offset"] for m in seen] == listened == list(range(1, count + 2))
        events = 2  # of the two connections
        assert server.statistics().published == count + 1 + events


async def test_revoked_between(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What lies unread when the token is revoked is not published, however much it is."""
    async with memory_server() as server:
        peer = await connect(server, nursery, token("ann", publish=["session:*"]))
        await peer.ask("log", channel=A, id="first")
        nursery.start_soon(peer.send, _logs(A, range(50)))
        await server.revoke(user="ann")
        await wait_all_tasks_blocked()
        log = await server._bus.open(A)
        assert log.head == 1


async def test_slow_reader_of_answers(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who publishes and reads no answers is read from no further: nothing piles up."""
    async with memory_server(limits=triows.Limits(messages_per_second=0)) as server:
        peer: Peer = await connect(server, nursery, narrow=True)
        await peer.ask("log", channel=A, id="first")
        with trio.move_on_after(5):
            while True:
                await peer.send(_logs(A, range(100), id_="x" * 50))
        (mine,) = server.connections()
        assert mine.received_messages < 2000


def _logs(channel: str, numbers: range, id_: str = "") -> bytes:
    return b"".join(
        frame(json.dumps({"type": "log", "channel": channel, "id": f"{id_}{n}", "data": n}))
        for n in numbers
    )


@pytest.mark.parametrize("wrong", [b"{", b"[" * 200])
async def test_nonsense_between(nursery: Nursery, autojump_clock: MockClock, wrong: bytes) -> None:
    """What cannot be read is refused in its place, and what follows is published."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("log", channel=A, id="first")
        await peer.send(_logs(A, range(3)) + frame(wrong.decode()) + _logs(A, range(3, 6)))
        heard = await peer.hear_all()
        assert [m["type"] for m in heard] == ["ack"] * 3 + ["error"] + ["ack"] * 3


async def test_nothing_is_read_again(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little the rate allows, and however channels alternate, each is decoded once."""
    decoded = 0

    def count(payload: bytes) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(payload)

    monkeypatch.setattr(session, "decode", count)
    limits = triows.Limits(messages_per_second=0.001, messages_burst=150)
    async with memory_server(limits=limits) as server:
        peer = await connect(server, nursery)
        for channel in (A, B):
            await peer.ask("log", channel=channel, id="first")
        decoded = 0
        await peer.send(b"".join(_logs((A, B)[n % 2], range(n, n + 1)) for n in range(100)))
        await peer.hear_all()
        assert decoded == 100
        await peer.send(_logs(A, range(100, 200)))
        heard = await peer.hear_all()
        assert [m["type"] for m in heard] == ["ack"] * 48 + ["error"] * 52
        assert decoded == 200


async def test_busy_log_is_not_taken_for_an_empty_one(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A log that began with many messages at once outlives those that are only asked for."""
    bus = MemoryBus(LogLimits(total_bytes=20_000), lambda *_: None)
    logs = [Message("log", b"%d" % number) for number in range(5)]
    bus.submit_all(A, logs, "ann", 0.0, lambda *_: None)
    for number in range(40):
        await bus.open(f"session:{number}")
    log = await bus.find(A)
    assert log is not None
    assert (log.earliest, log.head) == (1, 5)


async def test_message_that_cannot_be_written(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What was published before it is counted, and told."""
    told: list[int] = []
    bus = MemoryBus(LogLimits(), lambda _, grown: told.append(grown))
    logs = [Message("log", b"1"), Message("log", b"2", id="\ud800")]
    with pytest.raises(UnicodeEncodeError):
        bus.submit_all(A, logs, "ann", 0.0, lambda *_: None)
    log = await bus.open(A)
    assert (log.head, bus.published, told, bus.size) == (1, 1, [1], log.size)
