"""A client with several addresses: it goes to the next one when its server is gone."""

from __future__ import annotations

import re

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import SECRET, memory_server, token
from tests.support_client import CHANNEL, Network, cli, offsets, read
from triows.dial import Address

ONE, TWO = "ws://one.test/ws", "ws://two.test/ws"


class Hosts:
    """Servers by name.

    Attributes:
        asked: the hosts that were dialed, in order.
        at: when each was.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **hosts: Network) -> None:
        self.asked: list[str] = []
        self.at: list[float] = []
        self._hosts = hosts

        async def open_(address: Address) -> trio.abc.Stream:
            name = address.host.removesuffix(".test")
            self.asked.append(name)
            self.at.append(trio.current_time())
            return await self._hosts[name].open()

        monkeypatch.setattr(Address, "open", open_)


async def test_next_address_when_a_server_is_gone(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers over one store, gone in turn: one subscription, each message once, in order."""
    async with memory_server() as shared:
        one, two = Network(nursery, shared), Network(nursery, shared)
        hosts = Hosts(monkeypatch, one=one, two=two)
        async with (
            triows.open_client([ONE, TWO], token=token()) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            for gone, back in [(one, two), (two, one), (one, two)]:
                await client.publish(CHANNEL, triows.log("before"))
                assert len(await read(messages, 1)) == 1
                gone.server, back.server = None, shared
                gone.cut()
                await shared.publish(CHANNEL, triows.log("meanwhile"))
                assert len(await read(messages, 1)) == 1
            assert messages.position is not None
            assert messages.position.offset == 6
    assert hosts.asked == ["one", "two", "one", "two"]


async def test_pauses_grow_by_round(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While all are gone each is tried in turn; the pauses grow when all have been tried."""
    monkeypatch.setattr("triows.outbox.random.uniform", lambda low, high: high)
    down = Network(nursery, None)
    hosts = Hosts(monkeypatch, one=down, two=down)
    async with triows.open_client((ONE, TWO), token=token()):
        await trio.sleep(8)
    assert hosts.asked[:6] == ["one", "two"] * 3
    pauses = [round(b - a, 3) for a, b in zip(hosts.at, hosts.at[1:], strict=False)]
    assert pauses[:4] == [1.0, 1.0, 1.5, 1.5]


async def test_bad_addresses() -> None:
    """No address, or a wrong one among good ones, is told before anything is dialed."""
    for urls, reason in [([], "no address"), ([ONE, "http://two"], "'http'")]:
        with pytest.raises(triows.ConfigError, match=re.escape(reason)):
            async with triows.open_client(urls, token="t"):
                pass


async def test_commands_take_several_addresses() -> None:
    """`--url` can be repeated, and TRIOWS_URL holds several; the first is dead here."""
    dead = "ws://127.0.0.1:1/ws"
    async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
        flags = ("--url", dead, "--url", server.url)
        async with cli("publish", CHANNEL, "a", *flags, TRIOWS_TOKEN=token()) as command:
            assert await command.ended() == 0, command.err
        access = {"TRIOWS_URL": f"{dead} {server.url}", "TRIOWS_TOKEN": token()}
        async with cli("run", "--id", "42", "--", "echo", "b", **access) as command:
            assert await command.ended() == 0, command.err
        async with (
            triows.open_client(server.url, token=token()) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            assert offsets(await read(messages, 4)) == [1, 2, 3, 4]


async def test_administrator_asks_one_server() -> None:
    """What asks one server's API wants one address, and says so."""
    async with cli("top", TRIOWS_URL=f"{ONE} {TWO}", TRIOWS_TOKEN="t") as command:
        assert await command.ended() == 2
    assert "one server" in command.err
