"""The connection of the Redis engine: one, and again one when it is lost. Of coredis only the
connection is used.

Commands and what was subscribed to share one connection, as RESP3 allows: so a reply to any
command shows that nothing is stuck on the way of the messages either, and when the connection is
lost, everything is known to be lost. coredis' own pool and pub/sub reconnect out of sight, and
what is published in between is lost in silence.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias, cast, final

import trio
from coredis.connection import TCPConnection
from coredis.exceptions import ConnectionError as Disconnected
from coredis.exceptions import NoScriptError, RedisError, ResponseError

from triows.bus.address import Address
from triows.bus.connecting import Command, connect, first_error, reason_of, waiting_pushes
from triows.bus.scripts import SCRIPTS, Script
from triows.errors import ErrorCode, RequestError

logger = logging.getLogger("triows.redis")

ANSWER_TIMEOUT: Final = 4.0
"""Seconds the answer to a command may take; then the connection is given up."""

START_TIMEOUT: Final = 3.0
"""Seconds for which a server that starts waits for a Redis that is not there yet."""

PING_INTERVAL: Final = 2.0
"""Seconds between two looks whether the connection is alive."""

RETRY_AFTER: Final = 1.0
"""Seconds after which those who were refused may try again."""

_LEAST_DELAY: Final = 0.1  # seconds before a connection is tried again; doubles
_MOST_DELAY: Final = 2.0

Reply: TypeAlias = "list[Any] | RequestError"


class Call(NamedTuple):
    """A script to be run: its keys, and its arguments behind the tag."""

    script: Script
    keys: tuple[bytes, ...]
    values: tuple[bytes | int, ...]


@final
class Link:
    """A connection that is made again when it is lost.

    Args:
        address: of the Redis.
        push: told of each message of a channel subscribed to, and its name; never waits.
        welcome: called with each new connection, before it is used for anything else.

    Attributes:
        offset: seconds to add to Redis' time for the monotonic one here.
        commands: how many were sent, for statistics.
    """

    def __init__(
        self,
        address: Address,
        push: Callable[[bytes, bytes], None],
        welcome: Callable[[], None],
    ) -> None:
        self.offset = 0.0
        self.commands = 0
        self._address = address
        self._push = push
        self._welcome = welcome
        self._connection: TCPConnection | None = None
        self._failure: str | None = None  # why there is none, if it was tried
        self._changed = trio.Event()  # the connection is there, or was tried for
        self._tags = count(1)
        self._tls = ssl.create_default_context() if address.tls else None

    # Used

    @property
    def failure(self) -> str | None:
        """Why Redis cannot be used now, or None as far as is known."""
        return None if self._failure is None else self._sentence(self._failure)

    async def run_scripts(self, calls: Sequence[Call]) -> list[Reply]:
        """Run scripts, in order, and return what each replied.

        Cancelled, or refused, it is not known which have been run.

        Raises:
            RequestError: `unavailable`, Redis cannot be reached or does not answer.
        """
        tags = [next(self._tags) for _ in calls]
        commands = [
            Command(
                b"EVALSHA",
                (call.script.sha, len(call.keys), *call.keys, tag, *call.values),
            )
            for call, tag in zip(calls, tags, strict=True)
        ]
        replies = await self._ask(commands)
        found: list[Reply] = []
        for call, tag, reply in zip(calls, tags, replies, strict=True):
            if isinstance(reply, NoScriptError):
                self._drop("its scripts are gone")
            if isinstance(reply, BaseException):
                found.append(self._refusal(str(reply)))
            elif not isinstance(reply, list) or reply[0] != b"%d" % tag:
                # An error that belonged to no command, a subscription for example, has taken the
                # place of a reply: from there on none says what it seems to say.
                self._drop("a reply did not match its command")
                found.append(self._refusal("a reply did not match its command"))
            else:
                found.append(self._take(call.script, reply[1:]))
        return found

    def _take(self, script: Script, reply: list[Any]) -> Reply:
        try:
            return script.take(reply)
        except ValueError as error:
            return self._refusal(f"what others have written there is not understood: {error}")

    async def ask(self, *command: bytes | int) -> Any:
        """Send one command and return its reply.

        Raises:
            RequestError: `unavailable`.
        """
        (reply,) = await self._ask([Command(cast("bytes", command[0]), command[1:])])
        if isinstance(reply, BaseException):
            raise self._refusal(str(reply))
        return reply

    def say(self, *command: bytes) -> None:
        """Send a command that has no reply of its own, if there is a connection."""
        if self._connection is not None and self._connection.usable:
            self.commands += 1
            self._connection.send_command(*command)

    def tell(self, *command: bytes) -> None:
        """Send a command whose reply is of no interest, if there is a connection."""
        if self._connection is not None and self._connection.usable:
            self.commands += 1
            self._connection.create_request(*command, timeout=ANSWER_TIMEOUT)

    async def _ask(self, commands: list[Command]) -> list[Any]:
        connection = await self._wait_connection()
        self.commands += len(commands)
        try:
            batch = connection.create_request_batch(cast("Any", commands), ANSWER_TIMEOUT)
            replies = await batch.get_result()
        except RedisError as error:
            raise self._refusal(str(error)) from error
        lost = next((r for r in replies if isinstance(r, TimeoutError | Disconnected)), None)
        if lost is not None:
            if isinstance(lost, TimeoutError):
                self._fail(f"it gave no answer for {ANSWER_TIMEOUT:g} s")
            raise self._refusal(self._failure or "the connection was lost") from lost
        return replies

    async def _wait_connection(self) -> TCPConnection:
        """Return the connection; wait for it only if it is being made and was not tried before."""
        while self._connection is None or not self._connection.usable:
            if self._failure is not None:
                raise self._refusal(self._failure)
            await self._changed.wait()
        return self._connection

    def _refusal(self, reason: str) -> RequestError:
        return RequestError(ErrorCode.UNAVAILABLE, self._sentence(reason), retry_after=RETRY_AFTER)

    def _sentence(self, reason: str) -> str:
        return f"Redis at {self._address} cannot be used: {reason}"

    # Made and lost

    async def run(self) -> None:
        """Have a connection, until cancelled."""
        delay = _LEAST_DELAY
        while True:
            began = trio.current_time()
            try:
                await self._serve()
            except RedisError as error:
                self._fail(reason_of(error))
            except BaseExceptionGroup as group:
                errors, others = group.split(RedisError)
                if others is not None:
                    raise others from None
                assert errors is not None
                self._fail(reason_of(errors.exceptions[0]))
            if trio.current_time() - began > _MOST_DELAY and self._failure is None:
                delay = _LEAST_DELAY
                continue  # it was up, and is tried again at once
            await trio.sleep(delay)
            delay = min(delay * 2, _MOST_DELAY)

    async def probe(self, *commands: tuple[bytes, ...]) -> Any:
        """Make a connection, send commands, and let it go; tried again for `START_TIMEOUT`, as a
        Redis may be on its way up. Returns the last reply.

        Raises:
            RequestError: saying what is wrong.
        """
        give_up = trio.current_time() + START_TIMEOUT
        while True:
            reply = await self._try([Command(name, tuple(values)) for name, *values in commands])
            if not isinstance(reply, RedisError):
                return reply
            # What Redis itself has answered, a wrong password for example, will not change.
            if isinstance(reply, ResponseError) or trio.current_time() > give_up:
                raise self._refusal(reason_of(reply)) from reply
            await trio.sleep(_LEAST_DELAY)

    async def _try(self, commands: list[Command]) -> Any:
        """Make a connection, and let it go; return the last reply, or what was wrong."""
        try:
            async with trio.open_nursery() as nursery:
                connection = await connect(self._address, self._tls, nursery)
                replies = await self._prepare(connection, *commands)
                nursery.cancel_scope.cancel(reason="it was only to be tried")
        except RedisError as error:
            return error
        except BaseExceptionGroup as group:
            errors, others = group.split(RedisError)
            if others is not None:
                raise others from None
            assert errors is not None
            return first_error(errors)
        return next((r for r in replies if isinstance(r, RedisError)), replies[-1])

    async def _prepare(self, connection: TCPConnection, *more: Command) -> list[Any]:
        """Load the scripts, find out what time it is there, and do more; return the replies."""
        commands = [Command(b"SCRIPT LOAD", (script.text,)) for script in SCRIPTS]
        began = trio.current_time()
        batch = connection.create_request_batch(
            cast("Any", [Command(b"TIME", ()), *commands, *more]), ANSWER_TIMEOUT
        )
        replies = await batch.get_result()
        self._read_time(replies[0], began)
        return list(replies)

    def _read_time(self, reply: Any, began: float) -> None:
        if isinstance(reply, list):
            moment = (began + trio.current_time()) / 2
            self.offset = moment - int(reply[0]) - int(reply[1]) / 1e6

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            connection = await connect(self._address, self._tls, nursery)
            for reply in await self._prepare(connection):
                if isinstance(reply, Exception):
                    raise reply if isinstance(reply, RedisError) else Disconnected(str(reply))
            if self._failure is not None:
                logger.info("Redis at %s can be used again", self._address)
            self._failure = None
            self._connection = connection
            nursery.start_soon(self._listen, connection, nursery.cancel_scope)
            nursery.start_soon(self._ping, connection)
            self._welcome()
            self._tell_change()
        self._connection = None

    async def _listen(self, connection: TCPConnection, scope: trio.CancelScope) -> None:
        try:
            async for push in connection.push_messages:
                self._hand_on(push)
                for one in waiting_pushes(connection):
                    self._hand_on(one)
        except RedisError:
            pass  # lost: those who wait for a reply are told why
        finally:
            self._connection = None
            scope.cancel(reason="the connection to Redis is lost")

    def _hand_on(self, push: Any) -> None:
        if push[0] == b"message":
            self._push(cast("bytes", push[1]), cast("bytes", push[2]))
        elif push[0] == b"pmessage":
            self._push(cast("bytes", push[2]), cast("bytes", push[3]))

    async def _ping(self, connection: TCPConnection) -> None:
        while True:
            await trio.sleep(PING_INTERVAL)
            began = trio.current_time()
            try:
                self._read_time(await self.ask(b"TIME"), began)
            except RequestError:
                if not connection.usable:
                    return

    def _drop(self, reason: str) -> None:
        """Give the connection up: the next one is made at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            logger.error("Redis at %s: %s; connecting again", self._address, reason)
            connection.invalidate(reason)

    def _fail(self, reason: str) -> None:
        """Note why Redis cannot be used; it is logged once, until it can be."""
        if self._failure is None:
            logger.error("%s; publishing is refused until it can be", self._sentence(reason))
        self._failure = reason
        self._tell_change()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
