"""The engine on Redis (or Valkey): several servers are one.

Redis gives the places: one script for each message appends it, remembers its id and tells the
nodes, in one step. One task here takes all that has gathered, sends it in one piece, and answers
in the order of submission. What is acknowledged was appended.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple, Self, final

import trio

from triows.auth import Revocation
from triows.bus import Bus, ChannelState, Done, Presence, Tell, Told
from triows.bus.address import Address
from triows.bus.channels import ChannelList
from triows.bus.cluster import Cluster
from triows.bus.envelope import Entry, News, encode_members, try_entry
from triows.bus.follower import Follower
from triows.bus.keys import ClusterKeys, Keys
from triows.bus.link import Link
from triows.bus.links import RETRY_AFTER, Call, Links
from triows.bus.nodes import Nodes
from triows.bus.replica import Replica, encode_all
from triows.bus.scripts import LOOK, PUBLISH, READ
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.logs import MAX_IDS, Log, Slice, id_key
from triows.messages import Message, MessageType, Patterns, Position, Receipt

QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait for Redis, each message counted with `QUEUED_OVERHEAD` as well."""

QUEUED_OVERHEAD: Final = 512
BATCH_MESSAGES: Final = 512
"""Messages sent at once at most."""

FRAME_OVERHEAD: Final = 50
"""Bytes a message has more for viewers than in Redis, beside its channel: at most."""

_BATCH_BYTES: Final = 4 * 1024 * 1024
_TOLD_AT_ONCE: Final = 256  # messages concluded before others get a turn
_KEPT, _KNOWN, _ENDED = 0, 1, 2  # what the script says of a message


class Submitted(NamedTuple):
    """A message that waits for Redis."""

    channel: str
    message: Message
    call: Call
    done: Done
    size: int


@final
class RedisBus(Bus):
    """Keeps every log in Redis, and the ends of those watched here in memory.

    Args:
        address: of the Redis, or of a cluster.
        limits: what is kept, and how much of it in memory.
        tell: told of each log that has grown.
        told: told of each revocation, of whichever node.
    """

    def __init__(self, address: Address, limits: LogLimits, tell: Tell, told: Told) -> None:
        self._address = address
        self._keys: Keys
        self._link: Links
        if address.is_cluster:
            self._keys = ClusterKeys(address.prefix)
            self._link = Cluster(address, self._hear, self._miss)
        else:
            self._keys = Keys(address.prefix, address.database)
            self._link = Link(address, self._hear, self._miss)
        self._follower = Follower(
            self._link, self._keys, limits, tell, lambda log: self.renewed(log)
        )
        self._nodes = Nodes(self._link, self._keys, self, told)
        self._list = ChannelList(self._link, self._keys)
        self._values = (
            *(round(limits.idempotency_window * 1e6), MAX_IDS, limits.max_messages),
            *(limits.max_bytes, round(limits.max_age)),
        )
        self._queue: deque[Submitted] = deque()
        self._queued = 0  # bytes, those being sent included
        self._lot = trio.lowlevel.ParkingLot()  # the engine's task, when there is nothing to do
        self._settled = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> Self:
        """Find out whether there is a Redis, and whether it takes us; in some seconds.

        Raises:
            ConfigError: naming its address, what is wrong, and what to do.
        """
        _, revocations = await self._link.probe(
            (self._keys.publish, self._keys.node("nobody"), b""),  # whether we may
            (b"HGETALL", self._keys.revocations),
        )
        self._nodes.obey(revocations)
        return self

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes the logs in memory are counted with."""
        return self._follower.shelf.size

    @property
    def failure(self) -> str | None:
        """Why Redis cannot be used now."""
        return self._link.failure

    @property
    def commands(self) -> int:
        """How many commands were sent to Redis."""
        return self._link.commands

    # Publishing

    def submit(self, channel: str, message: Message, user: str, now: float, done: Done) -> None:
        """Have `message` appended; `done` is told when it is, or at once if too much waits.

        While Redis cannot be used it is refused in its turn, which comes soon then: what was
        submitted before is answered before.
        """
        size = len(message.raw) + QUEUED_OVERHEAD
        try:
            self._check(size)
            call = self._call(channel, message, user)
        except RequestError as error:
            done(message, error)
            return
        self._queued += size
        self._queue.append(Submitted(channel, message, call, done, size))
        self._lot.unpark()

    def _check(self, size: int) -> None:
        if self._queued + size > QUEUE_BYTES:
            reason = (
                f"Redis at {self._address} does not keep up: {self._queued} bytes wait, the limit "
                f"is {QUEUE_BYTES}"
            )
            raise RequestError(ErrorCode.UNAVAILABLE, reason, retry_after=RETRY_AFTER)

    def _call(self, channel: str, message: Message, user: str) -> Call:
        is_end = message.type == MessageType.END
        try:
            values = (
                secrets.token_hex(6).encode(),
                id_key(user, message.id).encode() if message.id is not None else b"",
                encode_members(message),
                (message.raw or b"{}") if is_end else b"",
                *self._values,
                channel.encode(),
                *(self._keys.publish, self._keys.news(channel), self._keys.shared_news(channel)),
            )
        except ValueError as error:  # halves of characters: a token's JSON may have them
            reason = f"a message that cannot be stored: {error}"
            raise RequestError(ErrorCode.BAD_REQUEST, reason) from None
        return Call(PUBLISH, self._keys.all(channel), values)

    async def run(self) -> None:
        """Send what is submitted, and listen to what is watched, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.run)
            nursery.start_soon(self._follower.run)
            nursery.start_soon(self._nodes.run)
            nursery.start_soon(self._list.run)
            while True:
                if not self._queue:
                    await self._lot.park()
                await trio.lowlevel.checkpoint()  # all that are ready now get into the batch
                await self._publish(self._take())

    def _take(self) -> list[Submitted]:
        """Take the next batch off the queue."""
        batch: list[Submitted] = []
        room = _BATCH_BYTES
        while self._queue and len(batch) < BATCH_MESSAGES and room > 0:
            batch.append(self._queue.popleft())
            room -= batch[-1].size
        return batch

    async def _publish(self, batch: list[Submitted]) -> None:
        """Have a batch appended, and answer for it."""
        try:
            replies = await self._link.run_scripts([submitted.call for submitted in batch])
        except RequestError as error:
            # What gathered behind it would only wait as long again.
            batch += self._queue
            self._queue.clear()
            replies = [error] * len(batch)
        for number, (submitted, reply) in enumerate(zip(batch, replies, strict=True), 1):
            self._queued -= submitted.size
            submitted.done(submitted.message, self._conclude(submitted, reply))
            if not number % _TOLD_AT_ONCE:
                await trio.lowlevel.checkpoint()
        if not self._queued:
            self._settled.unpark_all()

    def _conclude(
        self, submitted: Submitted, reply: list[Any] | RequestError
    ) -> Receipt | RequestError:
        """Return what became of a message; what is live here has it before its publisher knows."""
        if isinstance(reply, RequestError):
            return reply
        outcome, epoch, offset, at, earliest = reply
        channel, message = submitted.channel, submitted.message
        if outcome == _ENDED:
            return RequestError(
                ErrorCode.ENDED, f"{channel} has ended; nothing can be published to it"
            )
        receipt = Receipt(epoch, offset, duplicate=outcome == _KNOWN)
        if outcome == _KEPT:
            self.published += 1
            log = self._follower.shelf.get(channel)
            if log is not None and log.is_current:
                entry = Entry(offset, at, message)
                self._follower.learn(log, News(receipt.epoch, earliest, entry))
        return receipt

    async def settle(self) -> None:
        """Return when everything submitted before has been answered; needs `run`."""
        while self._queued:
            await self._settled.park()

    # Reading

    async def open(self, channel: str, since: Position | None = None) -> Log:
        """Return the channel's log; asks Redis if it is not in memory, or lacks `since`."""
        return await self._follower.follow(channel, since)

    async def find(self, channel: str, since: Position | None = None) -> Log | None:
        """Return the channel's log, if something was published to it or somebody watches it.

        Raises:
            RequestError: `unavailable`.
        """
        found = self._follower.shelf.get(channel)
        if found is None or not found.is_known:
            call = Call(LOOK, self._keys.log(channel), (b"", b"", 0, 0, 0, 0))
            (reply,) = await self._link.run_scripts([call])
            if isinstance(reply, RequestError):
                raise reply
            if not reply:
                return None
        log = await self._follower.follow(channel, since)
        return log if log.head or log.watchers else None

    async def history(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the texts from `first` to `last`; asks Redis for what memory lacks."""
        if first >= log.held:
            return log.read(first, last, max_bytes)
        frames = await self._read(log, first, last, max_bytes)
        return [frame_payload(frame) for frame in frames]

    async def fetch(self, log: Log, cursor: int, max_bytes: int) -> Slice:
        """Return what follows `cursor`; asks Redis for what memory lacks."""
        if cursor + 1 >= log.held:
            return log.slice(cursor, max_bytes)
        frames = await self._read(log, cursor + 1, log.head, max_bytes)
        if not frames:
            raise _unreadable(log, cursor + 1)
        return Slice(b"".join(frames), cursor + len(frames))

    async def _read(self, log: Log, first: int, last: int, max_bytes: int) -> list[bytes]:
        """Return the frames from `first` on; what Redis does not have is given up."""
        assert isinstance(log, Replica)
        epoch = log.epoch
        values = (epoch.encode(), first, last, max_bytes, len(log.channel) + FRAME_OVERHEAD)
        call = Call(READ, self._keys.log(log.channel), values)
        (reply,) = await self._link.run_scripts([call])
        if isinstance(reply, RequestError):
            raise reply
        now, earliest, texts = reply
        if now != epoch or log.epoch != epoch:
            self._follower.doubt(log)
            raise RequestError(
                ErrorCode.UNAVAILABLE, f"{log.channel} begins anew", retry_after=RETRY_AFTER
            )
        log.move_earliest(earliest)
        entries: list[Entry] = []
        for text in texts:
            entry = try_entry(text)
            if entry is None or entry.offset != first + len(entries):
                break
            entries.append(entry)
        if not entries and first >= log.earliest:
            # Evicted, or damaged by others: it will not come back.
            log.move_earliest(_sound_after(first, texts, log.held))
        return encode_all(log.channel, entries)

    def logs(self) -> Iterable[Log]:
        """Return the logs that are live here, quiet for longest first."""
        return self._follower

    async def channels(self, prefix: str, after: str, limit: int) -> list[ChannelState]:
        """Return how the channels stand in Redis, by name."""
        return await self._list.read(prefix, after, limit)

    def attend(self, patterns: Patterns) -> None:
        """Listen to these channels, also while they are not in memory here."""
        self._follower.attend(patterns)

    def neglect(self, patterns: Patterns) -> None:
        """Undo one `attend`."""
        self._follower.neglect(patterns)

    # Shared

    async def present(self, channel: str) -> Presence:
        """Return who watches a channel, on all nodes."""
        return await self._nodes.present(channel)

    async def known(self, connection: str) -> dict[str, object] | None:
        """Return what is known of a connection, on all nodes."""
        return await self._nodes.known(connection)

    async def revoke(self, revocation: Revocation) -> None:
        """Have a revocation appended, and told to all nodes."""
        await self._nodes.revoke(revocation)

    # Heard

    def _hear(self, name: bytes, text: bytes) -> None:
        if not self._nodes.hear(name, text):
            self._follower.hear(name, text)

    def _miss(self, names: Collection[bytes]) -> None:
        self._nodes.miss(names)
        self._follower.miss(names)


def _unreadable(log: Log, offset: int) -> RequestError:
    return RequestError(ErrorCode.UNAVAILABLE, f"{log.channel}: offset {offset} cannot be read")


def _sound_after(first: int, texts: list[bytes], held: int) -> int:
    """Return the offset from which on messages can be read, if that of `first` cannot."""
    offsets = [entry.offset for entry in map(try_entry, texts) if entry is not None]
    return min([offset for offset in offsets if offset > first], default=held)
