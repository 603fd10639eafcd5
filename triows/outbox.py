"""A client's requests: sent in order, kept until answered, sent again when a connection is lost."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any, Final, final

import attrs
import trio
import uuid_utils
from msgspec.structs import replace

from triows.codec import decode, encode_request
from triows.errors import ErrorCode, RequestError, TriowsError
from triows.messages import Message, MessageType

BACKOFF_MIN: Final = 0.5  # seconds
BACKOFF_MAX: Final = 20.0  # seconds


def backoff(attempt: int, wait: float = 0.0) -> float:
    """Return the seconds to wait before attempt number `attempt` (from 0) of coming back.

    Full jitter, the first attempt included, so that clients that lost the same server do not
    come back together.

    Args:
        attempt: how many have failed already.
        wait: what the server asked for, at least.
    """
    ceiling = min(BACKOFF_MAX, BACKOFF_MIN * 2 ** min(attempt, 16))
    return max(wait, min(BACKOFF_MAX, BACKOFF_MIN + random.uniform(0, ceiling)))  # noqa: S311


@attrs.define(eq=False)
class Pending:
    """A request that waits for its answer."""

    id: str
    text: bytes
    number: int  # in the order of asking, which is the order of sending, also again
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: Message | None = None
    failure: TriowsError | None = None


@final
class Outbox:
    """What is to be sent, and what waits for an answer.

    Attributes:
        failure: why nothing will be sent any more, or None.
    """

    def __init__(self) -> None:
        self.failure: TriowsError | None = None
        self._pending: dict[str, Pending] = {}
        self._unsent: deque[Pending] = deque()
        self._numbers = itertools.count()
        self._changed = trio.Event()
        self._hold_until = -1.0  # the server asked for a pause

    def put(self, message: Message) -> Pending:
        """Have a request sent; it is given an id if it has none.

        Raises:
            RequestError: one with the same id waits already, or its data is no JSON.
            TriowsError: `failure`.
        """
        if self.failure is not None:
            raise self.failure
        id_ = message.id or str(uuid_utils.uuid7())
        if id_ in self._pending:
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"a request with the id {id_!r} waits for its answer already"
            )
        text = encode_request(replace(message, id=id_))
        decode(text)  # refused here, it says why; the server could not even say to whom
        pending = self._pending[id_] = Pending(id_, text, next(self._numbers))
        self._unsent.append(pending)
        self.wake()
        return pending

    async def wait(self, pending: Pending) -> Any:
        """Return the data of the answer.

        Raises:
            RequestError: the server said no.
            TriowsError: `failure`.
        """
        await pending.answered.wait()
        if pending.failure is not None:
            raise pending.failure
        assert pending.answer is not None
        return pending.answer.data

    def forget(self, pending: Pending) -> None:
        """Nobody waits for it any more: do not send it (again)."""
        if self._pending.get(pending.id) is pending:
            del self._pending[pending.id]
        if pending in self._unsent:
            self._unsent.remove(pending)

    def settle(self, message: Message) -> None:
        """Take an answer; one that says "later" has the request sent again."""
        pending = self._pending.get(message.id or "")
        if pending is None:
            return
        if message.type == MessageType.ERROR:
            pending.failure = as_error(message)
            if pending.failure.retry_after is not None:
                self.hold(pending.failure.retry_after)
                pending.failure = None
                self._unsent = _in_order([*self._unsent, pending])
                return
        pending.answer = message
        pending.answered.set()

    def restart(self) -> None:
        """Begin with a new connection: whatever was not answered is sent again."""
        self._unsent = _in_order(p for p in self._pending.values() if not p.answered.is_set())
        self.wake()

    def fail(self, failure: TriowsError) -> None:
        """End: whoever waits, now or later, is told why."""
        self.failure = failure
        for pending in self._pending.values():
            pending.failure = failure
            pending.answered.set()

    def hold(self, seconds: float) -> None:
        """Send nothing for some time."""
        self._hold_until = max(self._hold_until, trio.current_time() + seconds)
        self.wake()

    @property
    def held(self) -> float:
        """For how many seconds nothing is to be sent."""
        return max(0.0, self._hold_until - trio.current_time())

    def __bool__(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    def pop(self) -> bytes:
        """Return the next text to send."""
        return self._unsent.popleft().text

    def wake(self) -> None:
        """Have `changed` return."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until there may be something new to send."""
        await self._changed.wait()
        self._changed = trio.Event()


def _in_order(pending: Any) -> deque[Pending]:
    return deque(sorted(pending, key=lambda p: p.number))


def as_error(message: Message) -> RequestError:
    """Return what an `error` message says."""
    data = message.data
    try:
        code = ErrorCode(data["code"])
    except ValueError:  # of a newer server
        code = ErrorCode.UNAVAILABLE if data["retry"] else ErrorCode.BAD_REQUEST
    return RequestError(code, data["message"], retry_after=data.get("retry_after"))
