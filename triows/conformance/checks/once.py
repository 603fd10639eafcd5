"""Publishing once: a message sent again with the same `id` is not published twice."""

from __future__ import annotations

import json
import random
import uuid
from functools import partial
from typing import Any

import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.raw import frame
from triows.conformance.rig import Rig, check, together
from triows.conformance.talk import Talk

_CUTS = 20
_TWINS = 20


@check("Publishing once")
async def over_cut_connections(rig: Rig) -> None:
    """A request that was cut off anywhere, or whose answer was, is sent again: published once."""
    channel = rig.channel()
    ids = [str(uuid.uuid4()) for _ in range(_CUTS)]
    for number, id_ in enumerate(ids, 1):
        message: dict[str, Any] = {
            "type": "log",
            "id": id_,
            "channel": channel,
            "data": {"n": number},
        }
        await _send_and_cut(rig, frame(json.dumps(message)))
        talk = await rig.connect("bob")
        first, second = await talk.ask(**message), await talk.ask(**message)
        if first["data"] != second["data"] or first["data"].get("offset") != number:
            raise Mismatch(
                f"expected offset {number} both times, got {show(first)} and {show(second)}"
            )
    await _expect_ids(rig, channel, ids)


async def _send_and_cut(rig: Rig, data: bytes) -> None:
    """Send a random part of this, or all of it, and break the connection."""
    talk = await rig.connect("bob")
    await talk.send(data[: random.choice((len(data), random.randint(0, len(data))))])
    await trio.sleep(random.choice((0, 0.002)))
    await talk.socket.hang_up()


@check("Publishing once")
async def from_two_connections_at_once(rig: Rig) -> None:
    """Two connections of a user send the same ids at the same time: each is published once."""
    channel = rig.channel()
    ids = [str(uuid.uuid4()) for _ in range(_TWINS)]
    talks = [await rig.connect("bob"), await rig.connect("bob")]
    answers: list[list[Any]] = [[], []]
    await together(
        *(partial(_publish, talks[n], channel, ids, answers[n]) for n in range(2)),
    )
    if answers[0] != answers[1]:
        raise Mismatch(f"the answers differ: {show(answers[0])} and {show(answers[1])}")
    await _expect_ids(rig, channel, ids)


async def _publish(talk: Talk, channel: str, ids: list[str], answers: list[Any]) -> None:
    answers += [(await talk.ask("log", id=id_, channel=channel))["data"] for id_ in ids]


async def _expect_ids(rig: Rig, channel: str, ids: list[str]) -> None:
    """Read the channel from its start: these ids, each once, in this order."""
    viewer = await rig.connect("vic")
    head = (await viewer.ask("subscribe", channel=channel, data={"from": "start"}))["data"]
    got = [(await viewer.push()).get("id") for _ in range(head["offset"])]
    if got != ids:
        raise Mismatch(f"expected each id once, in order: {show(ids)}, got {show(got)}")
