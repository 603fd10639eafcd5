"""Opens connections to Redis, and says why it could not. With `link`, the only room that knows
coredis.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError

from triows.bus.address import Address

logging.getLogger("coredis").setLevel(logging.CRITICAL)  # what it has to say is said by `link`

CONNECT_TIMEOUT: Final = 2.0
"""Seconds a connection may take, and then each step of its handshake."""

_BUFFERS: Final = tuple(
    f"_{name}_buffer_{end}"
    for name in ("push_message", "streamed_message", "write")
    for end in ("in", "out")
)


class Command(NamedTuple):
    """A command as coredis wants it in a batch."""

    name: bytes
    serialized_arguments: tuple[bytes | int, ...]
    decode: bool = False


async def connect(
    address: Address, tls: ssl.SSLContext | None, nursery: trio.Nursery
) -> TCPConnection:
    """Return a connection that is ready for commands; it lives in `nursery`.

    Raises:
        RedisError: it cannot be made.
    """
    connection = TCPConnection(
        TCPLocation(address.host, address.port),
        connect_timeout=CONNECT_TIMEOUT,
        stream_timeout=CONNECT_TIMEOUT,
        username=address.username,
        password=address.password,
        db=address.database,
        ssl_context=tls,
    )
    try:
        await nursery.start(connection.run)
    except BaseException:
        for name in _BUFFERS:  # left open by a connection that could not be made
            getattr(connection, name).close()
        raise
    return connection


def waiting_pushes(connection: TCPConnection) -> Iterator[list[Any]]:
    """Yield what Redis has said already, without waiting.

    coredis' own iterator takes one a turn of the scheduler: what gathers would not be sent on
    together, and after a stall the turns would be too few.
    """
    pushes = connection._push_message_buffer_out
    while pushes.statistics().current_buffer_used:
        yield cast("list[Any]", pushes.receive_nowait())


def first_error(group: BaseExceptionGroup[RedisError]) -> RedisError:
    """Return the first error of a group, which may have groups in it."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in the words of who noticed first."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    if isinstance(error, TimeoutError):
        return f"it gave no answer for {CONNECT_TIMEOUT:g} s"
    return str(error) or type(error).__name__
