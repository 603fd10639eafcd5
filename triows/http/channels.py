"""The channels themselves: which there are, how they stand, who watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from starlette.responses import Response

from triows.auth import Action
from triows.bus import MAX_PRESENT, ChannelState
from triows.errors import RequestError
from triows.http.answers import answer
from triows.http.call import Call
from triows.logs import Log
from triows.messages import SYSTEM, Patterns

_PAGE: Final = 100  # channels in one answer, unless more are asked for
_PAGE_BYTES: Final = 1024 * 1024  # of what `end` said, after which an answer is long enough
_AT_ONCE: Final = 250  # channels the engine is asked for at once


async def channel(call: Call) -> Response:
    """Answer how one channel stands."""
    return answer(_describe(call, ChannelState.of(await call.log())))


async def presence(call: Call) -> Response:
    """Answer who watches a channel."""
    name = await call.authorize(Action.PRESENCE)
    present = await call.rooms.services.bus.present(name)
    call.check_again()
    return answer({"count": present.count, "connections": present.connections[:MAX_PRESENT]})


async def channels(call: Call) -> Response:
    """Answer with the channels that may be watched, in the order of their names."""
    found, more = await _find(call)
    call.check_again()
    page = [_describe(call, state) for state in found]
    return answer({"channels": page, "next": found[-1].channel if more else None})


async def _find(call: Call) -> tuple[list[ChannelState], bool]:
    """Return the channels of one answer, and whether there are more."""
    pattern = call.query.get("pattern")
    wanted = None if pattern is None else Patterns.parse((pattern,))
    after, limit = call.query.get("after", ""), call.query.get("limit", _PAGE)
    found: list[ChannelState] = []
    size = 0
    for place in _places(call, pattern or "*"):
        prefix, last = place.removesuffix("*"), after
        count = _AT_ONCE if place.endswith("*") else 1  # a name comes before what begins with it
        while last is not None:
            states = await call.rooms.services.bus.channels(prefix, last, count)
            last = states[-1].channel if len(states) == count > 1 else None
            for state in states:
                name = state.channel
                if (wanted is None or wanted.match(name)) and await _may_watch(call, name):
                    if len(found) == limit or size > _PAGE_BYTES:
                        return found, True
                    found.append(state)
                    size += len(state.ended or b"")
    return found, False


def _places(call: Call, pattern: str) -> Iterable[str]:
    """Return where to look for channels, in their order: names, and beginnings of names with `*`,
    none of which covers another. So a token for little is answered fast where there is much.
    """
    grants = call.user.grants
    if grants.admin or call.rooms.services.application.authorizer is not None:
        return [pattern]
    granted = [SYSTEM, *grants.subscribe.exact, *(p + "*" for p in grants.subscribe.prefixes)]
    places: list[str] = []
    for place in sorted(filter(None, (_common(pattern, g) for g in granted)), key=_beginning):
        if not places or not _covers(places[-1], place):
            places.append(place)
    return places


def _beginning(place: str) -> tuple[str, bool]:
    return place.removesuffix("*"), not place.endswith("*")


def _covers(place: str, other: str) -> bool:
    if place.endswith("*"):
        return other.startswith(place[:-1])
    return place == other


def _common(one: str, other: str) -> str | None:
    """Return what two patterns have in common, which is one of them or nothing."""
    if _covers(one, other):
        return other
    return one if _covers(other, one) else None


async def _may_watch(call: Call, name: str) -> bool:
    application = call.rooms.services.application
    if application.authorizer is None:
        return call.user.grants.allow(Action.SUBSCRIBE, name)
    try:
        await application.authorize(call.user, Action.SUBSCRIBE, name)
    except RequestError:
        return False
    return True


def outline(log: Log | ChannelState) -> dict[str, object]:
    """Return what is told of a channel with its messages, too."""
    return {
        "channel": log.channel,
        "epoch": log.epoch,
        "offset": log.head,
        "earliest": log.earliest,
        "ended": None if log.ended is None else msgspec.Raw(log.ended),
    }


def _describe(call: Call, state: ChannelState) -> dict[str, object]:
    return {
        **outline(state),
        "bytes": state.bytes,
        "viewers": call.rooms.services.hub.count(state.channel),
        "opened_at": state.opened_at,
        "touched_at": state.touched_at,
    }
