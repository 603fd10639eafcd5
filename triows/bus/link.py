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
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Any, Final, cast, final

import trio
from coredis.connection import TCPConnection
from coredis.exceptions import ConnectionError as Disconnected
from coredis.exceptions import MovedError, NoScriptError, RedisError

from triows.bus.address import Address
from triows.bus.connecting import (
    ANSWER_TIMEOUT,
    START_TIMEOUT,
    Command,
    connect,
    prepare,
    probe,
    reason_of,
    try_once,
    unusable,
    waiting_pushes,
)
from triows.bus.keys import subscriptions
from triows.bus.links import RETRY_AFTER, Call, Missed, Moved, Push, Reply
from triows.bus.scripts import Script
from triows.errors import ErrorCode, RequestError

logger = logging.getLogger("triows.redis")

PING_INTERVAL: Final = 2.0
"""Seconds between two looks whether the connection is alive."""

_LEAST_DELAY: Final = 0.1  # seconds before a connection is tried again; doubles
_MOST_DELAY: Final = 2.0


@final
class Link:
    """A connection that is made again when it is lost.

    Args:
        address: of the Redis.
        push: told of each message that is heard.
        missed: told of what was subscribed to, on each new connection.

    Attributes:
        address: of the Redis.
        offset: seconds to add to Redis' time for the monotonic one here.
        commands: how many were sent, for statistics.
        failing: called when there is no connection any more, or could not be made.
        deprived: told of a name that a node of a cluster lets nobody hear any more.
    """

    failing: Callable[[], None] = staticmethod(lambda: None)
    deprived: Callable[[bytes], None] = staticmethod(lambda _: None)

    def __init__(self, address: Address, push: Push, missed: Missed) -> None:
        self.offset = 0.0
        self.commands = 0
        self.address = address
        self._push = push
        self._missed = missed
        self._names: Counter[bytes] = Counter()  # subscribed to
        self._checked: Awaitable[Any] | None = None  # the reply that shows whether it may be
        self._subscribed = trio.Event()
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
                found.append(self._refuse(reply))
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
            raise self._refuse(reply)
        return reply

    async def try_ask(self, *command: bytes) -> Any:
        """Send one command, on a connection of its own if there is none; return None if there is
        no reply.
        """
        try:
            if self._connection is not None:
                return await self.ask(*command)
        except RequestError:
            return None
        replies = await try_once(self.address, self._tls, [command])
        return None if isinstance(replies, RedisError) else replies[0]

    def tell(self, *command: bytes) -> None:
        """Send a command whose reply is of no interest, if there is a connection."""
        if self._connection is not None and self._connection.usable:
            self.commands += 1
            self._connection.create_request(*command, timeout=ANSWER_TIMEOUT)

    def subscribe(self, *names: bytes) -> None:
        """Hear what is told there, on each connection, until `unsubscribe` was called as often."""
        new = {name for name in names if not self._names[name]}
        self._names.update(names)
        self._say(b"SUBSCRIBE", new)

    def unsubscribe(self, *names: bytes) -> None:
        """Undo one `subscribe`."""
        self._names.subtract(names)
        gone = {name for name in names if self._names[name] <= 0}
        for name in gone:
            del self._names[name]
        self._say(b"UNSUBSCRIBE", gone)

    def forget(self, name: bytes) -> None:
        """Subscribe to a name no more that is told elsewhere: here nobody can hear it any more."""
        del self._names[name]

    def _say(self, command: bytes, names: Collection[bytes]) -> None:
        """Send what has no reply of its own, but when it is refused: an error would then be taken
        for the reply to what comes next. So that is a command of which it does no harm.
        """
        connection = self._connection
        if not names or connection is None or not connection.usable:
            return
        for letter, some in subscriptions(names, sharded=self.address.is_cluster):
            self.commands += 1
            connection.send_command(letter + command, *some)
        self._checked = connection.create_request(b"TIME", timeout=ANSWER_TIMEOUT)
        self._subscribed.set()

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

    def _refuse(self, error: BaseException) -> RequestError:
        """Return how what Redis has refused is told."""
        return self._refusal(str(error), Moved if isinstance(error, MovedError) else RequestError)

    def _refusal(self, reason: str, kind: type[RequestError] = RequestError) -> RequestError:
        return kind(ErrorCode.UNAVAILABLE, self._sentence(reason), retry_after=RETRY_AFTER)

    def _sentence(self, reason: str) -> str:
        return unusable(self.address, reason)

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

    async def probe(self, *commands: tuple[bytes, ...]) -> list[Any]:
        """Make a connection, send commands, let it go, and return the replies.

        Raises:
            ConfigError: saying what is wrong, and what to do.
        """
        return await probe(self.address, self._tls, commands, START_TIMEOUT)

    def _read_time(self, reply: Any, began: float) -> None:
        if isinstance(reply, list):
            moment = (began + trio.current_time()) / 2
            self.offset = moment - int(reply[0]) - int(reply[1]) / 1e6

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            connection = await connect(self.address, self._tls, nursery)
            began = trio.current_time()
            for reply in (replies := await prepare(connection, self.address)):
                if isinstance(reply, Exception):
                    raise reply if isinstance(reply, RedisError) else Disconnected(str(reply))
            self._read_time(replies[0], began)
            if self._failure is not None:
                logger.info("Redis at %s can be used again", self.address)
            self._failure = None
            self._connection = connection
            nursery.start_soon(self._listen, connection, nursery.cancel_scope)
            nursery.start_soon(self._ping, connection)
            nursery.start_soon(self._check)
            self._say(b"SUBSCRIBE", self._names)
            self._missed(self._names)
            self._tell_change()
        self._connection = None
        self.failing()

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
        if push[0] in (b"message", b"smessage"):
            self._push(cast("bytes", push[1]), cast("bytes", push[2]))
        elif push[0] == b"pmessage":
            self._push(cast("bytes", push[2]), cast("bytes", push[3]))
        elif push[0] == b"sunsubscribe" and push[1] in self._names:  # its slot is elsewhere now
            del self._names[push[1]]
            self.deprived(push[1])

    async def _ping(self, connection: TCPConnection) -> None:
        while True:
            await trio.sleep(PING_INTERVAL)
            began = trio.current_time()
            try:
                self._read_time(await self.ask(b"TIME"), began)
            except RequestError:
                if not connection.usable:
                    return

    async def _check(self) -> None:
        """Give the connection up if it was refused to hear something."""
        while True:
            await self._subscribed.wait()
            self._subscribed = trio.Event()
            assert self._checked is not None
            try:
                await self._checked
            except (Disconnected, TimeoutError):
                pass  # lost, which others notice
            except RedisError as error:
                self._drop(f"a subscription was refused: {error}")

    def _drop(self, reason: str) -> None:
        """Give the connection up: the next one is made at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            logger.error("Redis at %s: %s; connecting again", self.address, reason)
            connection.invalidate(reason)

    def _fail(self, reason: str) -> None:
        """Note why Redis cannot be used; it is logged once, until it can be."""
        if self._failure is None:
            logger.error("%s; publishing is refused until it can be", self._sentence(reason))
        self._failure = reason
        self._tell_change()
        self.failing()

    def retire(self) -> None:
        """Refuse all from now on: others have what was here. `run` is to be cancelled, too."""
        self._failure = "it has no part of the cluster any more"
        self._tell_change()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
