"""Requests that wait: their order and pace, their answers, and when they are sent again."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import memory_server
from tests.support_client import CHANNEL, Script, Stage, connected, play
from triows.codec import decode
from triows.messages import Message
from triows.outbox import Outbox, as_error, backoff


def _log(data: object, id: str | None = None) -> Message:
    return Message("log", json.dumps(data).encode(), "session:42", id)


def _answer(id: str, data: Any, type: str = "ack") -> Message:
    return Message(type, json.dumps(data).encode(), "session:42", id)


def _error(id: str | None, code: str, **more: Any) -> Message:
    data = {"code": code, "message": "no", "retry": "retry_after" in more, **more}
    return Message("error", json.dumps(data).encode(), id=id)


def _sent(outbox: Outbox) -> list[Any]:
    texts: list[Any] = []
    while outbox:
        texts.append(decode(outbox.pop()).data)
    return texts


@given(st.integers(0, 10_000))
def test_backoff_stays_in_its_bounds(attempt: int) -> None:
    """From half a second to 0.5 + 0.5 * 2^n, and 20 s at most, however many have failed."""
    ceiling = min(20, 0.5 + 0.5 * 2 ** min(attempt, 100))
    assert all(0.5 <= backoff(attempt) <= ceiling for _ in range(20))


@pytest.mark.parametrize("attempt", [0, 1, 3, 5])
def test_backoff_is_full_jitter(attempt: int) -> None:
    """The whole range is used, evenly: clients that were cut together do not come together."""
    width = 0.5 * 2**attempt
    draws = [(min(backoff(attempt), 20) - 0.5) / width for _ in range(4000)]
    quarters = [sum(1 for d in draws if i / 4 <= d < (i + 1) / 4) for i in range(4)]
    assert all(800 < quarter < 1200 for quarter in quarters), quarters


def test_backoff_is_as_long_as_the_server_asks() -> None:
    """What the server asked for is the least, also beyond our own limit."""
    assert backoff(0, 100) == 100
    assert all(7 <= backoff(10, 7) <= 20 for _ in range(50))


@pytest.mark.parametrize("high", [False, True])
def test_backoff_at_its_ends(monkeypatch: pytest.MonkeyPatch, *, high: bool) -> None:
    """The bounds themselves: 0.5 s always, and doubling until 20 s."""
    monkeypatch.setattr(random, "uniform", lambda a, b: b if high else a)
    expected = [1, 1.5, 2.5, 4.5, 8.5, 16.5, 20, 20] if high else [0.5] * 8
    assert [backoff(attempt) for attempt in range(8)] == expected


def test_put_sends_in_order() -> None:
    """First asked, first sent; each has an id of its own unless it brought one."""
    outbox = Outbox()
    first, second = outbox.put(_log(1)), outbox.put(_log(2, "mine"))
    assert first.id not in ("", "mine")
    assert second.id == "mine"
    texts = [decode(outbox.pop()), decode(outbox.pop())]
    assert [(t.id, t.data) for t in texts] == [(first.id, 1), ("mine", 2)]
    assert not outbox


async def test_wait_returns_the_answer() -> None:
    """An answer goes to the request with its id; one that nobody waits for is nothing."""
    outbox = Outbox()
    first, second = outbox.put(_log(1, "a")), outbox.put(_log(2, "b"))
    outbox.settle(_answer("z", "nobody's"))
    outbox.settle(_answer("b", "second"))
    outbox.settle(_answer("a", "first"))
    assert await outbox.wait(first) == "first"
    assert await outbox.wait(second) == "second"


def test_put_refuses_an_id_that_waits() -> None:
    """Two requests with one id cannot be told apart; when it is answered, the id is free."""
    outbox = Outbox()
    first = outbox.put(_log(1, "a"))
    with pytest.raises(triows.RequestError) as caught:
        outbox.put(_log(2, "a"))
    assert caught.value.code == "bad_request"
    assert _sent(outbox) == [1]
    outbox.forget(first)
    assert outbox.put(_log(3, "a")).id == "a"


def test_restart_leaves_out_what_was_answered() -> None:
    """An answer that nobody has fetched yet is an answer: that request is not sent again."""
    outbox = Outbox()
    outbox.put(_log(1, "a"))
    outbox.put(_log(2, "b"))
    assert _sent(outbox) == [1, 2]
    outbox.settle(_answer("a", None))
    outbox.restart()
    assert _sent(outbox) == [2]


async def test_wait_raises_a_refusal() -> None:
    """An `error` raises RequestError with its code and words."""
    outbox = Outbox()
    pending = outbox.put(_log(1, "a"))
    outbox.settle(_error("a", "forbidden"))
    with pytest.raises(triows.RequestError, match=r"^no$") as caught:
        await outbox.wait(pending)
    assert (caught.value.code, caught.value.retry) == ("forbidden", False)


async def test_settle_later_sends_again_in_place(autojump_clock: MockClock) -> None:
    """A request put off goes back before those that were asked after it, and holds them all."""
    outbox = Outbox()
    pending = [outbox.put(_log(n, str(n))) for n in range(4)]
    assert [decode(outbox.pop()).data for _ in range(2)] == [0, 1]
    outbox.settle(_error("1", "rate_limited", retry_after=2.5))
    outbox.settle(_error("0", "rate_limited", retry_after=1))
    assert outbox.held == 2.5
    assert not any(p.answered.is_set() for p in pending)
    await trio.sleep(2.5)
    assert outbox.held == 0
    assert _sent(outbox) == [0, 1, 2, 3]


def test_restart_sends_again_what_waits() -> None:
    """On a new connection all that waits is sent again, in the order of asking, as it was."""
    outbox = Outbox()
    first, _, third = (outbox.put(_log(n)) for n in range(3))
    before = [outbox.pop(), outbox.pop()]
    outbox.forget(third)
    outbox.put(_log(3))
    outbox.restart()
    again = [outbox.pop(), outbox.pop()]
    assert again == before
    assert decode(again[0]).id == first.id
    assert _sent(outbox) == [3]


def test_forget_sends_no_more() -> None:
    """What nobody waits for is taken out, also when it was sent already."""
    outbox = Outbox()
    first, second = outbox.put(_log(1)), outbox.put(_log(2))
    outbox.pop()
    outbox.forget(first)
    outbox.forget(second)
    outbox.forget(second)
    assert not outbox
    outbox.restart()
    assert not outbox


async def test_fail_tells_everybody() -> None:
    """A final failure reaches who waits, who was about to wait, and who comes later."""
    outbox = Outbox()
    pending = outbox.put(_log(1))
    failure = triows.ConnectionClosed(4503, "gone")
    async with trio.open_nursery() as nursery:

        async def waits() -> None:
            with pytest.raises(triows.ConnectionClosed) as caught:
                await outbox.wait(pending)
            assert caught.value is failure

        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        outbox.fail(failure)
    with pytest.raises(triows.ConnectionClosed):
        await outbox.wait(pending)
    with pytest.raises(triows.ConnectionClosed):
        outbox.put(_log(2))


async def test_hold_keeps_the_longest(autojump_clock: MockClock) -> None:
    """A shorter pause does not shorten a longer one."""
    outbox = Outbox()
    outbox.hold(10)
    outbox.hold(1)
    assert outbox.held == 10
    await trio.sleep(4)
    assert outbox.held == 6


async def test_changed_waits_for_something_new(autojump_clock: MockClock) -> None:
    """It returns at once for what came before, and then only for what comes."""
    outbox = Outbox()
    outbox.put(_log(1))
    with trio.fail_after(1):
        await outbox.changed()
    with trio.move_on_after(1) as scope:
        await outbox.changed()
    assert scope.cancelled_caught
    outbox.wake()
    with trio.fail_after(1):
        await outbox.changed()


@pytest.mark.parametrize(
    ("data", "code", "retry_after"),
    [
        ({"code": "ended", "retry": False}, "ended", None),
        ({"code": "rate_limited", "retry": True, "retry_after": 0.5}, "rate_limited", 0.5),
        ({"code": "of the future", "retry": True}, "unavailable", None),
        ({"code": "of the future", "retry": False}, "bad_request", None),
    ],
)
def test_as_error_reads_codes_also_of_a_newer_server(
    data: dict[str, Any], code: str, retry_after: float | None
) -> None:
    """A code we do not know is retried, or not, as the server says."""
    error = as_error(_answer("a", {"message": "no", **data}, "error"))
    assert (error.code, error.retry_after, error.message) == (code, retry_after, "no")
    assert error.retry is data["retry"]


class _Steps(trio.abc.Instrument):
    """Stops a scope after too many steps of tasks: virtual time alone does not pass in a spin."""

    def __init__(self, most: int, scope: trio.CancelScope) -> None:
        self._left = most
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one step."""
        self._left -= 1
        if self._left < 0:
            self._scope.cancel()


@pytest.mark.parametrize("limits", [{"bytes_per_second": 1000}, {"messages_burst": 5}])
async def test_rate_limit_does_not_change_the_order(
    nursery: trio.Nursery, autojump_clock: MockClock, limits: dict[str, float]
) -> None:
    """Faster than the server takes them, messages are published all the same, in order."""
    async with memory_server(limits=triows.Limits(**limits)) as server:  # type: ignore[arg-type]
        async with connected(nursery, server) as client:
            texts = ["x" * (2000 - number * 100) for number in range(10)]
            with trio.fail_after(100):
                positions = await client.publish_many(CHANNEL, map(triows.log, texts))
            page = await client.history(CHANNEL)
    assert [p.offset for p in positions] == list(range(1, 11))
    assert [m["data"] for m in page["messages"]] == texts


async def test_rate_limited_is_sent_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """`rate_limited` with the request's id has the same request sent after `retry_after`."""
    heard: list[tuple[float, dict[str, Any]]] = []

    async def strict(script: Script) -> None:
        await script.greet()
        for _ in range(2):
            heard.append((trio.current_time(), await script.hear()))
            data = {"code": "rate_limited", "message": "no", "retry": True, "retry_after": 3}
            await script.say("error", id=heard[-1][1]["id"], data=data)
        heard.append((trio.current_time(), await script.hear()))
        await script.ack(heard[-1][1], epoch="e", offset=1)
        await trio.sleep_forever()

    async with Stage(nursery, play(strict)).client() as client:
        with trio.fail_after(60):
            assert (await client.publish(CHANNEL, triows.log(1))).offset == 1
            assert trio.current_time() == pytest.approx(heard[0][0] + 6, abs=1e-2)
    assert heard[0][1] == heard[1][1] == heard[2][1]


async def _arrivals(nursery: trio.Nursery, texts: list[str], **limits: float) -> list[float]:
    arrived: list[float] = []

    async def take(script: Script) -> None:
        await script.greet(limits=limits)
        started = trio.current_time()
        while True:
            request = await script.hear()
            arrived.append(trio.current_time() - started)
            await script.ack(request, epoch="e", offset=len(arrived))

    async with Stage(nursery, play(take)).client() as client:
        await client.publish_many(CHANNEL, map(triows.log, texts))
    return arrived


async def test_messages_are_paced(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """At most 90 % of what the greeting allows a second is sent, and so much at once."""
    limits = {"messages_per_second": 10, "messages_burst": 20, "bytes_per_second": 0}
    arrived = await _arrivals(nursery, ["x"] * 99, **limits)
    assert len([a for a in arrived if a < 0.05]) == 9
    for at in arrived:
        assert len([a for a in arrived if at <= a < at + 1]) <= 20
    assert arrived[-1] == pytest.approx(90 / 9, abs=0.2)


async def test_bytes_are_paced(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Of few large messages the bytes are what counts."""
    limits = {"messages_per_second": 100, "messages_burst": 200, "bytes_per_second": 10_000}
    arrived = await _arrivals(nursery, ["x" * 900] * 50, **limits)
    assert 50 * 900 / 9000 - 1 < arrived[-1] < 50 * 1100 / 9000


async def test_unlimited_is_not_paced(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A rate of 0 is no limit."""
    arrived = await _arrivals(nursery, ["x"] * 500, messages_per_second=0, bytes_per_second=0)
    assert arrived[-1] < 0.05


async def test_waiting_for_the_rate_does_not_spin(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """However small the wait that is left, it is slept through."""
    with trio.CancelScope() as scope:
        steps = _Steps(100_000, scope)
        trio.lowlevel.add_instrument(steps)
        async with memory_server() as server, connected(nursery, server) as client:
            positions = await client.publish_many(CHANNEL, map(triows.log, range(1000)))
        trio.lowlevel.remove_instrument(steps)
    assert not scope.cancelled_caught
    assert [p.offset for p in positions] == list(range(1, 1001))


async def test_same_id_twice_is_refused_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Two messages with one id cannot both be answered; the second is an error, not a wait."""
    async with memory_server() as server, connected(nursery, server) as client:
        twins = [triows.log(1, id="a"), triows.log(2, id="a")]
        with pytest.raises(triows.RequestError) as caught, trio.fail_after(1):
            await client.publish_many(CHANNEL, twins)
        assert caught.value.code == "bad_request"
        await client.publish(CHANNEL, triows.log(3))
