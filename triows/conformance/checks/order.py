"""One order for everybody: that of `offset`, without holes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from triows.conformance.matcher import Mismatch, show
from triows.conformance.rig import Rig, allowed, check, publish_all, together
from triows.conformance.talk import Talk


@check("Order and delivery")
async def two_publishers_have_one_order(rig: Rig) -> None:
    """Two viewers of two publishers see the same, and each publisher's messages in its order."""
    channel = rig.channel()
    publishers = [await rig.connect("ann"), await rig.connect("bob")]
    viewers = [await rig.connect("vic"), await rig.connect("vic")]
    for viewer in viewers:
        await viewer.ask("subscribe", channel=channel)
    count = allowed(publishers[0], 80)
    answers: list[dict[str, int]] = [{}, {}]
    seen: list[list[Any]] = [[], []]
    await together(
        *(
            partial(_publish, talk, f"p{n}-", channel, count, answers[n])
            for n, talk in enumerate(publishers)
        ),
        *(partial(_watch, viewers[n], 2 * count, seen[n]) for n in range(2)),
    )
    if seen[0] != seen[1]:
        at = next(n for n, pair in enumerate(zip(*seen, strict=True)) if pair[0] != pair[1])
        raise Mismatch(f"one viewer got {show(seen[0][at])}, another {show(seen[1][at])}")
    for n in range(2):
        _expect_own_order(seen[0], f"p{n}-", count, answers[n])


@check("history")
async def history_is_what_was_delivered(rig: Rig) -> None:
    """Page by page, history has the very messages that a viewer got."""
    channel = rig.channel()
    publisher, viewer = await rig.connect("bob"), await rig.connect("vic")
    await viewer.ask("subscribe", channel=channel)
    count = allowed(publisher, 25)
    seen: list[Any] = []
    await together(
        partial(_publish, publisher, "h-", channel, count, {}),
        partial(_watch, viewer, count, seen),
    )
    pages: list[Any] = []
    at: int | None = 1
    while at is not None and len(pages) < count:
        page = await viewer.ask("history", channel=channel, data={"from": at, "limit": 7})
        pages += page["data"]["messages"]
        at = page["data"]["next"]
    if pages != seen or at is not None:
        raise Mismatch(
            f"expected {count} messages as they were delivered, got {show(pages)}, next {at}"
        )


async def _publish(
    talk: Talk, prefix: str, channel: str, count: int, answers: dict[str, int]
) -> None:
    """Publish, and note the offset that each id was answered with."""
    logs = {f"{prefix}{number}": {"from": prefix} for number in range(count)}
    for id_, answer in (await publish_all(talk, channel, logs)).items():
        answers[id_] = answer["data"]["offset"]


async def _watch(talk: Talk, count: int, seen: list[Any]) -> None:
    for offset in range(1, count + 1):
        message = await talk.push()
        if message.get("offset") != offset:
            raise Mismatch(f"expected offset {offset}, got {show(message)}")
        seen.append(message)


def _expect_own_order(
    seen: Sequence[Any], prefix: str, count: int, answers: dict[str, int]
) -> None:
    """Hold what was seen of one publisher against what it sent, and where it was told it is."""
    offsets = {m["id"]: m["offset"] for m in seen if m["data"] == {"from": prefix}}
    if list(offsets) != [f"{prefix}{number}" for number in range(count)]:
        raise Mismatch(f"a publisher's messages came in the order {show(list(offsets))}")
    if offsets != answers:
        wrong = {id_: (at, answers[id_]) for id_, at in offsets.items() if answers[id_] != at}
        raise Mismatch(f"offsets delivered and acknowledged differ: {show(wrong)}")
