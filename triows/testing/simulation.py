"""Runs simulations, and makes those that fail as short as can be."""

from __future__ import annotations

import logging
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch
from pathlib import Path
from typing import Any, Final, final

import attrs
import trio

from triows.bus import store
from triows.messages import MessageType
from triows.testing.listening import Complaints
from triows.testing.schedule import (
    Advance,
    End,
    Fault,
    Heal,
    Impatience,
    Lifetime,
    Publish,
    Read,
    Restart,
    Revoke,
    Schedule,
    SlowDisk,
    Step,
    Subscribe,
    Unsubscribe,
)
from triows.testing.tuning import SMALL, SWIFT
from triows.testing.virtual import replaced, run
from triows.testing.world import World

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 a store there need not wait for a disk
_LAST: Final = 40  # entries of a trace that are shown


@final
@attrs.frozen
class Outcome:
    """How a simulation ended.

    Attributes:
        schedule: what was to happen.
        wrong: what was wrong, first one first; empty if all was right.
        digest: a hash of everything that happened.
        trace: everything that happened.
    """

    schedule: Schedule
    wrong: tuple[str, ...]
    digest: str
    trace: tuple[tuple[object, ...], ...] = attrs.field(repr=False)

    def __str__(self) -> str:
        last = [f"  {' '.join(map(str, entry))}" for entry in self.trace[-_LAST:]]
        return "\n".join([str(self.schedule), "", *last, "", *self.wrong])


@singledispatch
def perform(step: Any, world: World) -> None:
    """Do one step of a schedule."""
    raise TypeError(f"not a step: {step!r}")


@perform.register
def _(step: Publish, world: World) -> None:
    raw = b'"%b"' % (b"x" * step.size)
    for _ in range(step.count):
        world.people[step.who].publish(step.channel, MessageType.LOG, raw)


@perform.register
def _(step: End, world: World) -> None:
    world.people[step.who].publish(step.channel, MessageType.END, b'{"reason":"done"}')


@perform.register
def _(step: Subscribe, world: World) -> None:
    world.people[step.who].watch(step.channel, step.start, step.on_lag)


@perform.register
def _(step: Unsubscribe, world: World) -> None:
    world.people[step.who].leave(step.channel)


@perform.register
def _(step: Read, world: World) -> None:
    world.readers[step.who].pause = step.seconds


@perform.register
def _(step: Impatience, world: World) -> None:
    world.people[step.who].give_up_publishing()


@perform.register
def _(step: Fault, world: World) -> None:
    for link in world.network.of(step.who):
        fault: Callable[..., None] = getattr(link, step.kind)
        fault(*(() if step.value is None else (step.value,)))


@perform.register
def _(step: Heal, world: World) -> None:
    for link in world.network.of(step.who):
        link.heal()


@perform.register
def _(step: Restart, world: World) -> None:
    world.restart(step.how, step.seconds)


@perform.register
def _(step: Revoke, world: World) -> None:
    world.revoke(step.who)


@perform.register
def _(step: Lifetime, world: World) -> None:
    world.people[step.who].come_back(step.seconds, renewed=step.renewed)


@perform.register
def _(step: SlowDisk, world: World) -> None:
    world.disk.seconds = step.seconds


async def _act(world: World, steps: tuple[Step, ...], *, stay: bool) -> None:
    """Do all steps and come to an end, after which nothing may be left.

    Args:
        world: where.
        steps: what is done.
        stay: whether people are still there when the server is stopped for good.
    """
    tasks = trio.lowlevel.current_statistics().tasks_living
    with world.scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run_server)
            await world.wait_up()
            async with trio.open_nursery() as people:
                world.invite(people)
                for step in steps:
                    world.note(step)
                    if isinstance(step, Advance):
                        await trio.sleep(step.seconds)
                    else:
                        perform(step, world)
                        await trio.lowlevel.checkpoint()
                await world.settle()
                if not stay:
                    await world.leave()
                world.close()
                await world.wait_down()
                people.cancel_scope.cancel(reason="the simulation is over")
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    if left or (world.network.links and not world.wrong):
        world.blame(f"{left} tasks and {len(world.network.links)} connections are left")


@contextmanager
def _directory(schedule: Schedule) -> Iterator[Path]:
    if schedule.store == "memory":
        yield Path()
        return
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        yield Path(directory)


def simulate(schedule: Schedule) -> Outcome:
    """Carry out a schedule; the same one has the same outcome again."""

    async def main() -> World:
        world = World(schedule, directory)
        complaints = Complaints(world)
        worker = (store, "in_thread", lambda *a, **k: world.disk.work(*a, **k))
        logger.addHandler(complaints)
        try:
            with replaced(worker, (logger, "propagate", False)):
                await _act(world, schedule.steps, stay=schedule.seed % 2 == 0)
        except Exception:
            world.blame(traceback.format_exc())
        finally:
            logger.removeHandler(complaints)
        return world

    logger = logging.getLogger("triows")
    with _directory(schedule) as directory, replaced(*SWIFT, *(SMALL if schedule.small else ())):
        world = run(main, schedule.seed)
    return Outcome(schedule, tuple(world.wrong), world.digest(), tuple(world.trace))


def shrink(outcome: Outcome) -> Outcome:
    """Return an outcome of fewer steps that is wrong, too: no single step of it can be left out."""
    best = outcome
    size = max(1, len(best.schedule.steps) // 2)
    while size:
        at = 0
        while at < len(best.schedule.steps):
            steps = best.schedule.steps[:at] + best.schedule.steps[at + size :]
            tried = simulate(attrs.evolve(best.schedule, steps=steps))
            if tried.wrong:
                best = tried
            else:
                at += size
        size //= 2
    return best
