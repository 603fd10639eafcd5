"""Who speaks, when somebody stands in between: only proxies we trust are believed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import triows
from tests.support import dial, memory_server, request_head, token
from tests.support_http import head_of
from triows.http.head import Head
from triows.http.proxies import Proxies
from triows.transport import Transport

TRUSTED = ("10.0.0.0/8", "192.168.1.1", "fd00::/8")


@pytest.mark.parametrize(
    ("address", "forwarded", "peer"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "203.0.113.7, 192.168.1.1", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "somebody", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, somebody, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.7:4711", "10.0.0.1"),
        ("192.168.1.2", "203.0.113.7", "192.168.1.2"),
        ("203.0.113.9", "203.0.113.7", "203.0.113.9"),
        ("", "203.0.113.7", ""),
    ],
)
def test_last_address_that_no_trusted_proxy_has(address: str, forwarded: str, peer: str) -> None:
    """What a client writes into the header itself is not believed."""
    ours, _ = trio.testing.memory_stream_pair()
    transport = Transport(ours, address)
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    head = Head("GET", "1.1", "/ws", "", headers, b"")
    Proxies(TRUSTED).tell(transport, head)
    assert (transport.peer, transport.address) == (peer, address)
    Proxies(()).tell(transport, head)
    assert transport.peer == address


@pytest.mark.parametrize("network", ["", "somewhere", "10.0.0.1/8", "10.0.0.0/33"])
def test_network_that_is_none_is_refused(network: str) -> None:
    """At the start, with the name of the setting."""
    with pytest.raises(triows.ConfigError, match=r"server\.trusted_proxies: "):
        triows.ServerSettings(trusted_proxies=(network,))


async def test_clients_behind_a_proxy_have_rates_of_their_own(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """One that opens too often is refused; its neighbours are not, and each has its address."""
    behind = triows.ServerSettings(trusted_proxies=TRUSTED)
    limits = triows.Limits(handshakes_per_second_per_address=0.1)  # and one at once

    async def opened(server: triows.Server, client: str) -> int:
        peer = dial(server, nursery, "10.0.0.1")
        await peer.send(request_head(token(), headers={"X-Forwarded-For": client}))
        status: int = (await peer.response())[0]
        return status

    async with memory_server(server=behind, limits=limits) as server:
        assert [await opened(server, "203.0.113.7") for _ in range(2)] == [101, 429]
        assert await opened(server, "203.0.113.8") == 101
        assert [c.peer for c in server.connections()] == ["203.0.113.7", "203.0.113.8"]


async def test_clients_behind_a_proxy_are_not_taken_for_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who guesses tokens over HTTP is slowed down; neighbours behind the proxy are not."""
    behind = triows.ServerSettings(trusted_proxies=TRUSTED)
    limits = triows.Limits(handshakes_per_second_per_address=0.1)  # and one at once

    async def asked(server: triows.Server, client: str) -> int:
        peer = dial(server, nursery, "10.0.0.1")
        await peer.send(head_of("GET", "/api/channels", bearer="x", X_Forwarded_For=client))
        status: int = (await peer.response())[0]
        return status

    async with memory_server(server=behind, limits=limits) as server:
        assert [await asked(server, "203.0.113.7") for _ in range(2)] == [401, 429]
        assert await asked(server, "203.0.113.8") == 401
