"""The bus: gives messages their place in a channel's log, keeps them, and tells who listens.

Written for a remote engine: publishing is submitted in order and completes later, so that one
round trip or one fsync serves all that gathered. The engine in memory completes at once.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

import attrs
import trio

from triows.auth import Revocation
from triows.errors import RequestError
from triows.logs import Log, Slice
from triows.messages import Message, Outcome, Patterns, Position

Done = Callable[[Message, Outcome], None]
"""Told once how a submitted message fared; never waits, never raises."""

DoneAll = Callable[[Sequence[Message], Sequence[Outcome]], None]
"""Told how some of the messages submitted together fared, in their order; as `Done`."""

Tell = Callable[[Log, int], None]
"""Told that a log has grown, and by how many messages; never waits, never raises."""

Renewed = Callable[[Log], None]
"""Told that a log began anew in its place, with another epoch; never waits, never raises."""

Told = Callable[[Revocation], None]
"""Told of a revocation that this process may not know yet; never waits, never raises."""


@attrs.frozen
class ChannelState:
    """How a channel stands.

    Attributes:
        channel: its name.
        epoch, head, earliest, ended: as of its `Log`.
        bytes: of what is kept of it, as the engine counts them.
        opened_at, touched_at: when it was made, and its newest message; seconds since 1970.
    """

    channel: str
    epoch: str
    head: int
    earliest: int
    ended: bytes | None
    bytes: int
    opened_at: float
    touched_at: float

    @classmethod
    def of(cls, log: Log) -> Self:
        """Return how the channel of a log in memory stands."""
        passed = time.time() - trio.current_time()  # from monotonic time to that of the calendar
        return cls(
            log.channel,
            log.epoch,
            log.head,
            log.earliest,
            log.ended,
            log.kept_bytes,
            passed + log.opened,
            passed + log.touched,
        )


Present = Callable[[str], list[dict[str, object]]]
"""Says who watches a channel in this process; never waits, never raises."""


Known = Callable[[str], dict[str, object] | None]
"""Says of a connection of this process, by its id, how it is doing or why it ended, or None if
there was none; never waits, never raises.
"""


MAX_PRESENT: Final = 1000
"""Connections named of one process that watch a channel; all are counted."""


@attrs.frozen
class Presence:
    """Who watches a channel.

    Attributes:
        count: how many connections.
        connections: who they are, of each process the first `MAX_PRESENT`.
    """

    count: int
    connections: list[dict[str, object]]

    @classmethod
    def of(cls, connections: list[dict[str, object]]) -> Presence:
        """Return what there is to say of the connections of one process."""
        return cls(len(connections), connections[:MAX_PRESENT])


def _nobody(_: str) -> list[dict[str, object]]:
    return []


def _unknown(_: str) -> dict[str, object] | None:
    return None


def _ignore(_: Log) -> None:
    pass


class Bus(ABC):
    """One engine's promise: sequence, keep, tell.

    An acknowledgement means what the engine says it means; in memory: kept by this process. A
    context manager: entered before anything else is asked of it, and left when all who use it
    have ended. Entered, it has told of all revocations that it kept.

    Attributes:
        published: messages kept since the start.
        size: bytes all logs in this process are counted with.
        renewed: told of each log that began anew in its place, with another epoch.
        present_here: asked who watches a channel in this process.
        known_here: asked what is known of a connection in this process.
    """

    published: int = 0
    size: int = 0
    renewed: Renewed = staticmethod(_ignore)
    present_here: Present = staticmethod(_nobody)
    known_here: Known = staticmethod(_unknown)

    @abstractmethod
    def submit(self, channel: str, message: Message, user: str, now: float, done: Done) -> None:
        """Publish `message` after all that were submitted before it; never waits.

        Args:
            channel: a checked channel name.
            message: type, id and raw are taken from it.
            user: who publishes; ids are remembered for each user apart.
            now: monotonic time in seconds; messages of one moment share a timestamp.
            done: told the receipt, or why not: before this returns, or later.
        """

    def submit_all(
        self, channel: str, messages: Sequence[Message], user: str, now: float, done: DoneAll
    ) -> None:
        """Publish each of `messages` as `submit` does."""

        def each(message: Message, outcome: Outcome) -> None:
            done((message,), (outcome,))

        for message in messages:
            self.submit(channel, message, user, now, each)

    @abstractmethod
    async def open(self, channel: str, since: Position | None = None) -> Log:
        """Return the channel's log, live from now on, making it if it is new.

        Args:
            channel: a checked channel name.
            since: a position somebody claims to have been told: if this process does not know
                it, an engine that is shared finds out whether others do.

        Raises:
            RequestError: `unavailable`, it cannot be read now.
        """

    @abstractmethod
    async def find(self, channel: str, since: Position | None = None) -> Log | None:
        """Return the channel's log as `open` does, if there is one; makes none."""

    @abstractmethod
    async def history(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the JSON texts from offset `first` to `last`, oldest first, without a hole.

        Stops before `max_bytes` are passed, but returns at least one if there is one; none if
        the first is no longer kept.

        Raises:
            RequestError: `unavailable`, it cannot be read now.
        """

    @abstractmethod
    async def fetch(self, log: Log, cursor: int, max_bytes: int) -> Slice:
        """Return what follows `cursor`, as `Log.slice` does, also of what memory does not hold.

        Raises:
            RequestError: `unavailable`, it cannot be read now, or is no longer kept.
        """

    @abstractmethod
    def logs(self) -> Iterable[Log]:
        """Return the logs this process holds."""

    @abstractmethod
    async def channels(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how the channels stand that the engine keeps, in memory or not, by name.

        Those that nothing was published to are named only while somebody watches them, if at all.

        Args:
            prefix: only names that begin so; ASCII, as all names are.
            after: only names after this one.
            limit: at most so many; there are fewer only if there are no more.

        Raises:
            RequestError: `unavailable`, it cannot be read now.
        """

    @abstractmethod
    async def revoke(self, revocation: Revocation) -> None:
        """Keep a revocation for as long as what is published, and tell it to all who share that.

        Returns when it is kept as an acknowledged message would be. This process has obeyed it
        before; being told of it again does no harm.

        Raises:
            RequestError: `unavailable`, it could not be kept.
        """

    @abstractmethod
    async def run(self) -> None:
        """Do the engine's background work, until cancelled.

        Cancelled, what is being stored is stored, and answered if that is known without asking
        elsewhere; what waits for that is neither.
        """

    async def present(self, channel: str) -> Presence:
        """Return who watches a channel, in all processes that share the engine.

        Those of a process that does not answer within a second are not among them.

        Raises:
            RequestError: `unavailable`, the others cannot be asked now.
        """
        await trio.lowlevel.checkpoint()
        return Presence.of(self.present_here(channel))

    async def known(self, connection: str) -> dict[str, object] | None:
        """Return what is known of a connection, in all processes that share the engine; as
        `present` does.

        Raises:
            RequestError: `unavailable`.
        """
        await trio.lowlevel.checkpoint()
        return self.known_here(connection)

    def attend(self, patterns: Patterns) -> None:  # noqa: B027 all that grows is told anyway
        """Tell of all that is published on these channels from now on, by any process."""

    def neglect(self, patterns: Patterns) -> None:  # noqa: B027 as above
        """Undo one `attend`."""

    @property
    def failure(self) -> str | None:
        """Why the engine cannot publish now, as far as is known without trying."""
        return None

    async def settle(self) -> None:  # noqa: B027 nothing waits in an engine that answers at once
        """Return when everything submitted before has been answered; needs `run`."""

    async def __aenter__(self) -> Self:
        """Raises ConfigError if what is kept cannot be had."""
        return self

    async def __aexit__(  # noqa: B027 as above
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of what is kept."""

    async def publish(self, channel: str, message: Message, user: str) -> Position:
        """Publish `message` and return its position when the engine has kept it.

        Cancelled, the outcome is unknown; with an `id`, publishing again finds out.

        Raises:
            RequestError: the engine refused it, for example `ended`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        outcome: list[Outcome] = []
        completed = trio.Event()

        def done(_: Message, result: Outcome) -> None:
            outcome.append(result)
            completed.set()

        self.submit(channel, message, user, trio.current_time(), done)
        await completed.wait()
        if isinstance(outcome[0], RequestError):
            raise outcome[0]
        return outcome[0].position
