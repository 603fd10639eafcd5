"""Rates: what a token bucket lets through, what it makes wait, and for how long."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import ALL, Nursery, connect, frame, memory_server, token
from triows import limits
from triows.codec import error_data
from triows.errors import ErrorCode, RequestError
from triows.limits import AddressRates, TokenBucket, neighbourhood

_SLACK = 1e-6  # seconds: more than rounding ever costs


@pytest.mark.parametrize(("burst", "passes"), [(5, 5), (1, 1), (0, 1), (0.2, 1)])
def test_bucket_lets_a_burst_through(burst: float, passes: int) -> None:
    """`burst` units pass at once, one at the least; the next one waits."""
    bucket = TokenBucket(10, burst, 100.0)
    assert [bucket.take(1, 100.0) for _ in range(passes)] == [0] * passes
    assert bucket.take(1, 100.0) == pytest.approx(0.1)


def test_bucket_refills_at_its_rate() -> None:
    """After a second of silence exactly `rate` more pass."""
    bucket = TokenBucket(4, 8, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(8)] == [0] * 8
    assert [bucket.take(1, 1.0) for _ in range(4)] == [0] * 4
    assert bucket.take(1, 1.0) > 0


def test_bucket_never_holds_more_than_its_burst() -> None:
    """An hour of silence earns one burst, not an hour's worth."""
    bucket = TokenBucket(100, 3, 0.0)
    assert [bucket.take(1, 3600.0) for _ in range(3)] == [0] * 3
    assert bucket.take(1, 3600.0) > 0


def test_bucket_refused_takes_nothing() -> None:
    """Asking again and again while it is empty does not put the answer off."""
    bucket = TokenBucket(1, 1, 0.0)
    assert bucket.take(1, 0.0) == 0
    waits = [bucket.take(1, tenth / 10) for tenth in range(1, 10)]
    assert waits == pytest.approx([1 - tenth / 10 for tenth in range(1, 10)])
    assert bucket.take(1, 1.0 + _SLACK) == 0


def test_bucket_pays_a_large_amount_afterwards() -> None:
    """No amount is too large to pass, and its debt is paid before the next."""
    bucket = TokenBucket(10, 10, 0.0)
    assert bucket.take(110, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(10.1)
    assert bucket.take(1, 10.0) > 0
    assert bucket.take(1, 10.1 + _SLACK) == 0


@given(st.lists(st.floats(0, 1e9), max_size=20), st.floats(0, 1e6))
def test_bucket_without_a_rate_is_unlimited(amounts: list[float], burst: float) -> None:
    """A rate of 0 lets everything through."""
    bucket = TokenBucket(0, burst, 0.0)
    assert [bucket.take(amount, 0.0) for amount in amounts] == [0] * len(amounts)


_steps = st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 1e4)), max_size=30)


@given(st.floats(0.01, 1e6), st.floats(0, 1e4), _steps)
def test_bucket_tells_a_wait_that_suffices(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    """Whoever waits as told gets through, whatever was taken before."""
    now = 0.0
    bucket = TokenBucket(rate, burst, now)
    for pause, amount in steps:
        now += pause
        wait = bucket.take(amount, now)
        assert wait >= 0
        if wait:
            now += wait + _SLACK * (1 + wait)
            assert bucket.take(amount, now) == 0


@given(st.floats(0.01, 1e4), st.floats(0, 1e3), st.lists(st.floats(0, 2), max_size=60))
def test_bucket_keeps_the_rate_in_the_long_run(
    rate: float, burst: float, pauses: list[float]
) -> None:
    """Whatever the pattern, no more passes than one burst and `rate` times the time."""
    now, passed = 0.0, 0
    bucket = TokenBucket(rate, burst, now)
    for pause in pauses:
        now += pause
        passed += bucket.take(1, now) == 0
    assert passed <= max(burst, 1) + rate * now + 1e-6


def test_addresses_have_a_bucket_each() -> None:
    """One address that opens too often leaves another alone."""
    rates = AddressRates(0.1)
    assert rates.take("192.0.2.1", 0.0) == 0
    assert rates.take("192.0.2.1", 0.0) == pytest.approx(10)
    assert rates.take("192.0.2.2", 0.0) == 0


def test_addresses_may_open_ten_seconds_worth_at_once() -> None:
    """The burst of one address is ten seconds of its rate."""
    rates = AddressRates(3)
    assert [rates.take("a", 0.0) for _ in range(30)] == [0] * 30
    assert rates.take("a", 0.0) > 0


def test_addresses_without_a_rate_are_unlimited() -> None:
    """A rate of 0 counts nobody."""
    rates = AddressRates(0)
    assert {rates.take("a", 0.0) for _ in range(1000)} == {0}


def test_addresses_are_boundedly_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address unseen for longest is forgotten first; one that keeps coming never is."""
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 3)
    rates = AddressRates(0.1)
    for name in ("busy", "idle", "third"):
        assert rates.take(name, 0.0) == 0
    assert rates.take("busy", 0.0) > 0
    for number in range(100):
        assert rates.take(f"flood {number}", 0.0) == 0
        assert rates.take("busy", 0.0) > 0
    assert rates.take("idle", 0.0) == 0
    assert len(rates._buckets) == 3


async def test_rate_limit(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A message too many is refused, not done, and told when it may come again."""
    limits = triows.Limits(messages_per_second=2, messages_burst=3)
    async with memory_server(limits=limits) as server:
        peer = await connect(server, nursery)
        for i in range(5):
            await peer.say("log", id=str(i), channel="session:a")
        answers = await peer.hear_all()
        error = answers[3]["data"]
        assert [m["type"] for m in answers] == ["ack"] * 3 + ["error"] * 2
        assert (error["code"], error["retry"]) == ("rate_limited", True)
        assert [m["id"] for m in answers] == ["0", "1", "2", "3", "4"]
        assert answers[3]["channel"] == "session:a"
        assert 0 < error["retry_after"] <= 0.5
        await trio.sleep(error["retry_after"])  # exactly so long is enough
        assert (await peer.ask("log", id="3", channel="session:a"))["data"]["offset"] == 4


async def test_rate_of_bytes(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Bytes are limited, too: one large message passes, and delays the next."""
    async with memory_server(limits=triows.Limits(bytes_per_second=1000)) as server:
        peer = await connect(server, nursery)
        assert (await peer.ask("ping", data="x" * 5000))["type"] == "pong"
        error = (await peer.ask("ping"))["data"]
        assert error["code"] == "rate_limited"
        assert error["retry_after"] == pytest.approx(4, abs=0.1)
        await trio.sleep(error["retry_after"])
        assert (await peer.ask("ping"))["type"] == "pong"


async def test_persistent_flood(nursery: Nursery, autojump_clock: MockClock) -> None:
    """Who ignores the rate limit is closed with 4005, and others notice nothing."""
    limits = triows.Limits(messages_per_second=10, messages_burst=10)
    async with memory_server(limits=limits) as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        await peer.send(frame('{"type":"ping"}') * 200)
        assert (await other.ask("ping"))["type"] == "pong"
        assert await peer.close_code() == 4005


@pytest.mark.parametrize("rate", [0.7, 3, 7, 13, 99, 333])
async def test_waiting_as_told_suffices(
    nursery: Nursery, autojump_clock: MockClock, rate: float
) -> None:
    """Whatever the rate, who waits for exactly `retry_after` is not refused again."""
    settings = triows.Limits(messages_per_second=rate, messages_burst=1)
    async with memory_server(limits=settings) as server:
        peer = await connect(server, nursery)
        assert (await peer.ask("ping"))["type"] == "pong"
        for _ in range(20):
            error = await peer.ask("ping", id="x")
            assert (error["id"], error["data"]["code"]) == ("x", "rate_limited")
            await trio.sleep(error["data"]["retry_after"])
            assert (await peer.ask("ping"))["type"] == "pong"


async def test_rate_without_a_burst_is_unlimited_at_once(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """As everywhere, 0 means unlimited: of `messages_burst`, too."""
    settings = triows.Limits(messages_per_second=10, messages_burst=0)
    async with memory_server(limits=settings) as server:
        peer = await connect(server, nursery)
        await peer.send(frame('{"type":"ping"}') * 500)
        assert {m["type"] for m in await peer.hear_all()} == {"pong"}


@given(st.floats(0, 1e6))
def test_retry_after_is_rounded_up(seconds: float) -> None:
    """Who waits as long as it is told has waited long enough, and not a millisecond more."""
    error = RequestError(ErrorCode.RATE_LIMITED, "why", retry_after=seconds)
    told = error_data(error)["retry_after"]
    assert isinstance(told, float)
    assert seconds <= told + 1e-9
    assert told < seconds + 0.001 + 1e-9


async def test_connections_of_one_user_are_limited(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """The newest connections of a user stay, and the oldest have to go."""
    async with memory_server(limits=triows.Limits(max_connections_per_user=2)) as server:
        other = await connect(server, nursery, token("other", **ALL))
        mine = [await connect(server, nursery) for _ in range(4)]
        assert [await peer.close_code() for peer in mine[:2]] == [4504, 4504]
        for peer in (other, *mine[2:]):
            assert (await peer.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("address", "owned"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("some:where", "some:where"),
    ],
)
def test_neighbourhood(address: str, owned: str) -> None:
    """Whoever has many addresses of one IPv6 network is one; an odd name is itself."""
    assert neighbourhood(address) == owned


def test_addresses_of_one_network_share_a_rate() -> None:
    """Another address of the same household gives no second helping."""
    rates = AddressRates(0.1)
    assert rates.take("2001:db8::1", 0) == 0
    assert rates.take("2001:db8::2", 0) > 0
    assert rates.take("2001:db8:0:1::1", 0) == 0
