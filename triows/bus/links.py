"""What the engine asks of Redis, be it one or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, final

from triows.bus.scripts import Script
from triows.errors import RequestError

RETRY_AFTER: Final = 1.0
"""Seconds after which those who were refused may try again."""

Reply: TypeAlias = "list[Any] | RequestError"

Push: TypeAlias = Callable[[bytes, bytes], None]
"""Told of what is heard under a name; never waits."""

Missed: TypeAlias = Callable[[Collection[bytes]], None]
"""Told of names under which something may not have been heard that is heard again from now on;
never waits.
"""


class Call(NamedTuple):
    """A script to be run: its keys, and its arguments behind the tag."""

    script: Script
    keys: tuple[bytes, ...]
    values: tuple[bytes | int, ...]


@final
class Moved(RequestError):
    """Another node of the cluster has it."""


class Links(Protocol):
    """All connections there are."""

    @property
    def failure(self) -> str | None:
        """Why Redis cannot be used now, or None as far as is known."""

    @property
    def commands(self) -> int:
        """How many were sent."""

    @property
    def offset(self) -> float:
        """Seconds to add to Redis' time for the monotonic one here."""

    async def probe(self, *commands: tuple[bytes, ...]) -> list[Any]:
        """Find out whether there is a Redis that takes us, and return what it replies.

        Raises:
            ConfigError: saying what is wrong, and what to do.
        """

    async def run(self) -> None:
        """Have connections, until cancelled."""

    async def run_scripts(self, calls: Sequence[Call]) -> list[Reply]:
        """Run scripts, those of one channel in order, and return what each replied.

        Cancelled, or refused, it is not known which have been run.

        Raises:
            RequestError: `unavailable`, Redis cannot be reached or does not answer.
        """

    async def ask(self, *command: bytes) -> Any:
        """Send one command, of which the second word is a key or where something is told, and
        return its reply.

        Raises:
            RequestError: `unavailable`.
        """

    def tell(self, *command: bytes) -> None:
        """Send such a command whose reply is of no interest, if there is a connection."""

    def subscribe(self, *names: bytes) -> None:
        """Hear what is told there, on each connection to come as well, until `unsubscribe` was
        called as often.
        """

    def unsubscribe(self, *names: bytes) -> None:
        """Undo one `subscribe`."""
