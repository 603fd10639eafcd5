"""`triows publish`: words or lines, published in order."""

from __future__ import annotations

import io
import sys
from typing import Any

import msgspec
import trio

import triows
from triows.cli.lines import WAITING, take
from triows.cli.output import note, readable


async def publish(
    client: triows.Client, channel: str, words: tuple[str, ...], *, type_: str, as_json: bool
) -> int:
    """Publish the words as one message, or each line of standard input; return the status."""
    position: triows.Position | None
    if words:
        message = _message(readable(" ".join(words)), type_, as_json=as_json)
        position, count = await client.publish(channel, message), 1
    else:
        position, count = await _publish_lines(client, channel, type_, as_json=as_json)
    if position is not None:
        note(f"published {count}, the last at {position.epoch}:{position.offset}")
    return 0


async def _publish_lines(
    client: triows.Client, channel: str, type_: str, *, as_json: bool
) -> tuple[triows.Position | None, int]:
    position, count = None, 0
    send, receive = trio.open_memory_channel[str](WAITING)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_lines, send)
        while True:
            try:
                lines = await take(receive)
            except trio.EndOfChannel:
                break
            messages = [_message(line, type_, as_json=as_json) for line in lines]
            position = (await client.publish_many(channel, messages))[-1]
            count += len(messages)
    return position, count


async def _read_lines(send: trio.MemorySendChannel[str]) -> None:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    async with send:
        async for line in trio.wrap_file(sys.stdin):
            await send.send(line.rstrip("\r\n"))


def _message(text: str, type_: str, *, as_json: bool) -> triows.Message:
    data: Any = text
    if as_json or type_ == triows.MessageType.END:
        try:
            data = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise triows.ConfigError(f"not JSON: {text[:80]!r}: {error}") from None
    return triows.message(type_, data)
