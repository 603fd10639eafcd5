"""The connections of the Redis engine to a cluster: one to each master, and to whichever takes its
place.

The rest of the engine asks here as it would ask one Redis; what concerns a channel goes to the
master that has its slot. Which one that is the nodes say, when they are asked and when they refuse.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, final

import trio

from triows.bus.address import Address, Place
from triows.bus.connecting import START_TIMEOUT, probe
from triows.bus.keys import slot_of
from triows.bus.link import Link
from triows.bus.links import Call, Missed, Moved, Push, Reply
from triows.bus.topology import OUR_SLOTS, Master, Topology
from triows.errors import ConfigError, ErrorCode, RequestError

logger = logging.getLogger("triows.redis")

LOOK_INTERVAL: Final = 10.0
"""Seconds between two questions who has what, if there is no reason to ask."""

LOOK_PAUSE: Final = 0.2
"""Seconds between two such questions at least."""

RETRY_AFTER: Final = 0.2
"""Seconds after which those may try again whose slot nobody has, or is on its way."""

_MOST_MOVES: Final = 4  # followed for one request: a cluster that is being changed has another soon
NODES: Final = b"CLUSTER NODES"


@final
class Cluster:
    """Connections to all masters of a cluster.

    Args:
        address: of some of its nodes.
        push: told of each message that is heard.
        missed: told of names under which something may not have been heard.
    """

    def __init__(self, address: Address, push: Push, missed: Missed) -> None:
        self._address = address
        self._push = push
        self._missed = missed
        self._tls = ssl.create_default_context() if address.tls else None
        self._places: list[Place] = list(address.places)  # of nodes, those asked last at the end
        self._links: dict[Place, Link] = {}
        self._owners: dict[int, tuple[int, Link]] = {}  # of a slot: in which epoch, and who
        self._names: Counter[bytes] = Counter()  # subscribed to
        self._heard: dict[bytes, Link] = {}  # where each of them is
        self._unheard: set[bytes] = set()  # those that are nowhere yet
        self._doubtful = trio.Event()  # who has what
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[Link, trio.CancelScope] = {}

    # Used

    @property
    def failure(self) -> str | None:
        """Why no master can be used now; as long as one can, the others' channels wait."""
        failures = [link.failure for link in self._links.values()]
        return None if None in failures else next(iter(failures), "the cluster has no master")

    @property
    def commands(self) -> int:
        """How many were sent to those that are masters now."""
        return sum(link.commands for link in self._links.values())

    @property
    def offset(self) -> float:
        """Seconds to add to Redis' time for the monotonic one here: the nodes' clocks are one."""
        return next((link.offset for link in self._links.values() if link.offset), 0.0)

    async def run_scripts(self, calls: Sequence[Call]) -> list[Reply]:
        """Run scripts, on each master in order, and return what each replied; never raises."""
        replies: dict[int, Reply] = {}
        left: Iterable[int] = range(len(calls))
        for _ in range(_MOST_MOVES):
            await self._run(calls, left, replies)
            left = [number for number in left if isinstance(replies[number], Moved)]
            if not left:
                break
        if any(isinstance(reply, RequestError) for reply in replies.values()):
            self._doubt()
        return [replies[number] for number in range(len(calls))]

    async def _run(
        self, calls: Sequence[Call], numbers: Iterable[int], replies: dict[int, Reply]
    ) -> None:
        """Run some of the scripts, on all masters at the same time."""
        parts: dict[Link, list[int]] = defaultdict(list)
        for number in numbers:
            try:
                parts[self._link_of(calls[number].keys[0])].append(number)
            except RequestError as error:
                replies[number] = error

        async def run_part(link: Link, part: list[int]) -> None:
            try:
                found = await link.run_scripts([calls[number] for number in part])
            except RequestError as error:
                found = [error] * len(part)
            replies.update(zip(part, found, strict=True))
            if any(isinstance(reply, Moved) for reply in found):
                await self._look(link)

        async with trio.open_nursery() as nursery:
            for link, part in parts.items():
                nursery.start_soon(run_part, link, part)

    async def ask(self, *command: bytes) -> Any:
        """Send one command to the master that has what its second word names.

        Raises:
            RequestError: `unavailable`.
        """
        for _ in range(_MOST_MOVES):
            link = self._link_of(command[1])
            try:
                return await link.ask(*command)
            except Moved as error:
                refused: RequestError = error
                await self._look(link)
            except RequestError:
                self._doubt()
                raise
        raise refused

    def tell(self, *command: bytes) -> None:
        """Send such a command whose reply is of no interest, if there is a connection."""
        if (owner := self._owners.get(slot_of(command[1]))) is not None:
            owner[1].tell(*command)

    def subscribe(self, *names: bytes) -> None:
        """Hear what is told there, whoever has it, until `unsubscribe` was called as often."""
        self._unheard.update(name for name in names if not self._names[name])
        self._names.update(names)
        self._place()

    def unsubscribe(self, *names: bytes) -> None:
        """Undo one `subscribe`."""
        self._names.subtract(names)
        for name in {name for name in names if self._names[name] <= 0}:
            del self._names[name]
            self._unheard.discard(name)
            if (link := self._heard.pop(name, None)) is not None:
                link.unsubscribe(name)

    def _place(self) -> list[bytes]:
        """Subscribe where it can be done to what is heard nowhere; return what that is."""
        parts: dict[Link, list[bytes]] = defaultdict(list)
        for name in self._unheard:
            if (owner := self._owners.get(slot_of(name))) is not None:
                parts[owner[1]].append(name)
        for link, names in parts.items():
            self._heard.update(dict.fromkeys(names, link))
            self._unheard.difference_update(names)
            link.subscribe(*names)
        return [name for names in parts.values() for name in names]

    def _link_of(self, name: bytes) -> Link:
        slot = slot_of(name)
        if slot not in self._owners:
            self._doubt()
            reason = f"no master of the cluster at {self._address} has slot {slot}"
            raise RequestError(ErrorCode.UNAVAILABLE, reason, retry_after=RETRY_AFTER)
        return self._owners[slot][1]

    # Who has what

    async def probe(self, *commands: tuple[bytes, ...]) -> list[Any]:
        """Find out who has what, and ask the master that has what the first command names.

        Raises:
            ConfigError: no node can be reached, it is no cluster, or one that is not complete.
        """
        give_up = trio.current_time() + START_TIMEOUT
        while (wrong := await self._find()) is not None:
            if trio.current_time() >= give_up:
                raise wrong
            await trio.sleep(LOOK_PAUSE)
        return await self._link_of(commands[0][1]).probe(*commands)

    async def _find(self) -> ConfigError | None:
        """Ask the nodes that are known who has what; return what is wrong, if it is not known."""
        for place in self._address.places:
            try:
                (text,) = await probe(self._address.at(place), self._tls, [(NODES,)], patience=0)
            except ConfigError as error:
                wrong = error
                continue
            self._obey(text, place)
            missing = [slot for slot in OUR_SLOTS if slot not in self._owners]
            if not missing:
                return None
            wrong = ConfigError(
                f"the cluster at {self._address} is not complete: no master has slot {missing[0]}; "
                "`redis-cli --cluster fix` gives each slot to one"
            )
        return wrong

    async def run(self) -> None:
        """Have connections, and know who has what, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for link in self._links.values():
                self._nursery.start_soon(self._run_link, link)
            while True:
                with trio.move_on_after(LOOK_INTERVAL):
                    await self._doubtful.wait()
                self._doubtful = trio.Event()
                for place in list(self._places):
                    # Each in its turn: one that is cut off from the others does not know.
                    self._places.append(self._places.pop(0))
                    if await self._look(self._links.get(place) or self._open(place)):
                        break
                await trio.sleep(LOOK_PAUSE)

    async def _run_link(self, link: Link) -> None:
        with self._scopes[link]:
            await link.run()

    def _open(self, place: Place) -> Link:
        return Link(self._address.at(place), self._push, self._missed)

    def _doubt(self) -> None:
        """Have a node asked who has what."""
        self._doubtful.set()

    async def _look(self, link: Link) -> bool:
        """Ask a node who has what; false if it does not say so."""
        (place,) = link.address.places
        text = await link.try_ask(NODES)
        return isinstance(text, bytes) and self._obey(text, place)

    def _obey(self, text: bytes, asked: Place) -> bool:
        """Have everything asked where it is; false if that is not understood."""
        try:
            topology = Topology.read(text, asked, tls=self._address.tls)
        except ValueError as error:
            logger.warning("what Redis at %s:%d says of its cluster: %s", *asked, error)
            return False
        known = {*topology.places, *self._address.places}
        self._places = [place for place in self._places if place in known]
        self._places[:0] = known.difference(self._places)
        moved = {
            slot
            for master in topology.masters
            for slot in master.slots
            if self._give(slot, master, asked)
        }
        self._move(moved)
        return True

    def _give(self, slot: int, master: Master, asked: Place) -> bool:
        """Believe that a master has a slot, if that is newer than what was known; return whether
        another had it. Of its own slots a node knows at any rate, and one that is gone cannot be
        asked.
        """
        epoch, before = self._owners.get(slot, (-1, None))
        if before is not None and epoch >= master.epoch:
            (place,) = before.address.places
            if place == master.place or (place != asked and before.failure is None):
                return False
        link = self._link_to(master.place)
        self._owners[slot] = master.epoch, link
        return link is not before

    def _link_to(self, place: Place) -> Link:
        if place not in self._links:
            link = self._links[place] = self._open(place)
            link.failing = self._doubt
            link.deprived = partial(self._lose, link)
            self._scopes[link] = trio.CancelScope()
            if self._nursery is not None:
                self._nursery.start_soon(self._run_link, link)
        return self._links[place]

    def _move(self, slots: set[int]) -> None:
        """Hear everything where it is told now, and let go of those that have nothing any more."""
        for name in [name for name in self._heard if slot_of(name) in slots] if slots else ():
            self._heard.pop(name).forget(name)
            self._unheard.add(name)
        self._missed(self._place())
        owners = {link for _, link in self._owners.values()}
        for link in set(self._links.values()).difference(owners):
            (place,) = link.address.places
            del self._links[place]
            link.retire()
            self._scopes.pop(link).cancel(reason="it is no master any more")

    def _lose(self, link: Link, name: bytes) -> None:
        """Take note that something is told elsewhere now: who told it before knows where."""
        (place,) = link.address.places
        if self._heard.pop(name, None) is not None:
            self._unheard.add(name)
        if place in self._places:
            self._places.remove(place)
            self._places.insert(0, place)
        self._doubt()
