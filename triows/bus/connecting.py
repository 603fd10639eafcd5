"""Opens connections to Redis, and says why it could not. With `link`, the only room that knows
coredis.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError, ResponseError

from triows.bus.address import Address
from triows.bus.scripts import SCRIPTS
from triows.errors import ConfigError

logging.getLogger("coredis").setLevel(logging.CRITICAL)  # what it has to say is said by `link`

CONNECT_TIMEOUT: Final = 2.0
"""Seconds a connection may take, and then each step of its handshake."""

ANSWER_TIMEOUT: Final = 4.0
"""Seconds the answer to a command may take; then the connection is given up."""

START_TIMEOUT: Final = 3.0
"""Seconds for which a server that starts waits for a Redis that is not there yet."""

OLDEST: Final = (6, 2)
"""The first version of Redis that has all that the scripts use."""

OLDEST_CLUSTER: Final = (7, 0)
"""The first one with sharded pub/sub."""

_PAUSE: Final = 0.1  # seconds until a server that starts tries again
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
        TCPLocation(*address.places[0]),
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


def check(hello: Any, address: Address) -> None:
    """See to it that a Redis is one that will do, by what it says of itself.

    Raises:
        ResponseError: it is not, and what to do.
    """
    if not isinstance(hello, dict):
        return  # an error, which is told
    mode, version = hello.get(b"mode", b"").decode(), hello.get(b"version", b"").decode()
    oldest = OLDEST_CLUSTER if address.is_cluster else OLDEST
    if address.is_cluster and mode != "cluster":
        raise ResponseError(f"it is no cluster; a single Redis is {address.form(is_cluster=False)}")
    if not address.is_cluster and mode == "cluster":
        raise ResponseError(f"it is part of a cluster, which is {address.form(is_cluster=True)}")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < oldest:
        needed = ".".join(map(str, oldest))
        raise ResponseError(f"it is of version {version}, and {needed} or newer is needed")


async def prepare(connection: TCPConnection, address: Address, *more: Command) -> list[Any]:
    """Find out what time it is there, see to it that it will do, load the scripts, and do more;
    return the replies.

    Raises:
        RedisError: it will not do.
    """
    scripts = [Command(b"SCRIPT LOAD", (script.text,)) for script in SCRIPTS]
    commands = [Command(b"TIME", ()), Command(b"HELLO", ()), *scripts, *more]
    batch = connection.create_request_batch(cast("Any", commands), ANSWER_TIMEOUT)
    replies = await batch.get_result()
    check(replies[1], address)
    return list(replies)


async def try_once(
    address: Address, tls: ssl.SSLContext | None, commands: Sequence[tuple[bytes, ...]]
) -> list[Any] | RedisError:
    """Make a connection, send commands, and let it go; return the replies, or what was wrong."""
    more = [Command(name, tuple(values)) for name, *values in commands]
    try:
        async with trio.open_nursery() as nursery:
            connection = await connect(address, tls, nursery)
            replies = await prepare(connection, address, *more)
            nursery.cancel_scope.cancel(reason="it was only to be tried")
    except RedisError as error:
        return error
    except BaseExceptionGroup as group:
        errors, others = group.split(RedisError)
        if others is not None:
            raise others from None
        assert errors is not None
        return first_error(errors)
    wrong = next((reply for reply in replies if isinstance(reply, RedisError)), None)
    return wrong or replies[len(replies) - len(more) :]


async def probe(
    address: Address,
    tls: ssl.SSLContext | None,
    commands: Sequence[tuple[bytes, ...]],
    patience: float,
) -> list[Any]:
    """Do as `try_once`, again and again for so many seconds: a Redis may be on its way up.

    Raises:
        ConfigError: saying what is wrong, and what to do.
    """
    give_up = trio.current_time() + patience
    while True:
        replies = await try_once(address, tls, commands)
        if not isinstance(replies, RedisError):
            return replies
        # What Redis itself has answered, a wrong password for example, will not change.
        if isinstance(replies, ResponseError) or trio.current_time() >= give_up:
            raise ConfigError(
                f"{unusable(address, reason_of(replies))}; start it, or set store to another (its "
                "user, password and database have to be right, too)"
            ) from replies
        await trio.sleep(_PAUSE)


def unusable(address: Address, reason: str) -> str:
    """Return how it is said that a Redis cannot be used."""
    return f"Redis at {address} cannot be used: {reason}"


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
