"""The nodes that share a Redis: one asks, all answer, nobody keeps a list of the others.

A question goes to all, and Redis says how many have heard it; the answers come back to who asked.
So a node that died is in no answer, and nothing has to be cleaned up after it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from itertools import count
from typing import Any, Final, final

import msgspec
import trio

from triows.auth import Revocation
from triows.bus import Bus, Presence, Told
from triows.bus.keys import Keys
from triows.bus.links import RETRY_AFTER, Call, Links
from triows.bus.scripts import REVOKE
from triows.codec import encode_json
from triows.errors import ErrorCode, RequestError

logger = logging.getLogger("triows.redis")

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that are waited for the answers of the other nodes."""


class _Question(msgspec.Struct, tag="present"):
    """Who watches this channel at yours?"""

    channel: str
    node: str
    number: int


class _Search(msgspec.Struct, tag="known"):
    """What do you know of this connection?"""

    connection: str
    node: str
    number: int


class _Revoked(msgspec.Struct, tag="revoked"):
    """These tokens are believed no more."""

    whom: str
    at: float


class _Answer(msgspec.Struct, tag="here"):
    """So many, and these: connections."""

    number: int
    count: int
    connections: list[dict[str, Any]]


_decoder: Final = msgspec.json.Decoder(_Question | _Search | _Answer | _Revoked)


class _Asked:
    """A question under way."""

    def __init__(self) -> None:
        self.answers: list[_Answer] = []
        self.expected: int | None = None
        self.complete = trio.Event()

    def look(self) -> None:
        """See whether all have answered."""
        if self.expected is not None and len(self.answers) >= self.expected:
            self.complete.set()


@final
class Nodes:
    """Asks the other nodes, and answers them.

    Args:
        link: the connection.
        keys: names.
        here: says what is known of this process.
        told: told of each revocation.
    """

    def __init__(self, link: Links, keys: Keys, here: Bus, told: Told) -> None:
        self.id = secrets.token_hex(6)
        self._link = link
        self._keys = keys
        self._here = here
        self._told = told
        self._is_new = trio.Event()  # what is heard: what was revoked before is to be read
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}

    def miss(self, names: Collection[bytes]) -> None:
        """Read what was revoked while others were not heard."""
        if self._keys.control in names:
            self._is_new.set()

    async def run(self) -> None:
        """Listen to the others, until cancelled, and read what was not heard."""
        self._link.subscribe(self._keys.control, self._keys.node(self.id))
        while True:
            await self._is_new.wait()
            self._is_new = trio.Event()
            try:
                self.obey(await self._link.ask(b"HGETALL", self._keys.revocations))
            except RequestError:
                await trio.sleep(RETRY_AFTER)
                self._is_new.set()

    def obey(self, kept: dict[bytes, bytes]) -> None:
        """Tell of all revocations in Redis."""
        for whom, at in kept.items():
            try:
                name, seconds = whom.decode(), float(at)
            except ValueError as error:
                logger.warning("a revocation in Redis is damaged, and left out: %s", error)
            else:
                self._tell(name, seconds)

    def _tell(self, whom: str, at: float) -> None:
        kind, _, name = whom.partition(":")
        is_token = kind == "token"
        self._told(
            Revocation(token_id=name if is_token else None, user=None if is_token else name, at=at)
        )

    async def revoke(self, revocation: Revocation) -> None:
        """Keep a revocation, and tell all nodes.

        Raises:
            RequestError: `unavailable`, or `bad_request` for whom Redis cannot keep.
        """
        if revocation.token_id is not None:
            whom = f"token:{revocation.token_id}"
        else:
            whom = f"user:{revocation.user}"
        try:
            text = encode_json(_Revoked(whom, revocation.at))
            values = (
                *(whom.encode(), b"%f" % revocation.at),
                *(self._keys.publish, self._keys.control, text),
            )
        except ValueError as error:
            reason = f"a revocation that cannot be stored: {error}"
            raise RequestError(ErrorCode.BAD_REQUEST, reason) from None
        call = Call(REVOKE, (self._keys.revocations,), values)
        (reply,) = await self._link.run_scripts([call])
        if isinstance(reply, RequestError):
            raise reply

    def hear(self, name: bytes, text: bytes) -> bool:
        """Take what another node says; false if it is not for here."""
        if name not in (self._keys.control, self._keys.node(self.id)):
            return False
        try:
            said = _decoder.decode(text)
        except ValueError as error:
            logger.warning("what a node said is not understood: %s", error)
            return True
        if isinstance(said, _Answer):
            self._take(said)
        elif isinstance(said, _Revoked):
            self._tell(said.whom, said.at)
        elif said.node != self.id:
            self._answer(said)
        return True

    async def present(self, channel: str) -> Presence:
        """Return who watches a channel on all nodes that answer in time.

        Raises:
            RequestError: `unavailable`.
        """
        answers = await self._ask(_Question(channel, self.id, next(self._numbers)))
        here = Presence.of(self._here.present_here(channel))
        return Presence(
            here.count + sum(answer.count for answer in answers),
            [*here.connections, *(c for answer in answers for c in answer.connections)],
        )

    async def known(self, connection: str) -> dict[str, object] | None:
        """Return what a node knows of a connection, if one does that answers in time.

        Raises:
            RequestError: `unavailable`.
        """
        here = self._here.known_here(connection)
        if here is not None:
            return here
        answers = await self._ask(_Search(connection, self.id, next(self._numbers)))
        return next((found for answer in answers for found in answer.connections), None)

    async def _ask(self, question: _Question | _Search) -> list[_Answer]:
        asked = self._asked[question.number] = _Asked()
        try:
            heard = await self._link.ask(
                self._keys.publish, self._keys.control, encode_json(question)
            )
            asked.expected = heard - 1  # we have, too
            asked.look()
            with trio.move_on_after(ANSWER_TIMEOUT):
                await asked.complete.wait()
        finally:
            del self._asked[question.number]
        return asked.answers

    def _answer(self, question: _Question | _Search) -> None:
        if isinstance(question, _Search):
            known = self._here.known_here(question.connection)
            here = Presence.of([] if known is None else [known])
        else:
            here = Presence.of(self._here.present_here(question.channel))
        answer = _Answer(question.number, here.count, here.connections)
        self._link.tell(self._keys.publish, self._keys.node(question.node), encode_json(answer))

    def _take(self, answer: _Answer) -> None:
        asked = self._asked.get(answer.number)
        if asked is not None:
            asked.answers.append(answer)
            asked.look()
