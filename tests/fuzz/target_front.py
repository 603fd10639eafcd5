"""A whole server: whatever comes first on a connection, nobody else notices, and nothing stays."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, connect, dial, memory_server, token

_TOKEN: Final = b"@TOKEN@"  # stands in an input for a token that is believed
_BELIEVED: Final = token("fuzz").encode()
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")


class _Errors(logging.Handler):
    """Raises nothing itself: what it saw is looked at in the end."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is an error of ours."""
        self.seen.append(self.format(record))


async def _attack(server: triows.Server, nursery: Nursery, data: bytes, cut: int) -> bytes:
    """Send bytes in two pieces, half-close, and return all that is answered."""
    peer = dial(server, nursery)
    answer = b""

    async def hear() -> None:
        nonlocal answer
        while more := bytes(await peer.stream.receive_some()):
            answer += more

    async with trio.open_nursery() as both:
        both.start_soon(hear)
        try:
            await peer.send(data[:cut])
            await wait_all_tasks_blocked()
            await peer.send(data[cut:])
            await wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass
        await peer.stream.send_eof()  # type: ignore[attr-defined]
    return answer


async def _main(data: bytes, cut: int) -> bytes:
    async with memory_server() as server, trio.open_nursery() as nursery:
        other = await connect(server, nursery)
        await wait_all_tasks_blocked()
        quiet = trio.lowlevel.current_statistics().tasks_living
        answer = await _attack(server, nursery, data, cut)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == quiet, "a task was left"
        pong: Any = await other.ask("ping", id="well")
        assert pong["type"] == "pong"
        assert 1011 not in server.statistics().closed
        assert not server.statistics().answers.get(500), "it failed inside"
        nursery.cancel_scope.cancel()
    return answer


def run(data: bytes) -> str:
    """Give a server these bytes, the first of which says where they are cut."""
    errors, logger = _Errors(), logging.getLogger("triows")
    stream = data[1:].replace(_TOKEN, _BELIEVED)
    cut = (data[0] if data else 0) * len(stream) // 256
    logger.addHandler(errors)
    try:
        answer = trio.run(_main, stream, cut, clock=MockClock(autojump_threshold=0))
    finally:
        logger.removeHandler(errors)
    assert not errors.seen, errors.seen[0]
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
    statuses = _STATUS.findall(answer)[:3]
    code = re.search(rb'"code": ?"(\w+)"', answer)
    size = len(answer).bit_length() // 2
    return f"{b' '.join(statuses).decode()} {code[1].decode() if code else ''} {size}"
