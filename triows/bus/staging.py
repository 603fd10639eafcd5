"""What is about to be added to the logs of a durable engine: places given, nothing kept yet."""

from __future__ import annotations

from typing import Final, TypeAlias, final

import msgspec

from triows.bus import Done
from triows.bus.database import ChannelRow
from triows.bus.tail import Shelf, Tail
from triows.errors import ErrorCode, RequestError
from triows.logs import id_key
from triows.messages import Message, MessageType, Receipt

_END: Final = str(MessageType.END)  # a plain string compares faster


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for the disk."""

    channel: str
    message: Message
    user: str
    done: Done
    size: int


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message that was given its place, and is not stored yet.

    Attributes:
        is_end: whether it is the last one its log will take.
    """

    log: Tail
    message: Message
    key: str | None
    offset: int
    frame: bytes
    is_end: bool

    def channel_row(self, at: int) -> ChannelRow:
        """Return its channel as it stands before the messages in the journal."""
        log = self.log
        ended = (self.message.raw or b"{}") if self.is_end else None
        return ChannelRow(
            log.number, log.channel, log.epoch, log.head, log.earliest, ended, log.opened_at, at, 0
        )


Staged: TypeAlias = "Draft | Receipt | RequestError"


@final
class Stage:
    """What one batch is about to add to a log: its offsets are used when it is stored, only.

    Attributes:
        head: offset of the last message, those to come included.
        ended: whether the end is among them, or was there before.
    """

    def __init__(self, log: Tail) -> None:
        self.head = log.head
        self.ended = log.ended is not None
        self._log = log
        self._ids: dict[str, int] = {}

    def add(self, message: Message, user: str, now: float) -> Draft | Receipt:
        """Give `message` its place, or say which one it was given before.

        Raises:
            RequestError: `ended`.
            ValueError: type, id or user have no UTF-8.
        """
        log, key = self._log, None
        if message.id is not None:
            key = id_key(user, message.id)
            key.encode()  # halves of characters: a token's JSON may have them, a file may not
            known = log.place_of(key, now) or self._ids.get(key)
            if known is not None:
                return Receipt(log.epoch, known, duplicate=True)
        if self.ended:
            raise log.refusal()
        frame = log.encode(message, self.head + 1, now)
        self.head += 1
        if key is not None:
            self._ids[key] = self.head
        self.ended = message.type == _END
        return Draft(log, message, key, self.head, frame, self.ended)


def stage_all(
    shelf: Shelf[Tail], batch: list[Submitted], failed: dict[str, RequestError], now: float
) -> list[Staged]:
    """Give each message of a batch its place, or say why not.

    Args:
        shelf: has the logs of all channels, but those that failed.
        failed: why not, by channel.
    """
    stages: dict[str, Stage] = {}
    outcomes: list[Staged] = []
    for submitted in batch:
        channel = submitted.channel
        if channel in failed:
            outcomes.append(failed[channel])
            continue
        stage = stages.get(channel)
        if stage is None:
            log = shelf.get(channel)
            assert log is not None
            stage = stages[channel] = Stage(log)
        try:
            outcomes.append(stage.add(submitted.message, submitted.user, now))
        except RequestError as error:
            outcomes.append(error)
        except ValueError as error:
            reason = f"a message that cannot be stored: {error}"
            outcomes.append(RequestError(ErrorCode.BAD_REQUEST, reason))
    return outcomes
