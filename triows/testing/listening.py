"""Who listens inside the process of a simulation: the application, and to what is logged."""

from __future__ import annotations

import logging
from typing import Final, final

import trio

from triows.messages import MessageType
from triows.server import Server
from triows.testing.ledger import Cursor
from triows.testing.people import Stage
from triows.testing.schedule import LISTENER

_EXPECTED: Final = ("triows.store", "triows.pager")  # loggers that tell of a failing disk


@final
class Listener:
    """The application, which listens inside the server.

    Attributes:
        pause: seconds that each message takes to read.
    """

    def __init__(self, stage: Stage) -> None:
        self.pause = 0.0
        self._stage = stage

    async def run(self, server: Server) -> None:
        """Listen, until cancelled."""
        stage, cursors = self._stage, dict[str, Cursor]()
        async with server.listen("session:*") as messages:
            async for message in messages:
                channel = message.channel or ""
                log = await server._bus.open(channel)
                cursor = cursors.get(channel)
                if cursor is None:
                    cursor = Cursor(LISTENER, channel, stage.ledger, stage.blame, log.epoch)
                    cursors[channel] = cursor
                if message.type == MessageType.GAP:
                    gap = message.data
                    cursor.gap(gap["epoch"], gap["from"], gap["to"], gap["count"], gap["reason"])
                else:
                    cursor.message(message.offset or 0, message.id, message.type, message.raw)
                stage.note(LISTENER, message.type, channel, message.offset)
                if self.pause:
                    await trio.sleep(self.pause)


@final
class Complaints(logging.Handler):
    """Takes it for wrong when triows itself logs an error, or that a message is missing."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(logging.WARNING)
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        """Take one entry."""
        text = record.getMessage()
        serious = record.levelno >= logging.ERROR or text.startswith("a message is missing")
        if serious and record.name not in _EXPECTED:
            self._stage.blame(f"{record.name} logged: {text}: {record.exc_info}")
