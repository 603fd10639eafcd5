"""What nodes tell each other of messages, through Redis: JSON, checked when it is read."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import msgspec

from triows.codec import clock, encode_json, encode_published
from triows.messages import MAX_ID, Message

logger = logging.getLogger("triows.redis")


class _Entry(msgspec.Struct):
    """A message as the stream has it."""

    offset: int
    at: int
    type: str
    id: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _News(msgspec.Struct):
    """A message as it is told to the nodes."""

    epoch: str
    earliest: int
    message: _Entry


_entry: Final = msgspec.json.Decoder(_Entry)
_news: Final = msgspec.json.Decoder(_News)


class Entry(NamedTuple):
    """One message of a log.

    Attributes:
        offset: its place.
        at: when it was given it: microseconds since 1970, of Redis' clock.
        message: type, id and raw.
    """

    offset: int
    at: int
    message: Message

    def encode(self, head: bytes) -> bytes:
        """Return the frame: on every node the same bytes.

        Args:
            head: `published_head` of the channel.
        """
        return encode_published(self.message, head, self.offset, clock.write(self.at))


class News(NamedTuple):
    """A message that was published, and where.

    Attributes:
        epoch: of its log.
        earliest: offset of the oldest message that is kept there.
        entry: the message.
    """

    epoch: str
    earliest: int
    entry: Entry


def encode_members(message: Message) -> bytes:
    """Return type, id and data of a message as members of a JSON object.

    Raises:
        ValueError: type or id have no UTF-8.
    """
    return b'"type":%b%b%b' % (
        encode_json(message.type),
        b',"id":%b' % encode_json(message.id) if message.id is not None else b"",
        b',"data":%b' % message.raw if message.raw else b"",
    )


def try_entry(text: bytes) -> Entry | None:
    """Read a message of a stream; None, and a line in the log, if it is none."""
    try:
        return _check(_entry.decode(text))
    except ValueError as error:
        logger.warning("a message in Redis is damaged, and left out: %s", error)
        return None


def read_news(text: bytes) -> News:
    """Read what a node was told.

    Raises:
        ValueError: it is not understood.
    """
    news = _news.decode(text)
    return News(news.epoch, news.earliest, _check(news.message))


def _check(entry: _Entry) -> Entry:
    if entry.offset < 1 or entry.at < 0 or (entry.id is not None and len(entry.id) > MAX_ID):
        raise ValueError(f"a message at offset {entry.offset}, of time {entry.at}")
    # bytes(): a Raw pins the whole text it was cut from.
    return Entry(entry.offset, entry.at, Message(entry.type, bytes(entry.data), id=entry.id))
