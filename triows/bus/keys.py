"""The names of what is in Redis."""

from __future__ import annotations

from typing import final

import attrs

from triows.messages import Patterns


@final
@attrs.frozen
class Keys:
    """Names of keys and of pub/sub channels. Those of one channel share what is in braces.

    Attributes:
        prefix: what all begin with.
        database: number of the database. Its keys are its own, while what is told on a pub/sub
            channel is heard in all: so the names of those have it.
    """

    prefix: str
    database: int = 0

    def log(self, channel: str) -> tuple[bytes, bytes]:
        """Return the keys of a log: how it stands, and its messages."""
        return self._name(channel, "meta"), self._name(channel, "stream")

    def all(self, channel: str) -> tuple[bytes, ...]:
        """Return the keys of a log, of its ids, and of the index it is in."""
        ids = self._name(channel, "ids"), self._name(channel, "order")
        return (*self.log(channel), *ids, self.index)

    def news(self, channel: str) -> bytes:
        """Return where it is told what is published to a channel."""
        return self._name(channel, self._news)

    def all_news(self, patterns: Patterns) -> list[bytes]:
        """Return patterns, as Redis has them, of where that is told for several channels."""
        return [*map(self.news, patterns.exact), *(self.news(p + "*") for p in patterns.prefixes)]

    def channel(self, news: bytes) -> str:
        """Return of which channel it is told there."""
        return news[len(self.prefix) + 2 : -len("}:" + self._news)].decode()

    @property
    def _news(self) -> str:
        return f"news:{self.database}"

    def _name(self, channel: str, what: str) -> bytes:
        return f"{self.prefix}:{{{channel}}}:{what}".encode()

    @property
    def index(self) -> bytes:
        """The key of the names of all channels."""
        return f"{self.prefix}:channels".encode()

    @property
    def revocations(self) -> bytes:
        """The key of what was revoked."""
        return f"{self.prefix}:revocations".encode()

    @property
    def control(self) -> bytes:
        """Where all nodes listen."""
        return f"{self.prefix}:control:{self.database}".encode()

    def node(self, id: str) -> bytes:
        """Return where one node listens."""
        return f"{self.prefix}:node:{self.database}:{id}".encode()
