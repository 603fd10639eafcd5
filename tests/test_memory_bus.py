"""The engine in memory: what gives way when memory runs out, and what is told to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from triows.bus.memory import SWEEP_INTERVAL, MemoryBus
from triows.config import LogLimits
from triows.errors import ErrorCode, RequestError
from triows.logs import OVERHEAD, Log
from triows.messages import Message, Receipt

LINE = 1000  # bytes of the data of one message


class _Bench:
    """A bus, and what it told."""

    def __init__(self, **limits: Any) -> None:
        self.told: list[tuple[str, int]] = []
        self.bus = MemoryBus(LogLimits(**limits), self._tell)

    def _tell(self, log: Log, grown: int) -> None:
        self.told.append((log.channel, log.head))

    async def publish(
        self, channel: str, size: int = LINE, *, id: str | None = None, type: str = "log"
    ) -> Receipt | RequestError:
        await trio.lowlevel.checkpoint()
        outcome: list[Receipt | RequestError] = []
        message = Message(type, b'"%b"' % (b"x" * (size - 2)), id=id)
        self.bus.submit(
            channel, message, "ann", trio.current_time(), lambda _, result: outcome.append(result)
        )
        assert len(outcome) == 1
        return outcome[0]

    def kept(self) -> dict[str, list[int]]:
        """Offsets that are kept of each channel, quiet for longest first."""
        return {log.channel: list(range(log.earliest, log.head + 1)) for log in self.bus.logs()}

    def check(self) -> None:
        """The bus counts what its logs hold."""
        assert self.bus.size == sum(log.size for log in self.bus.logs())


async def test_publish_keeps_counts_and_tells() -> None:
    """A message is kept at the next offset, counted, and told to the listener once."""
    bench = _Bench()
    position = await bench.bus.publish("a:1", Message("log", b"1"), "ann")
    assert position.offset == 1
    assert (await bench.bus.publish("a:1", Message("log", b"2"), "ann")).offset == 2
    assert (bench.told, bench.bus.published) == ([("a:1", 1), ("a:1", 2)], 2)
    log = await bench.bus.open("a:1")
    texts = await bench.bus.history(log, 1, 2, 1 << 20)
    assert [json.loads(text)["data"] for text in texts] == [1, 2]
    bench.check()


async def test_publish_of_a_duplicate_is_told_as_such() -> None:
    """The same id gets its first position again; nothing is kept, counted or told twice."""
    bench = _Bench()
    first = await bench.publish("a:1", id="i")
    other = await bench.publish("a:1", id="j")
    again = await bench.publish("a:1", id="i")
    assert isinstance(first, Receipt)
    assert again == Receipt(first.epoch, first.offset, duplicate=True)
    assert isinstance(other, Receipt)
    assert not other.duplicate
    assert (bench.bus.published, len(bench.told), bench.kept()) == (2, 2, {"a:1": [1, 2]})
    bench.check()


async def test_publish_after_the_end_is_refused() -> None:
    """What comes after `end` is refused: told to its publisher, kept and told to nobody else."""
    bench = _Bench()
    await bench.publish("a:1", type="end")
    refused = await bench.publish("a:1")
    assert isinstance(refused, RequestError)
    assert refused.code == ErrorCode.ENDED
    with pytest.raises(RequestError, match="has ended"):
        await bench.bus.publish("a:1", Message("log", b"1"), "ann")
    assert (bench.bus.published, bench.told, bench.kept()) == (1, [("a:1", 1)], {"a:1": [1]})
    bench.check()


async def test_publish_cancelled_before_does_nothing() -> None:
    """A publisher that is cancelled already has not published."""
    bench = _Bench()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.bus.publish("a:1", Message("log", b"1"), "ann")
    assert scope.cancelled_caught
    assert bench.bus.published == 0


async def test_open_makes_a_channel_once() -> None:
    """The same name is the same log, new or published to before."""
    bench = _Bench()
    log = await bench.bus.open("a:1")
    await bench.publish("a:1")
    assert await bench.bus.open("a:1") is log
    assert list(bench.bus.logs()) == [log]
    bench.check()


async def test_total_sheds_the_quietest_channel_first() -> None:
    """Old messages of the channel quiet for longest go, and its newest one stays."""
    bench = _Bench(total_bytes=13_000)
    for channel in ("a:old", "a:mid", "a:new"):
        for _ in range(3):
            await bench.publish(channel)
    assert bench.kept() == {"a:old": [2, 3], "a:mid": [1, 2, 3], "a:new": [1, 2, 3]}
    await bench.publish("a:new")
    await bench.publish("a:new")
    assert bench.kept() == {"a:old": [3], "a:mid": [2, 3], "a:new": [1, 2, 3, 4, 5]}
    await bench.publish("a:new")
    assert bench.kept() == {"a:old": [3], "a:mid": [3], "a:new": [1, 2, 3, 4, 5, 6]}
    await bench.publish("a:new")
    assert bench.kept() == {"a:old": [3], "a:mid": [3], "a:new": [2, 3, 4, 5, 6, 7]}
    bench.check()


async def test_total_counts_a_channel_as_quiet_since_its_newest_message() -> None:
    """Publishing again makes a channel the last to give way."""
    bench = _Bench(total_bytes=14_000)
    for channel in ("a:1", "a:2", "a:1", "a:2", "a:1"):
        await bench.publish(channel)
    assert list(bench.kept()) == ["a:2", "a:1"]


async def test_total_gives_up_whole_channels_last() -> None:
    """When every channel is down to its newest message, the quietest goes altogether."""
    bench = _Bench(total_bytes=10_000)
    for number in range(5):
        await bench.publish(f"a:{number}")
    assert bench.kept() == {f"a:{number}": [1] for number in range(1, 5)}
    bench.check()


async def test_total_never_discards_what_is_watched() -> None:
    """A log with a cursor in it stays, be the memory of others short."""
    bench = _Bench(total_bytes=10_000)
    watched = await bench.bus.open("a:watched")
    watched.watchers = 1
    for number in range(50):
        await bench.publish(f"a:{number}")
    assert sorted(bench.kept()) == ["a:46", "a:47", "a:48", "a:49", "a:watched"]
    watched.watchers = 0
    for number in range(50, 55):
        await bench.publish(f"a:{number}")
    assert "a:watched" not in bench.kept()
    bench.check()


async def test_total_bounds_endless_channel_names() -> None:
    """Names without messages are counted too: they cannot fill the memory."""
    bench = _Bench(total_bytes=20 * OVERHEAD)
    for number in range(500):
        await bench.bus.open(f"a:{number}")
        assert bench.bus.size <= 20 * OVERHEAD
    assert list(bench.kept()) == [f"a:{number}" for number in range(480, 500)]
    bench.check()


async def test_total_spares_the_newest_message_of_all() -> None:
    """A message larger than all memory is kept until the next one comes."""
    bench = _Bench(total_bytes=2 * OVERHEAD)
    await bench.publish("a:1", 10_000)
    assert bench.kept() == {"a:1": [1]}
    await bench.bus.open("a:2")
    assert bench.kept() == {"a:2": []}
    bench.check()


async def test_total_of_zero_is_unlimited() -> None:
    """0 means that only the limits of each channel count."""
    bench = _Bench(total_bytes=0)
    for number in range(100):
        await bench.publish(f"a:{number}")
    assert len(bench.kept()) == 100
    bench.check()


_publishes = st.lists(st.tuples(st.integers(0, 5), st.integers(2, 3000)), max_size=40)


@given(_publishes, st.integers(10_000, 60_000))
async def test_total_is_kept_whatever_is_published(
    publishes: list[tuple[int, int]], total: int
) -> None:
    """After each publish the bus is within its limit, and what was just published is kept."""
    bench = _Bench(total_bytes=total)
    for channel, size in publishes:
        receipt = await bench.publish(f"a:{channel}", size)
        assert isinstance(receipt, Receipt)
        assert receipt.position.offset in bench.kept()[f"a:{channel}"]
        assert bench.bus.size <= total
        bench.check()


async def test_sweep_gives_up_what_is_too_old(mock_clock: trio.testing.MockClock) -> None:
    """Messages go by age, and a silent channel nobody watches goes with them."""
    bench = _Bench(max_age=60)
    await bench.publish("a:1")
    await bench.publish("a:2")
    watched = await bench.bus.open("a:2")
    watched.watchers = 1
    mock_clock.jump(40)
    await bench.publish("a:3")
    bench.bus.sweep(trio.current_time())
    assert bench.kept() == {"a:1": [1], "a:2": [1], "a:3": [1]}
    mock_clock.jump(21)
    bench.bus.sweep(trio.current_time())
    assert bench.kept() == {"a:2": [], "a:3": [1]}
    assert (watched.head, watched.earliest) == (1, 2)
    bench.check()


async def test_sweep_without_an_age_keeps_everything(mock_clock: trio.testing.MockClock) -> None:
    """With `max_age` 0 time takes nothing away."""
    bench = _Bench(max_age=0)
    await bench.publish("a:1")
    mock_clock.jump(1e9)
    bench.bus.sweep(trio.current_time())
    assert bench.kept() == {"a:1": [1]}


async def test_run_sweeps(nursery: trio.Nursery, mock_clock: trio.testing.MockClock) -> None:
    """The engine's background work finds old messages by itself."""
    bench = _Bench(max_age=60)
    await bench.publish("a:1")
    nursery.start_soon(bench.bus.run)
    for seconds in (SWEEP_INTERVAL, 60):
        await trio.testing.wait_all_tasks_blocked()
        assert bench.kept() == {"a:1": [1]}
        mock_clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.kept() == {}


async def test_log_written_to_is_not_the_one_to_give_way() -> None:
    """Memory short, a message is kept although its channel was the quietest before."""
    bench = _Bench(total_bytes=3_000)
    for channel, size in (("a:1", 300), ("a:2", 300)):
        await bench.publish(channel, size)
    receipt = await bench.publish("a:1", 1500)
    assert isinstance(receipt, Receipt)
    assert bench.kept()["a:1"] == [2]
    bench.check()


async def test_refused_message_is_booked_too(mock_clock: trio.testing.MockClock) -> None:
    """Ids that are forgotten while a message is refused are no longer counted."""
    bench = _Bench(idempotency_window=1)
    await bench.publish("a:1", id="1")
    await bench.publish("a:1", type="end")
    mock_clock.jump(2)
    assert isinstance(await bench.publish("a:1", id="2"), RequestError)
    bench.check()


async def test_logs_only_asked_for_give_way_first() -> None:
    """Naming endless channels costs nobody a message."""
    bench = _Bench(total_bytes=20_000)
    for _ in range(5):
        await bench.publish("a:real", 1000)
    for number in range(100):
        await bench.bus.open(f"a:junk{number}")
    assert bench.kept()["a:real"] == [1, 2, 3, 4, 5]
    assert bench.bus.size <= 20_000
    bench.check()
