"""What the kit may ask of a server: no more than its greeting allows, also when it is held up."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.support import Nursery
from triows.conformance.matcher import Mismatch
from triows.conformance.raw import Socket
from triows.conformance.rig import publish_all
from triows.conformance.talk import Talk
from triows.frames import FrameReader, encode_frame

LOGS = {f"n-{number}": number for number in range(50)}


class _Server:
    """The other side of a conversation, which answers when it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = FrameReader(1 << 20, 64)

    async def greet(self, **limits: float) -> None:
        """Say what is allowed."""
        await self._say({"type": "auth", "data": {"limits": limits}})

    async def read(self) -> list[str]:
        """Return the ids of what has come by now."""
        data = await self._stream.receive_some(1 << 20)
        return [json.loads(payload)["id"] for _, payload in self._reader.feed(bytes(data))]

    async def answer(self, id_: str, type: str = "ack") -> None:
        """Answer one."""
        await self._say({"type": type, "id": id_, "data": {}})

    async def _say(self, message: object) -> None:
        await self._stream.send_all(encode_frame(json.dumps(message).encode()))


async def _talk(**limits: float) -> tuple[Talk, _Server]:
    ours, theirs = memory_stream_pair()
    talk, server = Talk(Socket(ours)), _Server(theirs)
    await server.greet(**limits)
    await talk.greet()
    return talk, server


async def test_few_are_under_way(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A server that reads nothing for a while finds no more than half of what it takes at once."""
    talk, server = await _talk(messages_per_second=1000, messages_burst=20)
    nursery.start_soon(publish_all, talk, "session:1", LOGS)
    seen: list[str] = []
    with trio.fail_after(60):
        while len(seen) < len(LOGS):
            await trio.sleep(1)
            came = await server.read()
            assert len(came) <= 10
            seen += came
            for id_ in came:
                await server.answer(id_)
    assert seen == list(LOGS)


async def test_all_are_under_way_without_a_limit(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """A server without a limit gets all at once."""
    talk, server = await _talk()
    nursery.start_soon(publish_all, talk, "session:1", LOGS)
    await trio.sleep(1)
    assert await server.read() == list(LOGS)
    for id_ in LOGS:
        await server.answer(id_)


async def test_refusal_is_told(nursery: Nursery, autojump_clock: MockClock) -> None:
    """One that is refused is no message of a log."""
    talk, server = await _talk()
    await server.answer("n-0", "error")
    with pytest.raises(Mismatch, match="a log was refused"):
        await publish_all(talk, "session:1", LOGS)
