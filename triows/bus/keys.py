"""The names of what is in Redis."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import count, groupby
from typing import ClassVar, Final, final

import attrs

from triows.messages import Patterns

SLOTS: Final = 16384  # of a cluster
BUCKETS: Final = 256
"""Parts that the channels of a cluster are dealt to: each in one slot, with an index of its own."""

_AT_ONCE: Final = 1000  # names in one command


@attrs.frozen
class Keys:
    """Names of keys and of pub/sub channels. Those of one channel share what is in braces.

    Attributes:
        prefix: what all begin with.
        database: number of the database. Its keys are its own, while what is told on a pub/sub
            channel is heard in all: so the names of those have it.
        publish: the command that tells.
    """

    publish: ClassVar[bytes] = b"PUBLISH"

    prefix: str
    database: int = 0

    def log(self, channel: str) -> tuple[bytes, bytes]:
        """Return the keys of a log: how it stands, and its messages."""
        return self._name(channel, "meta"), self._name(channel, "stream")

    def all(self, channel: str) -> tuple[bytes, ...]:
        """Return the keys of a log, of its ids, and of the index it is in."""
        ids = self._name(channel, "ids"), self._name(channel, "order")
        return (*self.log(channel), *ids, self._index(channel))

    def news(self, channel: str) -> bytes:
        """Return where it is told what is published to a channel."""
        return self._name(channel, self._news)

    def all_news(self, patterns: Patterns) -> list[bytes]:
        """Return all names where that is told for several channels, patterns among them."""
        return [*map(self.news, patterns.exact), *(self.news(p + "*") for p in patterns.prefixes)]

    def shared_news(self, channel: str) -> bytes:
        """Return where it is told for others as well, with the channel's name; or nothing."""
        return b""

    def heard(self, name: bytes, text: bytes) -> tuple[str, bytes]:
        """Return of which channel something was told there, and what.

        Raises:
            ValueError: of none.
        """
        return name[len(self.prefix) + 2 : -len("}:" + self._news)].decode(), text

    @property
    def indexes(self) -> tuple[bytes, ...]:
        """The keys of the names of all channels."""
        return (self._own("channels"),)

    def around(self, index: bytes) -> tuple[bytes, bytes]:
        """Return what stands before and after the names of an index in the keys of their state."""
        return f"{self.prefix}:{{".encode(), b"}:meta"

    @property
    def revocations(self) -> bytes:
        """The key of what was revoked."""
        return self._own("revocations")

    @property
    def control(self) -> bytes:
        """Where all nodes listen."""
        return self._own(f"control:{self.database}")

    def node(self, id: str) -> bytes:
        """Return where one node listens."""
        return self._own(f"node:{self.database}:{id}")

    @property
    def _news(self) -> str:
        return f"news:{self.database}"

    def _index(self, channel: str) -> bytes:
        return self.indexes[0]

    def _name(self, channel: str, what: str) -> bytes:
        return f"{self.prefix}:{{{channel}}}:{what}".encode()

    def _own(self, what: str) -> bytes:
        return f"{self.prefix}:{what}".encode()


@final
@attrs.frozen
class ClusterKeys(Keys):
    """Names in a cluster: what is in braces is the number of the channel's bucket, so that one
    script has all it needs in one slot, the index included. What belongs to no channel is in the
    first bucket.
    """

    publish: ClassVar[bytes] = b"SPUBLISH"

    def all_news(self, patterns: Patterns) -> list[bytes]:
        """Return all names where that is told for several channels: sharded pub/sub knows no
        patterns, so that those who want one hear all channels.
        """
        everything = [self._in(tag, "news") for tag in tags()] if patterns.prefixes else []
        return [*map(self.news, patterns.exact), *everything]

    def shared_news(self, channel: str) -> bytes:
        """Return where it is told for the whole bucket."""
        return self._in(_tag_of(channel), "news")

    def heard(self, name: bytes, text: bytes) -> tuple[str, bytes]:
        """As above; what is told for a bucket begins with the name of the channel."""
        _, _, rest = name.partition(b"}:")
        if rest == b"news":
            channel, _, text = text.partition(b"\n")
            return channel.decode(), text
        return rest.removesuffix(b":" + self._news.encode()).decode(), text

    @property
    def indexes(self) -> tuple[bytes, ...]:
        """The keys of the names of all channels: one for each bucket."""
        return tuple(self._in(tag, "channels") for tag in tags())

    def around(self, index: bytes) -> tuple[bytes, bytes]:
        """As above."""
        return index.removesuffix(b"channels"), b":meta"

    def _index(self, channel: str) -> bytes:
        return self._in(_tag_of(channel), "channels")

    def _name(self, channel: str, what: str) -> bytes:
        return self._in(_tag_of(channel), f"{channel}:{what}")

    def _own(self, what: str) -> bytes:
        return self._in(tags()[0], what)

    def _in(self, tag: str, what: str) -> bytes:
        return f"{self.prefix}:{{{tag}}}:{what}".encode()


def _tag_of(channel: str) -> str:
    return tags()[crc_hqx(channel.encode(), 0) % BUCKETS]


@cache
def tags() -> tuple[str, ...]:
    """Return what is in braces for each bucket: numbers that a cluster puts at even distances, so
    that each master has as many buckets as it has of the slots.
    """
    found: dict[int, str] = {}
    numbers = count()
    while len(found) < BUCKETS:
        tag = str(next(numbers))
        slot = crc_hqx(tag.encode(), 0) % SLOTS
        if not slot % (SLOTS // BUCKETS):
            found.setdefault(slot, tag)
    return tuple(found[slot] for slot in sorted(found))


def slot_of(name: bytes) -> int:
    """Return the slot of one of our names in a cluster: that of what is in its braces."""
    return crc_hqx(name[name.index(b"{") + 1 : name.index(b"}")], 0) % SLOTS


def subscriptions(names: Iterable[bytes], *, sharded: bool) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield the first letter of the command that subscribes, and which names it is to take: a
    cluster wants all of one command in one slot, and patterns have a command of their own.
    """

    def kind(name: bytes) -> tuple[bytes, int]:
        return (b"S", slot_of(name)) if sharded else (b"P" if b"*" in name else b"", 0)

    for (letter, _), group in groupby(sorted(names, key=kind), kind):
        some = list(group)
        for first in range(0, len(some), _AT_ONCE):
            yield letter, some[first : first + _AT_ONCE]
