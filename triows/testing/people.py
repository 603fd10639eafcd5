"""Those who take part in a simulation: each has a client, publishes and watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, final

import attrs
import trio

from triows.client import Client, open_client
from triows.errors import ConnectionClosed, ErrorCode, HandshakeRefused, RequestError, TriowsError
from triows.messages import Message, MessageType, Position
from triows.testing.ledger import Blame, Cursor, Ledger, Sent
from triows.testing.network import Network
from triows.testing.site import URL
from triows.testing.tokens import Tokens
from triows.topics import OnLag
from triows.viewer import Subscription

_AT_ONCE: Final = 8  # messages published without waiting for each
_PAUSE: Final = 1.0  # seconds before somebody who was shown the door comes back
_LOST: Final = (ConnectionClosed, HandshakeRefused)


class Stage(Protocol):
    """What people know of the simulation."""

    network: Network
    tokens: Tokens
    ledger: Ledger

    def blame(self, what: str) -> None:
        """Say what is wrong."""

    def note(self, *what: object) -> None:
        """Say what happens."""


@final
class View:
    """What one of them watches, over any number of clients.

    Attributes:
        cursor: where it is.
        over: whether nothing more will come.
        reading: the subscription, while there is one.
    """

    def __init__(self, who: str, channel: str, start: str, on_lag: str, stage: Stage) -> None:
        self.cursor = Cursor(who, channel, stage.ledger, stage.blame)
        self.over = False
        self.reading: Subscription | None = None
        self._start = start
        self._on_lag = OnLag(on_lag)
        self._stage = stage

    async def run(self, client: Client, pause: Callable[[], float]) -> None:
        """Read until the end, or until the client gives up.

        Args:
            client: to read from.
            pause: returns how many seconds each message takes.
        """
        cursor = self.cursor
        async with client.subscribe(cursor.channel, **self._options()) as self.reading:
            async for message in self.reading:
                self._take(message, self.reading.position)
                if pause():
                    await trio.sleep(pause())
        self.over = True
        self._stage.note(cursor.who, "over", cursor.channel)

    def _options(self) -> dict[str, Any]:
        cursor, options = self.cursor, dict[str, Any](on_lag=self._on_lag)
        if cursor.epoch is not None and cursor.offset is not None:
            options["since"] = Position(cursor.epoch, cursor.offset)
        elif self._start == "start":
            options["from_start"] = True
        elif self._start == "tail":
            options["tail"] = 3
        return options

    def _take(self, message: Message, position: Position | None) -> None:
        cursor, data = self.cursor, message.data
        assert position is not None
        if message.type == MessageType.GAP:
            if cursor.epoch is None and data["reason"] != "epoch":
                cursor.epoch = data["epoch"]
                cursor.offset = 0 if self._start == "start" else None
            cursor.gap(data["epoch"], data["from"], data["to"], data["count"], data["reason"])
        else:
            if cursor.epoch is None:
                cursor.epoch = position.epoch
                cursor.offset = 0 if self._start == "start" else None
            cursor.message(message.offset or 0, message.id, message.type, message.raw)
        self._stage.note(cursor.who, message.type, cursor.channel, position.offset)
        if (cursor.epoch, cursor.offset) != (position.epoch, position.offset):
            self._stage.blame(f"{cursor.who} is at {cursor.offset}, and its position {position}")


@final
@attrs.define(eq=False)
class Person:
    """Somebody with a client, and with another one when the first has given up.

    Attributes:
        lifetime: seconds that a token is good for.
        renewed: whether a new one is had in time.
        pause: seconds that each message takes to read.
        views: by channel.
        queue: what is to be published.
    """

    name: str
    stage: Stage
    blame: Blame
    lifetime: float = 3600.0
    renewed: bool = True
    pause: float = 0.0
    views: dict[str, View] = attrs.field(factory=dict)
    queue: deque[str] = attrs.field(factory=deque)
    _numbers: int = 0
    _going: bool = False
    _nursery: trio.Nursery | None = None  # of the client there is
    _client: Client | None = None
    _scopes: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    _publishing: trio.CancelScope | None = None
    _more: trio.Event = attrs.field(factory=trio.Event)
    _wanted: trio.Event = attrs.field(factory=trio.Event)  # there is something to do

    # Told what to do

    def publish(self, channel: str, type_: str, raw: bytes) -> None:
        """Publish a message, however long it takes."""
        self._numbers += 1
        id_ = f"{self.name}-{self._numbers}"
        self.stage.ledger.sent[id_] = Sent(self.name, channel, self._numbers, type_, raw)
        self.queue.append(id_)
        self._wanted.set()
        self._more.set()

    def watch(self, channel: str, start: str, on_lag: str) -> None:
        """Watch a channel, if it is not watched already."""
        if channel in self.views:
            return
        view = self.views[channel] = View(self.name, channel, start, on_lag, self.stage)
        self._wanted.set()
        self._start(view)

    def leave(self, channel: str) -> None:
        """Watch a channel no longer."""
        if self.views.pop(channel, None) is not None and channel in self._scopes:
            self._scopes[channel].cancel(reason="a step of the schedule")

    def give_up_publishing(self) -> None:
        """Cancel what is being published; it is published again."""
        if self._publishing is not None:
            self._publishing.cancel(reason="a step of the schedule")

    def come_back(self, lifetime: float, *, renewed: bool) -> None:
        """Leave, and come back with tokens of another life."""
        self.lifetime, self.renewed = lifetime, renewed
        self._end("a step of the schedule")

    def _end(self, reason: str) -> None:
        """Have the client there is leave, if there is one."""
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.cancel_scope.cancel(reason=reason)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection; who takes no part needs none."""
        if not self._wanted.is_set():
            return True
        return self._client is not None and self._client._talking is not None

    def go_home(self) -> None:
        """Leave, with a goodbye."""
        self._going = True
        self._wanted.set()
        self._end("the simulation is over")

    # Doing it

    async def run(self) -> None:
        """Take part once there is something to do, until told to go home, or cancelled."""
        await self._wanted.wait()
        while not self._going:
            async with open_client(
                URL,
                token=self._renew if self.renewed else self._token(),
                open_stream=self.stage.network.opener(self.name),
                on_state=self._on_state,
            ) as client:
                async with trio.open_nursery() as self._nursery:
                    self._client = client
                    self._nursery.start_soon(self._publish, client)
                    for view in self.views.values():
                        self._start(view)
                self._nursery = None
            self.stage.note(self.name, "left")
            if not self._going:
                await trio.sleep(_PAUSE)

    def _on_state(self, state: str, reason: TriowsError | None) -> None:
        if state == "failed" and isinstance(reason, _LOST):
            self._lost(reason)

    async def _renew(self) -> str:
        return self._token()

    def _token(self) -> str:
        return self.stage.tokens.make(self.name, ttl=self.lifetime)

    def _start(self, view: View) -> None:
        """Begin to read, unless the channel is just being left: a client watches it once only."""
        channel = view.cursor.channel
        if self._nursery is not None and channel not in self._scopes and not view.over:
            self._scopes[channel] = trio.CancelScope()
            self._nursery.start_soon(self._view, view)

    async def _view(self, view: View) -> None:
        channel = view.cursor.channel
        assert self._client is not None
        try:
            with self._scopes[channel]:
                await view.run(self._client, lambda: self.pause)
        except _LOST as error:
            self._lost(error)
        except RequestError as error:
            self.blame(f"{self.name} cannot watch {channel}: {error!r}")
        finally:
            view.reading = None
            del self._scopes[channel]
            following = self.views.get(channel)
            if following is not None and following is not view:
                self._start(following)

    async def _publish(self, client: Client) -> None:
        while True:
            while not self.queue:
                self._more = trio.Event()
                await self._more.wait()
            batch = self._batch()
            with trio.CancelScope() as self._publishing:
                try:
                    await self._publish_batch(client, batch)
                except _LOST as error:
                    self._lost(error)
                    return
            self._publishing = None

    def _batch(self) -> list[str]:
        sent = self.stage.ledger.sent
        channel = sent[self.queue[0]].channel
        batch: list[str] = []
        for id_ in self.queue:
            if sent[id_].channel != channel or len(batch) == _AT_ONCE:
                break
            batch.append(id_)
        return batch

    async def _publish_batch(self, client: Client, batch: list[str]) -> None:
        ledger = self.stage.ledger
        channel = ledger.sent[batch[0]].channel
        messages = [Message(ledger.sent[i].type, ledger.sent[i].raw, id=i) for i in batch]
        try:
            positions = await client.publish_many(channel, messages)
        except RequestError as error:
            await self._refused(batch, error)
            return
        for id_, position in zip(batch, positions, strict=True):
            ledger.ack(channel, position.epoch, position.offset, id_)
            self.queue.popleft()
            self.stage.note(self.name, "published", id_, position.offset)

    async def _refused(self, batch: list[str], error: RequestError) -> None:
        self.stage.note(self.name, "refused", str(error.code))
        if error.code is ErrorCode.ENDED:
            for _ in batch:
                self.queue.popleft()
        elif error.retry:
            await trio.sleep(_PAUSE)
        else:
            self.blame(f"{self.name} cannot publish: {error!r}")

    def _lost(self, error: ConnectionClosed | HandshakeRefused) -> None:
        """Begin anew with another client; only a revocation is a reason for that."""
        self.stage.note(self.name, "lost", type(error).__name__)
        revoked = error.status == 401 if isinstance(error, HandshakeRefused) else error.code == 4503
        if not revoked:
            self.blame(f"the client of {self.name} gave up: {error}")
        self._end("the client has given up")
