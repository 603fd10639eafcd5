"""What happens in a simulation: a list of steps, drawn by a seed, that can be read and replayed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

PUBLISHERS: Final = ("pat", "pia")
VIEWERS: Final = ("vic", "val")
PEOPLE: Final = PUBLISHERS + VIEWERS
LISTENER: Final = "the application"
CHANNELS: Final = ("session:1", "session:2")
SLOWEST: Final = 2.0
"""Seconds that somebody takes over a message, at most."""

_SECONDS: Final = (0.0, 0.0, 0.01, 0.2, 1.0, 3.0, 12.0, 45.0)


@attrs.frozen
class Advance:
    """Let time pass."""

    seconds: float


@attrs.frozen
class Publish:
    """Have messages published, all at once."""

    who: str
    channel: str
    count: int
    size: int


@attrs.frozen
class End:
    """Have a channel ended."""

    who: str
    channel: str


@attrs.frozen
class Subscribe:
    """Watch a channel."""

    who: str
    channel: str
    start: str
    on_lag: str


@attrs.frozen
class Unsubscribe:
    """Watch a channel no longer."""

    who: str
    channel: str


@attrs.frozen
class Read:
    """Have somebody take that long over each message from now on."""

    who: str
    seconds: float


@attrs.frozen
class Impatience:
    """Give up what is being published, and publish it again with the same ids."""

    who: str


@attrs.frozen
class Fault:
    """Do something to the connections of somebody: `cut`, `reset`, `stall` … of `Link`."""

    who: str
    kind: str
    value: float | str | None = None


@attrs.frozen
class Heal:
    """Have somebody's connections work again."""

    who: str


@attrs.frozen
class Restart:
    """Stop the server, by a drain or a crash, and start one after some seconds."""

    how: str
    seconds: float


@attrs.frozen
class Revoke:
    """Believe no token any more that somebody has."""

    who: str


@attrs.frozen
class Lifetime:
    """Have somebody come back with tokens of so many seconds, renewed in time or not."""

    who: str
    seconds: float
    renewed: bool


@attrs.frozen
class SlowDisk:
    """Have the disk take that long, or fail (below 0)."""

    seconds: float


Step: TypeAlias = (
    Advance
    | Publish
    | End
    | Subscribe
    | Unsubscribe
    | Read
    | Impatience
    | Fault
    | Heal
    | Restart
    | Revoke
    | Lifetime
    | SlowDisk
)


@attrs.frozen
class Schedule:
    """One simulation.

    Attributes:
        seed: from which everything else follows that is left to chance.
        store: `memory` or `sqlite`.
        eager: whether the server's streams take the fast path.
        small: whether bounds are so small that they are reached.
        capacity: bytes that a connection holds in each direction.
        steps: what happens.
    """

    seed: int
    store: str
    eager: bool
    small: bool
    capacity: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        about = f"store={self.store} eager={self.eager} small={self.small} capacity={self.capacity}"
        return "\n".join([f"seed {self.seed}: {about}", *(f"  {step}" for step in self.steps)])


def _advance(r: random.Random) -> Step:
    return Advance(r.choice(_SECONDS))


def _publish(r: random.Random) -> Step:
    size = r.choice((0, 10, 10, 200, 3000))
    return Publish(r.choice(PUBLISHERS), r.choice(CHANNELS), r.choice((1, 1, 3, 8)), size)


def _watch(r: random.Random) -> Step:
    start = r.choice(("start", "start", "tail", "now"))
    on_lag = r.choice(("gap", "gap", "latest", "close"))
    return Subscribe(r.choice(PEOPLE), r.choice(CHANNELS), start, on_lag)


def _fault(r: random.Random) -> Step:
    kind = r.choice(tuple(_FAULTS))
    return Fault(r.choice(PEOPLE), kind, r.choice(_FAULTS[kind]))


_FAULTS: Final[dict[str, tuple[float | str | None, ...]]] = {
    "cut": (None,),
    "reset": (None,),
    "half_close": ("up", "down"),
    "stall": (None, "up", "down"),
    "slow": (100, 2000),
    "crumble": (1, 20, 20, 20),
    "delay": (0.05, 2.0),
}

# What is drawn, and how often compared to the others.
_DRAWN: Final[dict[Callable[[random.Random], Step], int]] = {
    _advance: 24,
    _publish: 30,
    _watch: 14,
    _fault: 18,
    lambda r: Heal(r.choice(PEOPLE)): 6,
    lambda r: Unsubscribe(r.choice(PEOPLE), r.choice(CHANNELS)): 3,
    lambda r: Read(r.choice((*VIEWERS, LISTENER)), r.choice((0.0, 0.1, SLOWEST))): 3,
    lambda r: Impatience(r.choice(PUBLISHERS)): 3,
    lambda r: Restart(r.choice(("drain", "crash")), r.choice((0.0, 0.5, 5.0))): 4,
    lambda r: Revoke(r.choice(PEOPLE)): 2,
    lambda r: Lifetime(r.choice(PEOPLE), r.choice((2.0, 2.0, 10.0, 3600.0)), r.random() < 0.3): 4,
    lambda r: SlowDisk(r.choice((-1.0, 0.0, 0.02, 0.5))): 3,
    lambda r: End(r.choice(PUBLISHERS), r.choice(CHANNELS)): 1,
}


def draw(seed: int, store: str | None = None) -> Schedule:
    """Return the schedule of a seed.

    Args:
        seed: any number.
        store: which engine; None leaves it to the seed.
    """
    r = random.Random(seed)  # noqa: S311 chance, not secrecy
    drawn = "sqlite" if r.random() < 0.15 else "memory"
    first = [_watch(r), _watch(r), _publish(r)]
    kinds, weights = tuple(_DRAWN), tuple(_DRAWN.values())
    others = [draw_one(r) for draw_one in r.choices(kinds, weights, k=r.randint(3, 18))]
    return Schedule(
        seed=seed,
        store=store or drawn,
        eager=r.random() < 0.7,
        small=r.random() < 0.6,
        capacity=r.choice((300, 4096, 65536)),
        steps=(*first, *others),
    )
