"""The limits that the greeting announces: what is within is taken, what is over is refused."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from functools import partial

import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.raw import CONTINUATION, TEXT, frame
from triows.conformance.rig import LeftOut, Rig, check, limit, together
from triows.conformance.talk import Talk

_PING = '{"type": "ping", "id": "1", "data": "%s"}'
_BURST = 1000  # messages that a check sends at once, at most
_LARGEST = 4 * 1024 * 1024  # bytes that a check sends at once, at most
_REFUSED = 100  # refused requests that a connection has at once, before it is closed
_SLACK = 1.1  # on what a rate allows: our clock is not the server's
_LONGEST = 5.0  # seconds that a check waits to be allowed again


@check("Limits")
async def a_message_of_the_largest_size(rig: Rig) -> None:
    """A message of `limits.max_message_bytes` is taken."""
    talk = await rig.connect()
    text = _PING % ("x" * (await _largest(talk) - len(_PING % "")))
    await together(partial(talk.send, frame(text)), partial(_expect_pong, talk))


@check("Limits")
async def a_message_that_is_too_large(rig: Rig) -> None:
    """One byte more closes with 1009."""
    talk = await rig.connect()
    text = _PING % ("x" * (await _largest(talk) - len(_PING % "") + 1))
    await together(partial(_pour, talk, frame(text)), partial(talk.closed, 1009))


@check("Limits")
async def fragments_that_are_too_large(rig: Rig) -> None:
    """Fragments count together."""
    talk = await rig.connect()
    half = b"x" * (await _largest(talk) // 2 + 1)
    data = frame(half, TEXT, fin=False) + frame(half, CONTINUATION)
    await together(partial(_pour, talk, data), partial(talk.closed, 1009))


@check("Limits")
async def too_many_messages(rig: Rig) -> None:
    """What is over the burst is `rate_limited`, and after `retry_after` it is taken."""
    talk = await rig.connect()
    rate, burst = _announced_rate(talk)
    asked = burst + _REFUSED * 9 // 10
    began = trio.current_time()
    await together(partial(talk.send, _pings(asked)))
    answers = [await talk.hear() for _ in range(asked)]
    types = Counter(message["type"] for message in answers)
    due = burst + rate * (trio.current_time() - began) * _SLACK + 1
    if not burst <= types["pong"] <= due:
        raise Mismatch(
            f"expected {burst} to {due:.0f} of {asked} messages at once to be taken, "
            f"got {types['pong']}"
        )
    refused = [message for message in answers if message["type"] == "error"]
    if not refused:
        raise LeftOut(f"{rate:g} messages a second are more than can be sent here")
    await _again(talk, refused[-1])


@check("Limits")
async def who_goes_on_too_fast(rig: Rig) -> None:
    """More than 100 refused requests close with 4005, if the last was too fast."""
    talk = await rig.connect()
    rate, burst = _announced_rate(talk)
    if rate > _BURST:
        raise LeftOut(f"{rate:g} messages a second are more than can be sent here")
    data = _pings(burst + 2 * _REFUSED + int(rate))
    await together(partial(_pour, talk, data), partial(talk.closed, 4005))


async def _again(talk: Talk, refused: dict[str, object]) -> None:
    """Hold a refusal against the protocol, wait, and send the same request again."""
    data = refused.get("data")
    data = data if isinstance(data, dict) else {}
    after = data.get("retry_after")
    if data.get("code") != "rate_limited" or not isinstance(after, int | float):
        raise Mismatch(f"expected `rate_limited` with `retry_after`, got {show(refused)}")
    if after > _LONGEST:
        raise LeftOut(f"the server says to wait for {after:g} s")
    await trio.sleep(after)
    await talk.send(_pings(1))
    await _expect_pong(talk)


async def _largest(talk: Talk) -> int:
    """Return the limit of a message's size, if it can be reached here."""
    await trio.lowlevel.checkpoint()
    size = int(limit(talk, "max_message_bytes"))
    if not 256 <= size <= _LARGEST:
        raise LeftOut(f"limits.max_message_bytes is {size}")
    return size


def _announced_rate(talk: Talk) -> tuple[float, int]:
    rate, burst = limit(talk, "messages_per_second"), int(limit(talk, "messages_burst"))
    if not rate:
        raise LeftOut("the server has no limits.messages_per_second")
    if burst > _BURST:
        raise LeftOut(f"a burst of {burst} messages is more than is sent here")
    return rate, burst


def _pings(count: int) -> bytes:
    text = json.dumps({"type": "ping", "id": "1", "data": "x"})
    return b"".join(frame(text) for _ in range(count))


async def _pour(talk: Talk, data: bytes) -> None:
    """Send as much of this as the server takes before it hangs up."""
    with suppress(Mismatch):
        await talk.send(data)


async def _expect_pong(talk: Talk) -> None:
    message = await talk.hear()
    if message.get("type") != "pong" or message.get("id") != "1":
        raise Mismatch(f"expected a pong, got {show(message)}")
