"""Heads of requests: cut in any way the same, nothing smuggled, refused only as documented."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import h11

from tests.fuzz.pieces import splits
from triows.errors import HandshakeRefused
from triows.http.exchange import _check, _own_head
from triows.http.head import (
    MAX_HEAD,
    Head,
    PeerGone,
    check_origin,
    check_upgrade,
    find_token,
    read_head,
)


class _Pieces:
    """A transport that needs no task: what it receives is there."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    async def receive(self) -> bytes:  # noqa: ASYNC910 it never waits
        return next(self._pieces, b"")


def _finish(coroutine: Coroutine[Any, Any, Head]) -> Head:
    """Run what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        head: Head = stop.value
        return head
    raise AssertionError("it waited")


def _read(pieces: list[bytes]) -> Head | tuple[int, str] | None:
    try:
        return _finish(read_head(_Pieces(pieces)))  # type: ignore[arg-type]
    except HandshakeRefused as error:
        return error.status, error.message if error.status != 431 else ""
    except PeerGone:
        return None


def run(data: bytes) -> str:
    """Read a head, and what follows it."""
    results = [_read(pieces) for pieces in splits(data)]
    first = results[0]
    if not isinstance(first, Head):
        assert all(result == first for result in results), results
        return str(first)[:40]
    for result in results:
        assert isinstance(result, Head)
        assert attrs.evolve(result, rest=first.rest) == first
    assert data.endswith(first.rest)
    assert len(data) - len(first.rest) <= MAX_HEAD
    for name, value in first.headers.items():
        assert name == name.lower()
        assert not set(value) & set("\r\n\0"), (name, value)
    said = [_word(check_upgrade, first)]
    said += [_word(lambda h: check_origin(h, (), loopback=True), first)]
    said += [_word(lambda h: find_token(h, in_query=True), first)]
    return f"{first.method[:4]} {' '.join(said)} {_passed_on(first)}"


def _word(check: Callable[[Head], object], of: Head) -> str:
    try:
        return "ok" if check(of) is None else "some"
    except HandshakeRefused as error:
        return str(error.status)


def _passed_on(of: Head) -> str:
    """What another reader gets is one request, with the length that was checked."""
    try:
        size = _check(of, 1 << 20)
    except HandshakeRefused as error:
        return str(error.status)
    other = h11.Connection(h11.SERVER)
    other.receive_data(_own_head(of, size, waits=bool(size)) + b"x" * size)
    request = other.next_event()
    assert isinstance(request, h11.Request), request
    received = 0
    while isinstance(event := other.next_event(), h11.Data):
        received += len(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert received == size
    assert other.next_event() in (h11.NEED_DATA, h11.PAUSED)
    assert not other.trailing_data[0]
    return f"passed on {'with a body' if size else ''}"
