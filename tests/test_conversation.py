"""What is said over a connection: first, again, at its end, and what a server may not say."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import triows
from tests.support import memory_server
from tests.support_client import (
    CHANNEL,
    Network,
    Script,
    Stage,
    connected,
    offsets,
    play,
    read,
    read_all,
    refuse,
    welcome,
)


async def test_answered_is_not_sent_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Of several requests, a new connection hears those that had no answer yet."""
    second: list[Any] = []

    async def half(script: Script) -> None:
        await script.greet()
        first = await script.hear()
        await script.hear()
        await script.ack(first, epoch="e", offset=1)

    async def other(script: Script) -> None:
        await script.greet()
        while True:
            request = await script.hear()
            second.append(request["data"])
            await script.ack(request, epoch="f", offset=len(second))

    async with Stage(nursery, play(half), play(other)).client() as client:
        positions = await client.publish_many(CHANNEL, [triows.log(1), triows.log(2)])
    assert second == [2]
    assert positions == [triows.Position("e", 1), triows.Position("f", 1)]


async def test_left_and_entered_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A channel that was left can be watched again at once, any number of times."""
    async with memory_server() as server, connected(nursery, server) as client:
        await client.publish(CHANNEL, triows.log(0))
        for _ in range(3):
            async with client.subscribe(CHANNEL):
                pass
            async with client.subscribe(CHANNEL, from_start=True) as messages:
                assert offsets(await read(messages, 1)) == [1]
        assert server.statistics().opened == 1


async def test_unsubscribe_refused_is_not_the_next_ones_error(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """An error in answer to the end of a subscription does not end the one after it."""

    async def confused(script: Script) -> None:
        await script.greet()
        await script.ack_subscribe(await script.hear(), 0)
        left = await script.hear()
        assert left["type"] == "unsubscribe"
        request = await script.hear()
        data = {"code": "not_subscribed", "message": "no", "retry": False}
        await script.say("error", id=left["id"], channel=CHANNEL, data=data)
        await script.ack_subscribe(request, 0)
        await script.log(1)
        await trio.sleep_forever()

    async with Stage(nursery, play(confused)).client() as client:
        async with client.subscribe(CHANNEL):
            await trio.testing.wait_all_tasks_blocked()
        async with client.subscribe(CHANNEL) as messages:
            assert offsets(await read(messages, 1)) == [1]


async def test_ended_channel_that_has_aged_is_over_after_its_gap(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Its last messages are no longer kept, `end` among them: a gap, and that was all."""
    async with memory_server(log=triows.LogLimits(max_age=60)) as server:
        async with (
            connected(nursery, server) as other,
            other.subscribe(CHANNEL),  # so that the log stays
            connected(nursery, server) as client,
        ):
            first = await client.publish(CHANNEL, triows.log(0))
            await client.publish(CHANNEL, triows.log(1))
            await client.publish(CHANNEL, triows.end())
            await trio.sleep(100)
            async with client.subscribe(CHANNEL, since=first) as messages:
                assert [m.type for m in await read_all(messages)] == ["gap"]
                assert messages.is_over


async def test_leaving_says_goodbye(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Who leaves tells the server so, and does not wait for longer than its answer takes."""
    async with memory_server() as server:
        for _ in range(2):
            async with connected(nursery, server) as client, client.subscribe(CHANNEL):
                await client.publish(CHANNEL, triows.log(1))
                started = trio.current_time()
            assert trio.current_time() - started < 0.1
        await trio.testing.wait_all_tasks_blocked()
        assert [c.code for c in server.closed_connections()] == [1000, 1000]


async def test_leaving_a_deaf_server_takes_half_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A server that does not answer the goodbye is left all the same."""
    async with memory_server() as server:
        network = Network(nursery, server)
        async with network.client() as client:
            await client.publish(CHANNEL, triows.log(1))
            network.streams[-1].deaf = network.streams[-1].mute = True
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(0.5, abs=1e-3)


async def test_cancelled_does_not_wait_for_a_deaf_server(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Cancelled, nobody waits for a goodbye."""
    async with memory_server() as server:
        network = Network(nursery, server)
        with trio.CancelScope() as scope:
            async with network.client() as client:
                await client.publish(CHANNEL, triows.log(1))
                network.streams[-1].deaf = network.streams[-1].mute = True
                started = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert trio.current_time() == started


async def test_on_state_is_told_of_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """`failed`, and not `disconnected`, when the client will not try again."""
    told: list[tuple[str, str]] = []

    async def leave(script: Script) -> None:
        await script.greet()
        await script.close(4503)

    def tell(state: str, reason: triows.TriowsError | None) -> None:
        told.append((state, str(reason or "")))

    stage = Stage(nursery, refuse(503), play(leave))
    async with stage.client(on_state=tell):
        await trio.sleep(60)
    assert [state for state, _ in told] == [
        *("connecting", "disconnected"),
        *("connecting", "connected", "failed"),
    ]
    assert "503" in told[1][1]
    assert "4503" in told[-1][1]


def _longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda a, b: b)


async def test_backoff_grows_while_nothing_is_connected(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening that takes its 5 s and fails is no connection that was up for 5 s."""
    _longest(monkeypatch)

    async def say_nothing(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    stage = Stage(nursery, say_nothing)
    async with stage.client():
        await trio.sleep(100)
    assert stage.pauses[:6] == pytest.approx([6, 6.5, 7.5, 9.5, 13.5, 21.5])


async def test_backoff_counts_from_the_greeting(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time it takes to get a token is no time up."""
    _longest(monkeypatch)

    async def slow() -> str:
        await trio.sleep(3)
        return "t"

    async def fall(script: Script) -> None:
        await script.greet()
        await trio.sleep(2.5)

    stage = Stage(nursery, play(fall))
    async with stage.client(token=slow):
        await trio.sleep(40)
    assert stage.pauses[:3] == pytest.approx([6.5, 7, 8])


async def _all_fail(client: triows.Client) -> list[str]:
    """Return what those who wait are told."""
    told: list[str] = []

    async def publish() -> None:
        with pytest.raises(triows.ConnectionClosed) as caught:
            await client.publish(CHANNEL, triows.log(1))
        assert caught.value.code == 1002
        told.append(caught.value.reason)

    with trio.fail_after(60):
        async with client.subscribe(CHANNEL) as messages, trio.open_nursery() as work:
            work.start_soon(publish)
            with pytest.raises(triows.ConnectionClosed) as caught:
                await anext(messages)
            assert caught.value.code == 1002
    return told


@pytest.mark.parametrize(
    "junk",
    [
        "nonsense",
        "[]",
        "{}",
        b"\xff",
        '{"type": 5}',
        '{"type": "auth"}',
        '{"type": "auth", "data": {"expires_at": "soon", "limits": {}, "heartbeat": {}}}',
        '{"type": "error"}',
        '{"type": "error", "data": {"code": "of the future"}}',
        '{"type": "reconnect"}',
        '{"type": "reconnect", "data": {"after": "soon"}}',
        '{"type": "reconnect", "data": {"after": "nan"}}',
        f'{{"type": "reconnect", "data": {{"after": 1{"0" * 400}}}}}',
        '{"type": "log", "offset": "one"}',
    ],
)
async def test_server_that_breaks_the_protocol_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, junk: str | bytes
) -> None:
    """What no server of this protocol says ends the client with 1002, for all that wait."""

    async def babble(script: Script) -> None:
        await script.greet()
        await script.hear()
        await script.send(junk)
        await trio.sleep_forever()

    stage = Stage(nursery, play(babble), play(welcome))
    async with stage.client() as client:
        [told] = await _all_fail(client)
        await trio.sleep(60)
    assert "protocol" in told
    assert len(stage.opened) == 1


@pytest.mark.parametrize(
    "greeting",
    [
        "nonsense",
        '{"type": "auth"}',
        '{"type": "auth", "data": []}',
        '{"type": "auth", "data": {"expires_at": 4e9}}',
        '{"type": "auth", "data": {"expires_at": null, "limits": {}, "heartbeat": {}}}',
    ],
)
async def test_server_with_another_greeting_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, greeting: str
) -> None:
    """A server of something else ends the client with 1002, for all that wait."""

    async def babble(script: Script) -> None:
        await script.send(greeting)
        await trio.sleep_forever()

    stage = Stage(nursery, play(babble), play(welcome))
    async with stage.client() as client:
        [told] = await _all_fail(client)
    assert "triows.v1" in told
    assert len(stage.opened) == 1


@pytest.mark.parametrize(
    "session",
    [
        {"limits": {}},
        {"limits": None},
        {"limits": {"messages_per_second": "many"}},
        {"heartbeat": {}},
        {"heartbeat": []},
        {"heartbeat": {"ping_interval": "x", "pong_timeout": 1, "idle_timeout": 2}},
        {"heartbeat": {"ping_interval": 1, "pong_timeout": -1, "idle_timeout": 2}},
        {"expires_at": 10**400},
    ],
)
async def test_server_with_an_odd_greeting_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, session: dict[str, Any]
) -> None:
    """What the greeting promises but does not hold ends the client with 1002 as well."""

    async def babble(script: Script) -> None:
        await script.greet(**session)
        await trio.sleep_forever()

    async with Stage(nursery, play(babble)).client() as client:
        await _all_fail(client)


@pytest.mark.parametrize("odd", ["", "a b", "a\n", "tokén", "a\x00", "\udcff"])
async def test_static_token_that_can_be_none_is_told(odd: str) -> None:
    """A token that fits no header is told where the client is opened, and not repeated."""
    with pytest.raises(triows.ConfigError, match="token") as caught:
        async with triows.open_client("ws://a/ws", token=odd):
            pass
    assert not odd or odd not in str(caught.value)


@pytest.mark.parametrize("odd", ["", "a b", "a\n", "tokén"])
async def test_token_function_with_odd_tokens_gives_up(
    nursery: trio.Nursery, autojump_clock: MockClock, odd: str
) -> None:
    """What cannot be sent counts as refused: after three the reason is told."""

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        return odd

    stage = Stage(nursery, play(welcome))
    async with stage.client(token=fresh) as client:
        with pytest.raises(triows.HandshakeRefused, match="token") as caught, trio.fail_after(60):
            await client.publish(CHANNEL, triows.log(1))
    assert caught.value.status == 401
    assert stage.opened == []
