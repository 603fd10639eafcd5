"""One simulation: a server, people, a network that fails, and a look whether all is right."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from typing import Final, final

import trio

from triows import hub, viewer
from triows.codec import decode
from triows.errors import ConfigError, ErrorCode, RequestError
from triows.messages import Message, MessageType
from triows.server import Server, open_server
from triows.testing.bounds import broken
from triows.testing.disk import Disk, crash
from triows.testing.keeping import check_kept
from triows.testing.ledger import Ledger, Sent
from triows.testing.listening import Listener
from triows.testing.network import Link, Network
from triows.testing.people import Person
from triows.testing.schedule import CHANNELS, LISTENER, PEOPLE, SLOWEST, Schedule
from triows.testing.streams import Tap
from triows.testing.tokens import Tokens
from triows.testing.tuning import settings_of
from triows.testing.witness import Said, Witness

QUIET: Final = 400.0
"""Seconds after the last step within which everybody has to have got everything."""

_PROMPT: Final = 1.0  # seconds within which everything comes if nothing fails
_ROUNDS: Final = 2  # messages published to see that
_LOOK: Final = 0.5  # seconds between two looks whether they have


@final
class World:
    """Everything that takes part in one simulation.

    Args:
        schedule: what happens.
        directory: for the store, if it is on disk.

    Attributes:
        wrong: what was found to be wrong, first one first; then the simulation is over.
        trace: what happened, each with its time.
        server: the one that runs, if one does.
    """

    def __init__(self, schedule: Schedule, directory: Path) -> None:
        self.wrong: list[str] = []
        self.trace: list[tuple[object, ...]] = []
        self.network = Network(schedule.capacity)
        self.network.eager = schedule.eager
        self.network.on_link = self._observe
        self.tokens = Tokens()
        self.ledger = Ledger(self.blame)
        self.people = {name: Person(name, self, self.blame) for name in PEOPLE}
        self.listener = Listener(self)
        self.readers: dict[str, Person | Listener] = {LISTENER: self.listener, **self.people}
        self.server: Server | None = None
        self.disk = Disk()
        self.scope = trio.CancelScope()
        self.pull_bytes = 400 if schedule.small else hub.PULL_BYTES
        self._settings = settings_of(schedule, directory)
        self._witnesses: list[Witness] = []
        self._up, self._gone = trio.Event(), trio.Event()
        self._stop = trio.Event()
        self._process = trio.CancelScope()
        self._tasks: trio.Nursery | None = None  # of the server, while it runs
        self._down = 0.0
        self._over = False

    # What happens, and what is wrong with it

    def note(self, *what: object) -> None:
        """Write down what happens, and look whether everything holds."""
        self.trace.append((round(trio.current_time(), 6), *what))
        self.check()

    def blame(self, what: str) -> None:
        """Write down what is wrong, and end the simulation."""
        self.wrong.append(what)
        self.trace.append((round(trio.current_time(), 6), "WRONG", what))
        self.scope.cancel(reason="something is wrong")

    def check(self) -> None:
        """Look whether everything holds that has to hold at any moment."""
        if self.server is not None:
            for what in broken(self.server, self.pull_bytes):
                self.blame(what)
        for person in self.people.values():
            for view in person.views.values():
                waiting = len(view.reading._messages) if view.reading is not None else 0
                if waiting > viewer.BUFFER:
                    self.blame(f"{waiting} messages wait in a client; it reads {viewer.BUFFER}")

    def digest(self) -> str:
        """Return a hash of everything that happened."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()

    def _observe(self, link: Link) -> None:
        witness = Witness(link.name, self.ledger, self.blame, self._check_ack)
        witness.note = lambda said: self._heard(link.name, said)
        link.up.tap, link.down.tap = self._guarded(witness.up), self._guarded(witness.down)
        self._witnesses.append(witness)
        self.note("link", link.name)

    def _guarded(self, tap: Tap) -> Tap:
        """Return a tap that takes it for wrong what cannot even be read."""

        def guarded(data: bytes) -> None:
            try:
                tap(data)
            except Exception:
                self.blame(traceback.format_exc())

        return guarded

    def _heard(self, name: str, said: Said) -> None:
        self.note("to", name, said.type, said.channel, said.offset)

    def _check_ack(self, channel: str, epoch: str, offset: int, id_: str) -> None:
        """Check that an acknowledged message is kept, at the moment the client is told so."""
        server = self.server
        assert server is not None
        log = next((log for log in server._bus.logs() if log.channel == channel), None)
        if log is None:
            return  # on disk only; what is there is checked when the server starts again
        if log.epoch != epoch or log.head < offset:
            self.blame(f"{id_} was acknowledged at {offset} of {channel}, which is at {log.head}")
        for text in log.read(offset, offset, 1):
            message = decode(text)
            self.ledger.message(channel, epoch, offset, message.id, message.type, message.raw)

    # The server

    async def run_server(self) -> None:
        """Have a server run, and another one after each that is stopped."""
        while not self._over:
            self.disk, self._stop = Disk(), trio.Event()
            with trio.CancelScope() as self._process:
                try:
                    async with trio.open_nursery() as self._tasks:
                        await self._serve()
                except* ConfigError as group:  # the disk fails; whoever supervises tries again
                    self.note("cannot start", str(group.exceptions[0]))
            self.server, self._tasks, self._up = None, None, trio.Event()
            self.note("down")
            if not self._over:
                await trio.sleep(self._down)
        self._gone.set()

    async def _serve(self) -> None:
        port = self.network.port()
        try:
            async with open_server(
                settings=self._settings, auth=self.tokens, listen=port
            ) as self.server:
                async with trio.open_nursery() as nursery:
                    await self._check_kept(self.server)
                    nursery.start_soon(self.listener.run, self.server)
                    self._up.set()
                    await self._stop.wait()
                    nursery.cancel_scope.cancel(reason="the server stops")
                began = trio.current_time()
        finally:
            port.close()
            self.server = None
        self._check_drained(trio.current_time() - began)

    @property
    def is_up(self) -> bool:
        """Whether a server runs that has not been told to stop."""
        stopping = self._stop.is_set() or self._process.cancel_called
        return self.server is not None and not stopping

    def restart(self, how: str, seconds: float) -> None:
        """Stop the server, if it runs: `drain` or `crash`; start one after so many seconds."""
        server = self.server
        if server is None or not self.is_up:
            return
        self._down = seconds
        if how == "drain":
            self._stop.set()
            return
        for link in self.network.links:
            link.reset()
        self.disk.dead = True
        crash(server)
        self._process.cancel(reason="a crash")

    def revoke(self, who: str) -> None:
        """Revoke all tokens of somebody, who is told nothing more from now on."""
        if self.server is not None and self._tasks is not None:
            self._tasks.start_soon(self._revoke, self.server, who)

    async def _revoke(self, server: Server, who: str) -> None:
        if self.disk.dead:
            return  # the server has crashed in this very tick
        for witness in self._witnesses:
            witness.muted = witness.muted or witness.name == who
        try:
            await server.revoke(user=who)  # who is cut at once; the disk may be slow, or fail
        except RequestError as error:
            self.note("not kept", str(error))

    def _check_drained(self, seconds: float) -> None:
        limits = self._settings.limits
        most = limits.drain_timeout
        if self._over:  # nothing fails any more
            most = limits.close_timeout + _PROMPT
        if seconds > most * (1 if self._settings.store.startswith("memory") else 2) + 0.001:
            self.blame(f"a drain took {seconds:g} s; the limit is {most:g} s")
        if self.network.links:
            self.blame(f"{len(self.network.links)} connections are left after a drain")

    async def _check_kept(self, server: Server) -> None:
        try:
            await check_kept(server, self.ledger, self.blame)
        except RequestError:
            if not self.disk.is_failing:
                raise

    # The end

    async def settle(self) -> None:
        """Have everything work again, and wait until everybody has got everything; then, when all
        are connected and nothing fails, what is published has to come at once.
        """
        for person in self.people.values():
            if not person.renewed:
                person.come_back(3600.0, renewed=True)
        for reader in self.readers.values():
            reader.pause = 0.0
        self._heal()
        await trio.sleep(SLOWEST)  # over the message in hand, and until what broke is noticed
        await self._wait_for_all(QUIET)
        for number in range(_ROUNDS if not self.wrong else 0):
            await self._publish_more(number)
            await self._wait_for_all(_PROMPT)
        if not self.wrong:
            assert self.server is not None
            await self._check_kept(self.server)

    async def _publish_more(self, number: int) -> None:
        """Publish a message on each channel, by the server itself."""
        assert self.server is not None
        for channel in CHANNELS:
            message = Message(MessageType.LOG, b"%d" % number, id=f"{LISTENER} {number} {channel}")
            assert message.id is not None
            sent = Sent(LISTENER, channel, number, message.type, message.raw)
            self.ledger.sent[message.id] = sent
            try:
                at = await self.server.publish(channel, message)
                self.ledger.ack(channel, at.epoch, at.offset, message.id)
            except RequestError as error:
                if error.code is not ErrorCode.ENDED:
                    self.blame(f"the application cannot publish: {error!r}")

    async def _wait_for_all(self, seconds: float) -> None:
        """Wait until everybody has got everything, so many seconds at most."""
        self._heal()
        deadline = trio.current_time() + seconds
        while waiting := await self._waiting():
            if trio.current_time() > deadline:
                self.blame(f"after {seconds:g} s without a fault {', '.join(waiting)}")
                return
            self._heal()
            await trio.sleep(_LOOK)

    def _heal(self) -> None:
        self.disk.seconds = 0.0
        for link in self.network.links:
            link.heal()

    async def _waiting(self) -> list[str]:
        """Return who has not got everything yet, and what of."""
        if not self.is_up:
            return ["the server is not there"]
        assert self.server is not None
        waiting = [f"{p.name} publishes {p.queue[0]}" for p in self.people.values() if p.queue]
        waiting += [f"{p.name} connects" for p in self.people.values() if not p.is_connected]
        for person in self.people.values():
            for channel, view in person.views.items():
                try:
                    log = await self.server._bus.find(channel)
                except RequestError:  # the disk, still
                    return [f"{channel} cannot be read"]
                position = view.reading.position if view.reading is not None else None
                if not view.over and (log is None or position != log.position):
                    waiting.append(f"{person.name} watches {channel}")
        return waiting

    async def leave(self) -> None:
        """Have everybody leave; nothing of them may be left."""
        for person in self.people.values():
            person.go_home()
        assert self.server is not None
        with trio.move_on_after(self._settings.limits.close_timeout + 1):
            while self.network.links:  # noqa: ASYNC110 virtual time
                await trio.sleep(_LOOK)
        if self.network.links or self.server._registry.members():
            self.blame(f"{len(self.network.links)} connections are left of those who have left")
        if self.server._hub._topics:
            self.blame(f"{sorted(self.server._hub._topics)} are watched by nobody who is there")

    def close(self) -> None:
        """Drain the server for good."""
        self._over = True
        self._stop.set()

    def invite(self, nursery: trio.Nursery) -> None:
        """Have everybody take part, in tasks of `nursery`."""
        for person in self.people.values():
            nursery.start_soon(person.run)

    async def wait_down(self) -> None:
        """Wait until no server runs."""
        await self._gone.wait()

    async def wait_up(self) -> None:
        """Wait until a server runs."""
        await self._up.wait()
