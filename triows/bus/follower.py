"""The logs of the Redis engine that this node has live: what is heard of them, and what was not.

A node listens to a channel while its log is in memory here. A message that follows on what is
there is kept and told. Anything else, one whose predecessor is missing, another epoch, a new
connection, a look now and then, is one and the same case: Redis is asked how the log stands, and
what the node lacks comes with the answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, final

import attrs
import trio

from triows.bus import Tell
from triows.bus.envelope import Entry, News, read_news, try_entry
from triows.bus.keys import Keys
from triows.bus.links import Call, Links
from triows.bus.replica import Replica
from triows.bus.scripts import LOOK
from triows.bus.tail import Shelf
from triows.config import LogLimits
from triows.errors import RequestError
from triows.messages import Patterns, Position, check_channel

logger = logging.getLogger("triows.redis")

LOOK_INTERVAL: Final = 10.0
"""Seconds between two looks at what is live: for what was lost in silence, and to have Redis keep
logs that are watched.
"""

QUIET: Final = 30.0
"""Seconds after which a log that nobody watches or asks for is listened to no more."""

RETRY_DELAY: Final = 1.0  # seconds after which a log that could not be read is asked for again
_LOOKS: Final = 16  # at once
_LOOK_BYTES: Final = 1024 * 1024
"""Of messages that one look brings at most. Redis cuts a client for which more than 32 MiB wait."""


@final
class Follower:
    """Keeps the logs that are live here as Redis has them.

    Args:
        link: the connection.
        keys: their names.
        limits: what is kept, and how much of it in memory.
        tell: told of each log that has grown.
        renewed: told of each log that began anew, in place.
    """

    def __init__(
        self,
        link: Links,
        keys: Keys,
        limits: LogLimits,
        tell: Tell,
        renewed: Callable[[Replica], None],
    ) -> None:
        self.shelf: Shelf[Replica] = Shelf(limits.total_bytes, self._leave)
        self._link = link
        self._keys = keys
        self._room = min(limits.tail_bytes, _LOOK_BYTES)
        self._keep = round(limits.max_age)
        self._limits = attrs.evolve(limits, max_messages=0, max_bytes=limits.tail_bytes, max_age=0)
        self._tell = tell
        self._renewed = renewed
        self._attended: Counter[Patterns] = Counter()
        self._wanted: dict[str, Replica] = {}  # Redis is to be asked how they stand
        self._later: dict[str, Replica] = {}  # it was, and gave no answer
        self._lot = trio.lowlevel.ParkingLot()

    # Asked for

    async def follow(self, channel: str, since: Position | None) -> Replica:
        """Return the channel's log, live from now on, making it if it is new.

        Args:
            channel: its name.
            since: a position that some node has told; if it is news here, Redis is asked.

        Raises:
            RequestError: `unavailable`.
        """
        is_unknown = since is not None
        while True:
            log = self.shelf.get(channel)
            if log is None:
                log = self._begin(channel)
            log.used = trio.current_time()
            if log.is_known and not (is_unknown and _is_news(log, since)):
                return log  # without a checkpoint since it was seen to be live
            self._want(log)
            await log.looked.wait()
            if log.error is not None:
                raise log.error
            is_unknown = False

    def _begin(self, channel: str) -> Replica:
        log = Replica(channel, self._limits, trio.current_time())
        self.shelf.add(log)
        self._link.subscribe(self._keys.news(channel))
        return log

    def attend(self, patterns: Patterns) -> None:
        """Listen to channels that match, also while they are not in memory here."""
        self._attended[patterns] += 1
        if self._attended[patterns] == 1:
            self._link.subscribe(*self._keys.all_news(patterns))

    def neglect(self, patterns: Patterns) -> None:
        """Undo one `attend`."""
        self._attended[patterns] -= 1
        if not self._attended[patterns]:
            del self._attended[patterns]
            self._link.unsubscribe(*self._keys.all_news(patterns))

    # Heard

    def miss(self, names: Collection[bytes]) -> None:
        """Ask for what was not heard under these names."""
        for name in names:
            log = self.shelf.get(self._keys.heard(name, b"")[0])
            if log is not None:
                self.doubt(log)

    def hear(self, name: bytes, text: bytes) -> None:
        """Take what was told of a channel; never waits."""
        try:
            channel, text = self._keys.heard(name, text)
            check_channel(channel)
        except (ValueError, RequestError):
            logger.warning("news of %.80r, which is no channel: left out", name)
            return
        log = self.shelf.get(channel)
        if log is None and not any(patterns.match(channel) for patterns in self._attended):
            return
        try:
            news = read_news(text)
        except ValueError as error:
            logger.warning("%s: not understood, and read again: %s", channel, error)
            if log is not None:
                self.doubt(log)
            return
        if log is None:
            log = self._begin(channel)
            log.announced = news.entry.offset
            self._want(log)
        self.learn(log, news)

    def learn(self, log: Replica, news: News) -> None:
        """Take one message, if it follows on what is here; else ask for what comes before."""
        epoch, earliest, entry = news
        if not log.is_current:
            log.put_by(news)
        elif epoch == log.epoch and entry.offset == log.head + 1:
            self._add(log, entry)
            log.move_earliest(earliest)
        elif epoch != log.epoch or entry.offset > log.head or entry.at > log.at > 0:
            # The last: one that is newer, at an offset that was used. Redis has lost some.
            log.put_by(news)
            self.doubt(log)

    def doubt(self, log: Replica) -> None:
        """Ask Redis how a log stands before anything more is believed of it."""
        log.doubts += 1
        log.is_current = False
        self._want(log)

    def _add(self, log: Replica, entry: Entry) -> None:
        log.add(entry, min(trio.current_time(), entry.at / 1e6 + self._link.offset))
        self.shelf.touch(log)
        self._tell(log, 1)

    # Looked at

    async def run(self) -> None:
        """Ask for what is missing, and let go of what is not used, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_again)
            nursery.start_soon(self._sweep)
            while True:
                while not self._wanted:
                    await self._lot.park()
                logs = [self._wanted.pop(c) for c in list(self._wanted)[:_LOOKS]]
                await self._look(logs)

    def _want(self, log: Replica) -> None:
        self._wanted[log.channel] = log
        self._lot.unpark()

    async def _look(self, logs: list[Replica]) -> None:
        """Ask Redis how logs stand, and have them stand so here."""
        doubts = [log.doubts for log in logs]
        fresh = [Replica(log.channel, self._limits, 0).epoch for log in logs]
        calls = [self._call(log, epoch) for log, epoch in zip(logs, fresh, strict=True)]
        events = [log.looked for log in logs]
        for log in logs:
            log.looked = trio.Event()  # who asks from now on wants a later answer
        try:
            replies = await self._link.run_scripts(calls)
        except RequestError as error:
            replies = [error] * len(logs)
        for log, reply, event, before in zip(logs, replies, events, doubts, strict=True):
            if isinstance(reply, RequestError):
                self._put_off(log, reply)
            else:
                log.error = None
                self._apply(log, reply)
                if log.doubts == before:
                    self._catch_up(log)
            event.set()

    def _call(self, log: Replica, fresh: str) -> Call:
        epoch = log.epoch if log.is_known else ""
        values = (fresh.encode(), epoch.encode(), log.head, log.at, self._room, self._keep)
        return Call(LOOK, self._keys.log(log.channel), values)

    def _put_off(self, log: Replica, error: RequestError) -> None:
        log.error = error
        if self.shelf.get(log.channel) is not log:
            return
        if log.is_known:
            self._later[log.channel] = log
        else:
            self.shelf.discard(log)

    def _apply(self, log: Replica, reply: list[Any]) -> None:
        """Have a log stand as Redis says."""
        epoch, head, earliest, ended, opened, latest, log.stored_bytes, texts = reply
        entries = _newest(texts, head)
        first = entries[0].offset if entries else head + 1
        is_other = not log.is_known or epoch != log.epoch
        if is_other:
            log.begin(epoch, earliest, ended or None)
            if 0 < log.announced < first:
                self._jump(log, log.announced, first)
            log.skip_to(first)
            log.opened = opened / 1e6 + self._link.offset
            log.touched = latest / 1e6 + self._link.offset if latest else log.opened
        elif head > log.head and first > log.head + 1:
            self._jump(log, log.head + 1, first)
        for entry in entries:
            if entry.offset == log.head + 1:
                log.add(entry, min(trio.current_time(), entry.at / 1e6 + self._link.offset))
                self.shelf.touch(log)
                if not is_other or 0 < log.announced <= entry.offset:
                    self._tell(log, 1)
        log.announced = 0
        log.move_earliest(earliest)
        if is_other and log.is_known:
            self._renewed(log)
        log.is_known = True

    def _jump(self, log: Replica, offset: int, first: int) -> None:
        """Tell of a message that is not in memory, and go on at another: more has come than memory
        may hold, and what is between is read when it is asked for.
        """
        log.skip_to(offset + 1)
        self._tell(log, 1)
        log.skip_to(first)

    def _catch_up(self, log: Replica) -> None:
        """Go on with what was heard in the meantime."""
        log.is_current = True
        for news in sorted(log.take_ahead(), key=lambda news: news.entry.offset):
            self.learn(log, news)

    async def _try_again(self) -> None:
        while True:
            await trio.sleep(RETRY_DELAY)
            later, self._later = self._later, {}
            for log in later.values():
                self._want(log)

    # Let go of

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(LOOK_INTERVAL)
            since = trio.current_time() - QUIET
            for log in list(self.shelf):
                if log.may_leave and max(log.used, log.touched) < since:
                    self.shelf.discard(log)
                else:
                    self._want(log)

    def _leave(self, log: Replica) -> None:
        """Listen no longer to a log that is not in memory any more."""
        self._wanted.pop(log.channel, None)
        self._later.pop(log.channel, None)
        log.is_current = False
        log.looked.set()
        self._link.unsubscribe(self._keys.news(log.channel))

    def __iter__(self) -> Iterator[Replica]:
        return (log for log in self.shelf if log.is_known)


def _is_news(log: Replica, since: Position | None) -> bool:
    """Whether a position is of another epoch, or past the head as far as it is known here."""
    return since is not None and (since.epoch != log.epoch or since.offset > log.head)


def _newest(texts: list[bytes], head: int) -> list[Entry]:
    """Return the newest messages, as far back as none is missing."""
    entries: list[Entry] = []
    for text in reversed(texts):
        entry = try_entry(text)
        if entry is None or entry.offset != head - len(entries):
            break
        entries.append(entry)
    return entries[::-1]
