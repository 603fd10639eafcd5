"""A channel's log against a naive model: a plain list, and limits applied in a loop."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triows import logs
from triows.codec import clock, encode_published, published_head
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.logs import MESSAGE_OVERHEAD, OVERHEAD, Log
from triows.messages import Message, Receipt

_users = st.sampled_from(("ann", "bob"))
_ids = st.sampled_from((None, "1", "2", "3", "4", "5", "6"))


class LogMachine(RuleBasedStateMachine):
    """Does to a log and to its model the same, and compares all that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(logs, "MAX_IDS", 4)  # few enough to be reached

    def teardown(self) -> None:
        """Leave the module as it was."""
        self.patch.undo()

    @initialize(
        max_messages=st.integers(1, 150),
        max_bytes=st.sampled_from((1, 2500, 10_000, 1 << 20)),
        max_age=st.sampled_from((0, 5.0, 50.0)),
        window=st.sampled_from((0, 3.0, 300.0)),
    )
    def begin(self, max_messages: int, max_bytes: int, max_age: float, window: float) -> None:
        """Start with an empty log."""
        self.limits = LogLimits(
            max_messages=max_messages,
            max_bytes=max_bytes,
            max_age=max_age,
            idempotency_window=window,
        )
        self.now = 1000.0
        self.log = Log("session:1", self.limits, self.now)
        self.epoch = self.log.epoch
        self.kept: list[tuple[int, bytes, float]] = []  # offset, frame, time
        self.known: dict[tuple[str, str], tuple[int, float]] = {}
        self.head = 0
        self.ended = False

    def _size(self) -> int:
        frames = sum(len(frame) + MESSAGE_OVERHEAD for _, frame, _ in self.kept)
        return OVERHEAD + frames + logs.ID_OVERHEAD * len(self.known)

    def _trim(self) -> None:
        limits = self.limits
        while len(self.kept) > limits.max_messages:
            del self.kept[0]
        ids = logs.ID_OVERHEAD * len(self.known)  # they do not push messages out
        while self._size() - ids > limits.max_bytes and len(self.kept) > 1:
            del self.kept[0]
        while limits.max_age and self.kept and self.kept[0][2] < self.now - limits.max_age:
            del self.kept[0]

    def _forget(self) -> None:
        for key, (_, at) in list(self.known.items()):
            full = len(self.known) >= logs.MAX_IDS
            if self.now - at <= self.limits.idempotency_window and not full:
                break
            del self.known[key]

    def _duplicate(self, id_: str | None, user: str) -> int | None:
        return None if id_ is None else self.known.get((user, id_), (None,))[0]

    def _append(self, message: Message, user: str) -> None:
        self._forget()
        duplicate = self._duplicate(message.id, user)
        if duplicate is None and self.ended:
            with pytest.raises(RequestError) as caught:
                self.log.append(message, user, self.now)
            assert caught.value.code == ErrorCode.ENDED
            return
        receipt = self.log.append(message, user, self.now)
        if duplicate is not None:
            assert receipt.duplicate
            assert (receipt.position.epoch, receipt.position.offset) == (self.epoch, duplicate)
            return
        self.head += 1
        assert receipt == Receipt(self.log.epoch, self.log.head)
        frame = self._read_newest(message)
        self.kept.append((self.head, frame, self.now))
        if message.id is not None:
            self.known[user, message.id] = (self.head, self.now)
        self.ended = message.type == "end"
        self._trim()

    def _read_newest(self, message: Message) -> bytes:
        part = self.log.slice(self.log.head - 1, 0)
        assert part.last == self.head
        said = json.loads(frame_payload(part.data))
        assert (said["offset"], said["type"], said.get("id")) == (
            self.head,
            message.type,
            message.id,
        )
        assert said["data"] == message.data
        return part.data

    @rule(size=st.integers(0, 400), id_=_ids, user=_users)
    def append(self, size: int, id_: str | None, user: str) -> None:
        """Publish one message."""
        self._append(Message("log", b'"%b"' % (b"x" * size), id=id_), user)

    @rule(count=st.integers(1, 120))
    def append_many(self, count: int) -> None:
        """Publish many, so that what was given up is cleared away."""
        for number in range(count):
            self._append(Message("log", b"%d" % number), "ann")

    @rule(messages=st.lists(st.tuples(st.sampled_from("llllle"), _ids), max_size=9), user=_users)
    def append_together(self, messages: list[tuple[str, str | None]], user: str) -> None:
        """Publish some at once: as one after the other, but what is too much goes in the end."""
        self._forget()
        wanted: list[Receipt | None] = []
        frames: list[tuple[int, Message]] = []
        batch = [Message("end" if kind == "e" else "log", b"1", id=id_) for kind, id_ in messages]
        for message in batch:
            duplicate = self._duplicate(message.id, user)
            if duplicate is not None:
                wanted.append(Receipt(self.epoch, duplicate, duplicate=True))
            elif self.ended:
                wanted.append(None)
            else:
                self.head += 1
                self.ended = message.type == "end"
                if message.id is not None:
                    self.known[user, message.id] = (self.head, self.now)
                frames.append((self.head, message))
                wanted.append(Receipt(self.epoch, self.head))
        found = self.log.append_all(batch, user, self.now)
        assert [None if isinstance(f, RequestError) else f for f in found] == wanted
        head = published_head("session:1")
        for offset, message in frames:
            frame = encode_published(message, head, offset, clock.at(self.now))
            self.kept.append((offset, frame, self.now))
        if frames:
            self._trim()
        if len(self.known) > logs.MAX_IDS:
            self._forget()

    @rule(id_=_ids, user=_users, often=st.integers(0, 9))
    def end(self, id_: str | None, user: str, often: int) -> None:
        """Publish the end, once in a while."""
        if often == 0:
            self._append(Message("end", b'{"exit_code":0}', id=id_), user)

    @rule(seconds=st.sampled_from((0.0, 1.0, 3.0, 5.0)) | st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def trim(self) -> None:
        """Look for messages that grew too old."""
        self.log.trim(self.now)
        self._trim()

    @precondition(lambda self: self.kept)
    @rule()
    def drop_oldest(self) -> None:
        """Give one up early."""
        self.log.drop_oldest()
        del self.kept[0]

    @precondition(lambda self: self.kept)
    @rule(start=st.integers(0, 1000), max_bytes=st.sampled_from((0, 1, 150, 600, 5000, 1 << 20)))
    def slice(self, start: int, max_bytes: int) -> None:
        """Read on from some cursor, page by page, to the head."""
        cursor = self.kept[0][0] - 1 + start % len(self.kept)
        expected = [frame for offset, frame, _ in self.kept if offset > cursor]
        got = b""
        while cursor < self.head:
            part = self.log.slice(cursor, max_bytes)
            count = part.last - cursor
            assert count > 0
            assert len(part.data) <= max_bytes or count == 1
            got += part.data
            cursor = part.last
        assert got == b"".join(expected)

    @rule(first=st.integers(-5, 400), count=st.integers(-5, 400), max_bytes=st.integers(0, 3000))
    def read(self, first: int, count: int, max_bytes: int) -> None:
        """Ask for a range, of which some may not exist, any more or yet."""
        wanted = [frame for offset, frame, _ in self.kept if first <= offset <= first + count]
        while len(wanted) > 1 and sum(map(len, wanted)) > max_bytes:
            del wanted[-1]
        read = self.log.read(first, first + count, max_bytes)
        assert read == [frame_payload(frame) for frame in wanted]

    @precondition(lambda self: self.kept)
    @rule(back=st.integers(0, 200))
    def age(self, back: int) -> None:
        """Ask how long the message after some cursor has been waiting."""
        cursor = max(self.head - back, 0)
        waiting = [at for offset, _, at in self.kept if offset > cursor]
        assert self.log.age(cursor, self.now) == (self.now - waiting[0] if waiting else 0)

    @invariant()
    def agrees(self) -> None:
        """What the log says of itself is what the model holds."""
        log = self.log
        assert (log.epoch, log.head) == (self.epoch, self.head)
        assert log.position.offset == self.head
        assert log.earliest == (self.kept[0][0] if self.kept else self.head + 1)
        assert log.size == self._size()
        assert (log.ended is not None) == self.ended
        assert log.touched <= self.now


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_log_agrees_with_a_list: type = LogMachine.TestCase


def _log(**limits: float) -> Log:
    return Log("session:1", LogLimits(**limits), 0.0)  # type: ignore[arg-type]  # whole numbers


def _offsets(log: Log) -> list[int]:
    return [json.loads(text)["offset"] for text in log.read(1, log.head, 1 << 30)]


def test_log_offsets_begin_at_one() -> None:
    """An empty log is at 0; the first message is 1, whatever is given up later."""
    log = _log(max_messages=2)
    assert (log.head, log.earliest, log.position.offset) == (0, 1, 0)
    given = [log.append(Message("log", b"1"), "u", 0.0).position.offset for _ in range(5)]
    assert given == [1, 2, 3, 4, 5]
    assert _offsets(log) == [4, 5]


def test_log_epochs_differ() -> None:
    """Each incarnation of a log has an epoch of its own."""
    assert len({_log().epoch for _ in range(100)}) == 100


def test_log_keeps_its_newest_message_whatever_its_size() -> None:
    """One message above the byte limit is kept until the next comes."""
    log = _log(max_bytes=1)
    log.append(Message("log", b'"%b"' % (b"x" * 5000)), "u", 0.0)
    assert _offsets(log) == [1]
    log.append(Message("log", b"2"), "u", 0.0)
    assert _offsets(log) == [2]


def test_log_answers_a_known_id_after_the_end() -> None:
    """A retry of what was published before the end gets its first answer; others `ended`."""
    log = _log()
    first = log.append(Message("log", b"1", id="a"), "u", 0.0)
    last = log.append(Message("end", b"", id="b"), "u", 0.0)
    for id_, receipt in (("a", first), ("b", last)):
        again = log.append(Message("log", b"9", id=id_), "u", 1.0)
        assert again == Receipt(receipt.epoch, receipt.offset, duplicate=True)
    with pytest.raises(RequestError, match="has ended"):
        log.append(Message("log", b"1", id="c"), "u", 1.0)
    assert log.ended == b"{}"


@pytest.mark.parametrize(("at", "duplicate"), [(300.0, True), (300.1, False)])
def test_log_forgets_an_id_after_its_window(at: float, duplicate: bool) -> None:
    """Within the window the same id is the same message, after it a new one."""
    log = _log(idempotency_window=300)
    log.append(Message("log", b"1", id="a"), "u", 0.0)
    assert log.append(Message("log", b"1", id="a"), "u", at).duplicate is duplicate


def test_log_keeps_the_ids_of_users_apart() -> None:
    """Two users may choose the same id."""
    log = _log()
    assert not log.append(Message("log", b"1", id="a"), "ann", 0.0).duplicate
    assert not log.append(Message("log", b"1", id="a"), "bob", 0.0).duplicate


def test_log_remembers_boundedly_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of ids costs bounded memory, and pushes no message out."""
    monkeypatch.setattr(logs, "MAX_IDS", 10)
    log = _log(max_bytes=20_000)
    for number in range(200):
        log.append(Message("log", b"1", id=f"{number:03}"), "u", 0.0)
    assert log.size <= 20_000 + 10 * logs.ID_OVERHEAD
    assert log.head - log.earliest > 80
    assert log.append(Message("log", b"1", id="195"), "u", 0.0).duplicate


@pytest.mark.parametrize(
    "ask", [lambda log: log.read(1, 9, 99), lambda log: log.read(-9, -1, 99)], ids=["all", "none"]
)
def test_log_read_of_nothing_is_empty(ask: Callable[[Log], list[bytes]]) -> None:
    """An empty log has no range at all."""
    assert ask(_log()) == []


@pytest.mark.parametrize(("at", "kept"), [(10.0, [1, 2]), (10.1, [2]), (15.0, [2]), (15.1, [])])
def test_log_keeps_a_message_for_its_age(at: float, kept: list[int]) -> None:
    """A message is kept until it is older than `max_age`, not a moment less."""
    log = _log(max_age=10)
    log.append(Message("log", b"1"), "u", 0.0)
    log.append(Message("log", b"2"), "u", 5.0)
    log.trim(at)
    assert _offsets(log) == kept


def test_age_of_what_is_gone_is_nothing() -> None:
    """A cursor behind a log that has aged out altogether waits for nothing."""
    log = Log("session:1", LogLimits(max_age=10), 0)
    for _ in range(3):
        log.append(Message("log", b"1"), "ann", 0)
    log.trim(100)
    assert log.age(1, 100) == 0
