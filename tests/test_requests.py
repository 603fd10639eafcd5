"""What requests carry: where a subscription begins, and which range of history is meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from triows.codec import decode_data
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.frames import frame_payload
from triows.logs import Log
from triows.messages import Message
from triows.requests import AUTH, END, HISTORY, MAX_PAGE, SUBSCRIBE, HistoryData, SubscribeData
from triows.topics import OnLag


def _log(head: int = 10, kept: int = 4) -> Log:
    """A log with the messages from `head` - `kept` + 1 to `head`."""
    log = Log("session:1", LogLimits(max_messages=max(kept, 1)), 0.0)
    for number in range(head):
        log.append(Message("log", b"%d" % number), "ann", 0.0)
    return log


def _subscribe(log: Log | None = None, **data: Any) -> SubscribeData:
    raw = json.dumps(data).encode()
    if log is not None:
        raw = raw.replace(b"EPOCH", log.epoch.encode())
    return decode_data(Message("subscribe", raw), SUBSCRIBE)


def _history(log: Log, **data: Any) -> HistoryData:
    raw = json.dumps(data).encode().replace(b"EPOCH", log.epoch.encode())
    return decode_data(Message("history", raw), HISTORY)


def _since(offset: int, epoch: str = "EPOCH") -> dict[str, Any]:
    return {"since": {"epoch": epoch, "offset": offset}}


@pytest.mark.parametrize(
    ("data", "cursor"),
    [
        ({}, 10),
        ({"tail": 0}, 10),
        ({"tail": 1}, 9),
        ({"tail": 4}, 6),
        ({"tail": 5}, 6),
        ({"tail": 10**30}, 6),
        (_since(10), 10),
        (_since(9), 9),
        (_since(6), 6),
        ({"since": None, "tail": None, "from": None}, 10),
        ({"unknown": 1}, 10),
    ],
    ids=str,
)
def test_subscribe_begins_without_a_gap(data: dict[str, Any], cursor: int) -> None:
    """Live, at a tail, or at a position still covered: nothing is missing."""
    log = _log()
    request = _subscribe(log, **data)
    request.check()
    assert request.start(log) == (cursor, None)


@pytest.mark.parametrize(
    ("data", "gap"),
    [
        ({"from": "start"}, {"from": 1, "to": 6, "count": 6, "reason": "retention"}),
        (_since(5), {"from": 6, "to": 6, "count": 1, "reason": "retention"}),
        (_since(0), {"from": 1, "to": 6, "count": 6, "reason": "retention"}),
        (_since(0, "other"), {"from": 1, "to": 6, "count": 6, "reason": "epoch"}),
        (_since(99, "other"), {"from": 1, "to": 6, "count": 6, "reason": "epoch"}),
    ],
    ids=str,
)
def test_subscribe_tells_a_gap(data: dict[str, Any], gap: dict[str, Any]) -> None:
    """What is kept no longer, or of another epoch, is told by from, to and count."""
    log = _log()
    request = _subscribe(log, **data)
    request.check()
    cursor, frame = request.start(log)
    assert cursor == 6
    assert frame is not None
    said = json.loads(frame_payload(frame))
    assert (said["type"], said["channel"]) == ("gap", "session:1")
    assert said["data"] == {"epoch": log.epoch, **gap}


@pytest.mark.parametrize(
    ("data", "cursor"),
    [({}, 0), ({"from": "start"}, 0), ({"tail": 5}, 0), (_since(0), 0)],
    ids=str,
)
def test_subscribe_to_an_empty_log(data: dict[str, Any], cursor: int) -> None:
    """In a new log everything begins before its first message."""
    log = _log(0)
    assert _subscribe(log, **data).start(log) == (cursor, None)


@pytest.mark.parametrize("offset", [11, 10**30])
def test_subscribe_past_the_head_is_refused(offset: int) -> None:
    """A position that this log never had is `bad_position`."""
    log = _log()
    with pytest.raises(RequestError, match="past the log's head") as caught:
        _subscribe(log, **_since(offset)).start(log)
    assert caught.value.code == ErrorCode.BAD_POSITION


@pytest.mark.parametrize(
    "data",
    [
        {"tail": 1, "from": "start"},
        {"tail": 0, **_since(0)},
        {"from": "start", **_since(0)},
        {"from": "end"},
        {"from": ""},
        {"from": "x" * 1000},
        {"tail": -1},
        _since(-1),
    ],
    ids=lambda data: str(data)[:40],
)
def test_subscribe_refuses_nonsense(data: dict[str, Any]) -> None:
    """Two beginnings, an unknown one, or a negative number: `bad_request`."""
    with pytest.raises(RequestError) as caught:
        _subscribe(**data).check()
    assert caught.value.code == ErrorCode.BAD_REQUEST
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "data",
    [
        {"tail": "1"},
        {"tail": 1.5},
        {"tail": True},
        {"from": 1},
        {"since": 5},
        {"since": {"offset": 1}},
        {"since": {"epoch": "e"}},
        {"since": {"epoch": 1, "offset": 1}},
        {"on_lag": "drop"},
        {"on_lag": None},
    ],
    ids=str,
)
def test_subscribe_refuses_wrong_types(data: dict[str, Any]) -> None:
    """A member of the wrong type is `bad_request`."""
    with pytest.raises(RequestError) as caught:
        _subscribe(**data)
    assert caught.value.code == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("data", "on_lag"), [({}, OnLag.GAP), *(({"on_lag": word}, word) for word in OnLag)], ids=str
)
def test_subscribe_says_what_to_do_about_lag(data: dict[str, Any], on_lag: OnLag) -> None:
    """`gap` unless it is said otherwise."""
    assert _subscribe(**data).on_lag == on_lag


@pytest.mark.parametrize(
    ("data", "bounds"),
    [
        ({}, (7, 10, 10)),
        ({"limit": 2}, (9, 10, 10)),
        ({"limit": MAX_PAGE}, (7, 10, 10)),
        ({"to": 8}, (7, 8, 8)),
        ({"to": 8, "limit": 1}, (8, 8, 8)),
        ({"to": 99, "limit": 1}, (10, 10, 10)),
        ({"from": 8}, (8, 10, 10)),
        ({"from": 8, "limit": 2}, (8, 9, 10)),
        ({"from": 8, "to": 8}, (8, 8, 8)),
        ({"from": 8, "to": 10, "limit": 1}, (8, 8, 10)),
        ({"from": 8, "to": 9, "limit": 1}, (8, 8, 9)),
        ({"from": 8, "to": 99, "limit": 1}, (8, 8, 10)),
        ({"from": 5, "to": 8}, (7, 8, 8)),
        ({"epoch": "EPOCH", "limit": 1}, (10, 10, 10)),
    ],
    ids=str,
)
def test_history_bounds(data: dict[str, Any], bounds: tuple[int, int, int]) -> None:
    """A range, inclusive at both ends, or the newest; as far as it is kept, at most `limit`;
    and where the range ends that was asked for.
    """
    log = _log()
    assert _history(log, **data).bounds(log) == bounds


@pytest.mark.parametrize(
    "data", [{"from": 11}, {"from": 10**30}, {"to": 3}, {"to": -1}, {"from": 9, "to": 8}], ids=str
)
def test_history_of_nothing_is_an_empty_range(data: dict[str, Any]) -> None:
    """A range in which nothing is kept has its end before its beginning."""
    log = _log()
    first, last, end = _history(log, **data).bounds(log)
    assert first > max(last, end)
    assert log.read(first, last, 1000) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"epoch": "other"}, ErrorCode.BAD_POSITION),
        ({"epoch": "x" * 1000}, ErrorCode.BAD_POSITION),
        ({"limit": 0}, ErrorCode.BAD_REQUEST),
        ({"limit": -1}, ErrorCode.BAD_REQUEST),
        ({"limit": MAX_PAGE + 1}, ErrorCode.BAD_REQUEST),
    ],
    ids=lambda value: str(value)[:30],
)
def test_history_refuses(data: dict[str, Any], code: ErrorCode) -> None:
    """Another epoch is `bad_position`, a limit out of range `bad_request`."""
    log = _log()
    with pytest.raises(RequestError) as caught:
        _history(log, **data).bounds(log)
    assert caught.value.code == code
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("raw", [b"{}", b'{"exit_code":1,"reason":"x","own":[1]}', b""])
def test_end_takes_what_it_knows(raw: bytes) -> None:
    """Exit code and reason are optional, and members of the publisher's own are let be."""
    end = decode_data(Message("end", raw), END)
    assert (end.exit_code, end.reason) in ((None, None), (1, "x"))


@pytest.mark.parametrize(
    "raw", [b'{"exit_code":"1"}', b'{"exit_code":1.5}', b'{"reason":1}', b"[]"]
)
def test_end_refuses_wrong_types(raw: bytes) -> None:
    """An exit code is a whole number, a reason is text."""
    with pytest.raises(RequestError, match="`end`"):
        decode_data(Message("end", raw), END)


def test_auth_carries_a_token() -> None:
    """`auth` needs its one member."""
    assert decode_data(Message("auth", b'{"token":"t","more":1}'), AUTH).token == "t"
