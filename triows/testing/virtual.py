"""Virtual time, and chance by a seed: what has to be touched so that a run can be had again.

All that is private of others is touched here, and nowhere else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
import trio.testing

from triows import codec

START: Final = 1_800_000_000.0
"""Seconds since 1970 at which a virtual calendar begins, unless told otherwise."""

_T = TypeVar("_T")


@contextmanager
def replaced(*changes: tuple[object, str, object]) -> Iterator[None]:
    """Set attributes of objects or modules, and put back what was there."""
    before = [(target, name, getattr(target, name)) for target, name, _ in changes]
    for target, name, value in changes:
        setattr(target, name, value)
    try:
        yield
    finally:
        for target, name, value in reversed(before):
            setattr(target, name, value)


@contextmanager
def virtual_time(start: float = START) -> Iterator[trio.testing.MockClock]:
    """Yield a clock to run Trio with, which jumps to the next deadline when all tasks wait.

    Until left, `time.time` follows it: timestamps, expiry of tokens and revocations are in
    virtual time as well. `datetime.now` is not: PyJWT, for one, does not notice.

    Args:
        start: seconds since 1970 at which the calendar begins.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    changes = (
        (time, "time", lambda: start + clock.current_time()),
        (time, "time_ns", lambda: int((start + clock.current_time()) * 1e9)),
    )
    try:
        with replaced(*changes):
            _forget_time()
            yield clock
    finally:
        _forget_time()


def _forget_time() -> None:
    """Have the clock of the timestamps, which never goes back, begin anew."""
    fresh = codec.Clock()
    for name in codec.Clock.__slots__:
        setattr(codec.clock, name, getattr(fresh, name))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have everything that happens by chance follow from `seed`.

    That is the order in which Trio runs its tasks, for which it has a generator of its own and,
    for hypothesis, a switch; and the jitter of clients and drains.
    """
    core: Any = trio._core._run
    scheduler, others = core._r.getstate(), random.getstate()
    core._r.seed(seed)
    random.seed(seed)
    try:
        with replaced((core, "_ALLOW_DETERMINISTIC_SCHEDULING", True)):
            yield
    finally:
        core._r.setstate(scheduler)
        random.setstate(others)


def run(main: Callable[[], Awaitable[_T]], seed: int = 0, *, start: float = START) -> _T:
    """Run `main` in virtual time, its tasks in an order that follows from `seed`.

    Args:
        main: an async function.
        seed: the same gives the same order again, if `main` itself leaves nothing to chance.
        start: seconds since 1970 at which the calendar begins.
    """
    with seeded(seed), virtual_time(start) as clock:
        return trio.run(main, clock=clock)
