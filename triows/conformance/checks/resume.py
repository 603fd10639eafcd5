"""Resuming: while somebody publishes, over cut connections, and after what is not kept."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.rig import (
    LeftOut,
    Rig,
    allowed,
    check,
    expect_number,
    limit,
    publish,
    together,
)
from triows.conformance.talk import Talk

_ROUNDS = 6
_MESSAGES = 180  # of a round
_VIEWERS = 10
_CUTS = 25
_CUT_WITHIN = 1500  # bytes after the greeting: a few messages
_PAUSE = 0.003  # seconds between messages, so that connections are cut while more come
_MOST = 24 * 1024 * 1024  # bytes that are published to learn what is kept
_ENOUGH = 5.0  # seconds after which nothing is begun anew, where a server is slow
_PIECE = 256 * 1024  # bytes of one of those messages, at most


@check("Order and delivery")
async def since_while_another_publishes(rig: Rig) -> None:
    """A viewer subscribes with `since` again and again while the log grows: no hole, none twice."""
    began = trio.current_time()
    for _ in range(_ROUNDS):
        if trio.current_time() - began > _ENOUGH:
            break
        channel = rig.channel()
        publisher, viewer = await rig.connect("bob"), await rig.connect("vic")
        epoch = (await viewer.ask("subscribe", channel=channel))["data"]["epoch"]
        count = allowed(publisher, _MESSAGES)
        await together(
            partial(publish, publisher, channel, count),
            partial(_subscribe_again_and_again, viewer, channel, epoch, count),
        )


async def _subscribe_again_and_again(talk: Talk, channel: str, epoch: str, count: int) -> None:
    seen = 0
    while seen < count:
        since = {"epoch": epoch, "offset": seen}
        await talk.ask("subscribe", channel=channel, data={"since": since})
        for place, message in enumerate(talk.pushed(), seen + 1):
            expect_number(message, channel, place)  # still the subscription before this one's
        for _ in range(min(random.randint(1, 9), count - seen)):
            expect_number(await talk.push(), channel, seen + 1)
            seen += 1


@check("subscribe")
async def many_join_while_another_publishes(rig: Rig) -> None:
    """Viewers join at any moment, from the start or with a tail: all get what follows it."""
    channel = rig.channel()
    publisher = await rig.connect("bob")
    viewers = [await rig.connect("vic") for _ in range(_VIEWERS)]
    count = allowed(publisher, _MESSAGES)
    await together(
        partial(publish, publisher, channel, count),
        *(partial(_join, viewer, channel, count, n % 2) for n, viewer in enumerate(viewers)),
    )


async def _join(talk: Talk, channel: str, count: int, with_tail: int) -> None:
    await trio.sleep(random.uniform(0, 0.1))
    tail = random.randint(1, 30)
    data: dict[str, Any] = {"tail": tail} if with_tail else {"from": "start"}
    head = (await talk.ask("subscribe", channel=channel, data=data))["data"]["offset"]
    first = max(1, head - tail + 1) if with_tail else 1
    for number in range(first, count + 1):
        expect_number(await talk.push(), channel, number)


@check("Order and delivery")
async def connections_cut_at_random_bytes(rig: Rig) -> None:
    """A viewer whose connections break in the middle of anything goes on where it was."""
    channel = rig.channel()
    publisher, first = await rig.connect("bob"), await rig.connect("vic")
    epoch = (await first.ask("subscribe", channel=channel))["data"]["epoch"]
    count = allowed(publisher, _MESSAGES)
    await together(
        partial(publish, publisher, channel, count, _PAUSE),
        partial(_survive, rig, channel, epoch, count),
    )


async def _survive(rig: Rig, channel: str, epoch: str, count: int) -> None:
    seen, cuts = 0, 0
    while seen < count:
        talk = await rig.connect("vic")
        within = random.randint(1, _CUT_WITHIN) if cuts < _CUTS else None
        stream = talk.socket.stream = _Brittle(talk.socket.stream, within)
        try:
            since = {"epoch": epoch, "offset": seen}
            await talk.ask("subscribe", channel=channel, data={"since": since})
            while seen < count:
                expect_number(await talk.push(), channel, seen + 1)
                seen += 1
        except Mismatch:
            if not stream.broken:
                raise
            cuts += 1


class _Brittle(trio.abc.Stream):
    """A stream that breaks after it has received so many bytes; None: never.

    Attributes:
        broken: whether it did.
    """

    def __init__(self, stream: trio.abc.Stream, within: int | None) -> None:
        self._stream = stream
        self._left = within
        self.broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._left == 0:
            self.broken = True
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("cut on purpose")
        data = await self._stream.receive_some(self._left or max_bytes)
        if self._left is not None:
            self._left -= len(data)
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@check("gap")
async def what_is_kept_no_longer(rig: Rig) -> None:
    """`since` an offset that is gone: a `gap` with just what is missing, then the oldest kept."""
    channel = rig.channel()
    viewer = await rig.connect("vic")
    epoch = (await viewer.ask("subscribe", channel=channel))["data"]["epoch"]
    await viewer.ask("unsubscribe", channel=channel)
    earliest = await _publish_until_something_is_gone(rig, channel)
    since = {"epoch": epoch, "offset": 0}
    await viewer.ask("subscribe", channel=channel, data={"since": since})
    gap, oldest = await viewer.push(), await viewer.push()
    wanted = {"epoch": epoch, "from": 1, "to": earliest - 1, "count": earliest - 1}
    if gap.get("type") != "gap" or gap.get("data") != {**wanted, "reason": "retention"}:
        raise Mismatch(f"expected a gap with {show(wanted)}, got {show(gap)}")
    if oldest.get("offset") != earliest:
        raise Mismatch(f"expected offset {earliest} after the gap, got {show(oldest)}")


async def _publish_until_something_is_gone(rig: Rig, channel: str) -> int:
    """Return the oldest offset that is kept, when that is not the first any more."""
    published, began = 0, trio.current_time()
    while published < _MOST and trio.current_time() - began < _ENOUGH:
        publisher = await rig.connect("bob")
        size = min(_PIECE, int(limit(publisher, "max_message_bytes") or _PIECE) - 1000)
        second = limit(publisher, "bytes_per_second") or _MOST
        batch = min(allowed(publisher, 100), int(second * 0.8) // (size + 1000))
        if size <= 0 or batch <= 0:
            break
        for _ in range(batch):
            await publisher.ask("log", channel=channel, data="x" * size)
        published += batch * size
        answer = await publisher.ask("history", channel=channel, data={"limit": 1})
        if answer["data"]["earliest"] > 1:
            return int(answer["data"]["earliest"])
    raise LeftOut(f"no gap after {published} bytes: the server keeps more, or takes them slowly")
