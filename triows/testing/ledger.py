"""What is known to be true of every channel, and whether what somebody says agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

import attrs

Blame = Callable[[str], None]
"""Told of what is wrong; never waits, never raises."""

Key: TypeAlias = tuple[str, str]  # channel, epoch

GAP: Final = "gap"


@final
@attrs.frozen
class Sent:
    """A message that somebody publishes."""

    who: str
    channel: str
    number: int  # in the order of publishing, of each publisher and channel
    type: str
    raw: bytes


@final
class Ledger:
    """The offsets, contents and ids of all messages that were seen or acknowledged.

    Args:
        blame: told what is wrong.

    Attributes:
        sent: all that is published, by id.
        places: offsets of ids, in each epoch of a channel.
        acknowledged: the highest offset that was acknowledged.
    """

    def __init__(self, blame: Blame) -> None:
        self.sent: dict[str, Sent] = {}
        self.places: dict[Key, dict[str, int]] = {}
        self.acknowledged: dict[Key, int] = {}
        self._blame = blame
        self._ends: dict[Key, int] = {}
        self._ids: dict[Key, dict[int, str]] = {}
        self._epochs: dict[str, int] = {}

    def number(self, epoch: str) -> int:
        """Return a number for an epoch, which is chance, that is the same in each run."""
        return self._epochs.setdefault(epoch, len(self._epochs) + 1)

    def place(self, channel: str, epoch: str, offset: int, id_: str | None) -> None:
        """Take note of which message stands at a place."""
        key = channel, epoch
        where = f"{channel} offset {offset} of epoch {self.number(epoch)}"
        if id_ is None or id_ not in self.sent:
            self._blame(f"{where} holds {id_}, which nobody published")
            return
        if self.sent[id_].type == "end":
            self._ends[key] = offset
        if offset > self._ends.get(key, offset):
            self._blame(f"{where} comes after the end, at {self._ends[key]}")
        there = self._ids.setdefault(key, {}).setdefault(offset, id_)
        if there != id_:
            self._blame(f"{where} is {id_} to one, and {there} to another")
        place = self.places.setdefault(key, {}).setdefault(id_, offset)
        if place != offset:
            self._blame(f"{where} holds {id_}, which stands at {place} already: twice")

    def message(
        self, channel: str, epoch: str, offset: int, id_: str | None, type_: str, raw: bytes
    ) -> None:
        """Check a message that was delivered, or is kept."""
        self.place(channel, epoch, offset, id_)
        sent = self.sent.get(id_ or "")
        if sent is not None and (sent.channel, sent.type, sent.raw) != (channel, type_, raw):
            self._blame(f"{id_} is not what was published: {type_} on {channel}: {raw[:60]!r}")

    def ack(self, channel: str, epoch: str, offset: int, id_: str) -> None:
        """Check an acknowledgement."""
        self.place(channel, epoch, offset, id_)
        key = channel, epoch
        self.acknowledged[key] = max(offset, self.acknowledged.get(key, 0))

    def check_order(self, channel: str, epoch: str) -> None:
        """Check that what each publisher sent stands in the order in which it was sent."""
        last: dict[str, int] = {}
        for _, id_ in sorted(self._ids.get((channel, epoch), {}).items()):
            sent = self.sent[id_]
            if sent.number < last.get(sent.who, -1):
                self._blame(f"{id_} on {channel} stands after a later one of {sent.who}")
            last[sent.who] = sent.number


@final
@attrs.define
class Cursor:
    """Where somebody who reads a channel has to be next.

    Attributes:
        epoch, offset: of the last message, or gap; None before the first.
    """

    who: str
    channel: str
    ledger: Ledger
    blame: Blame
    epoch: str | None = None
    offset: int | None = None

    def gap(self, epoch: str, first: int, last: int, count: int, reason: str) -> None:
        """Check a gap: it has to tell of exactly what is missing."""
        if epoch == self.epoch:
            if reason == "epoch":
                self._wrong(f"a gap that tells of a new epoch, which is not new: {epoch}")
            expected = None if self.offset is None else self.offset + 1
        else:
            if self.epoch is not None and reason != "epoch":
                self._wrong(f"an epoch that no gap told of, but {reason}")
            expected = 1
        if (expected is not None and first != expected) or count != last - first + 1 or count < 0:
            self._wrong(f"a gap from {first} to {last} ({count}), after {self.offset}")
        self.epoch, self.offset = epoch, last

    def message(self, offset: int, id_: str | None, type_: str, raw: bytes) -> None:
        """Check a message: it has to be the next one."""
        assert self.epoch is not None
        if self.offset is not None and offset != self.offset + 1:
            self._wrong(f"offset {offset} after {self.offset}")
        self.offset = offset
        self.ledger.message(self.channel, self.epoch, offset, id_, type_, raw)

    def _wrong(self, what: str) -> None:
        self.blame(f"{self.who} was told on {self.channel}: {what}")
