"""The supervisor: opening, draining, aborting; and a crash that stays where it is."""

from __future__ import annotations

import json
import ssl
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

import triows
from tests.support import SECRET, TEXT, Peer, connect, memory_server, request_head, token
from triows import hub
from triows.session import Session

AUTH = triows.JWTAuth(SECRET)


async def dial_tcp(server: triows.Server) -> Peer:
    """Return a peer that is connected over a real socket, with its greeting read."""
    peer = Peer(await trio.open_tcp_stream("127.0.0.1", server.port))
    await peer.send(request_head(token()))
    status, _, body = await peer.response()
    assert status == 101, body
    assert (await peer.hear())["type"] == "auth"
    return peer


async def test_serve_is_ready_when_started(nursery: trio.Nursery) -> None:
    """`nursery.start(serve)` returns the server with its port open."""
    server = await nursery.start(partial(triows.serve, port=0, auth=AUTH))
    peer = await dial_tcp(server)
    ack = await peer.ask("log", id="1", channel="session:1", data="x")

    assert ack["data"]["offset"] == 1
    await peer.stream.aclose()


async def test_port_in_use_is_a_clear_error() -> None:
    """The error names address and port; nothing stays open."""
    async with triows.open_server(port=0, auth=AUTH) as server:
        with pytest.raises(triows.ConfigError, match=f"127.0.0.1 port {server.port}"):
            async with triows.open_server(port=server.port, auth=AUTH):
                pass


async def test_no_key_is_a_clear_error() -> None:
    """Without a key no server opens."""
    with pytest.raises(triows.ConfigError, match=r"auth\.secret_file"):
        async with triows.open_server(port=0):
            pass


async def test_exception_of_the_body_comes_out_as_it_is() -> None:
    """An application's own exception is not wrapped in a group, and the server is gone."""
    with pytest.raises(KeyError):
        async with triows.open_server(port=0, auth=AUTH) as server:
            peer = await dial_tcp(server)
            raise KeyError("mine")
    assert await peer.close_code() == triows.CloseCode.GOING_AWAY
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_cancelling_leaves_no_task_and_no_socket() -> None:
    """Cancelled, everything ends at once: peers hear 1001, the port is closed."""
    peers: list[Peer] = []
    with trio.CancelScope() as scope:
        async with triows.open_server(port=0, auth=AUTH) as server:
            peers = [await dial_tcp(server) for _ in range(3)]
            bare = await trio.open_tcp_stream("127.0.0.1", server.port)
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert [await peer.close_code() for peer in peers] == [1001] * 3
    assert await Peer(bare).close_code() == 1006
    assert server.statistics().connections == 0
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_leaving_drains(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A viewer gets all that was published, then when to come back, then 1012."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", id="1", channel="session:1")
        for number in range(2000):
            await server.publish("session:1", triows.log("x" * 100 + str(number)))

    messages: list[Any] = []
    while (received := await peer.receive())[0] == TEXT:
        messages.append(json.loads(received[1]))
    offsets = [m["offset"] for m in messages if m["type"] == "log"]
    told = [m["data"]["reason"] for m in messages if m["type"] == "reconnect"]
    assert (offsets, told) == (list(range(1, 2001)), ["restart"])
    assert int.from_bytes(received[1][:2], "big") == triows.CloseCode.RESTART


async def test_drain_has_a_deadline(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A viewer that reads nothing does not hold the server up."""
    limits = triows.Limits(drain_timeout=5, write_timeout=100)
    settings = triows.Settings(limits=limits)
    async with triows.open_server(settings=settings, auth=AUTH, listen=False) as server:
        peer = await connect(server, nursery, narrow=True)
        await peer.ask("subscribe", id="1", channel="session:1")
        await server.publish("session:1", triows.log("x" * 1_000_000))
        began = trio.current_time()
    assert trio.current_time() - began == 5
    assert server.connections() == []


async def test_streams_served_in_tasks_of_others_drain(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for them as well: all get what was published, however late their turn."""
    monkeypatch.setattr(hub, "_BUDGET", -1.0)  # others run between any two steps of the flusher
    async with memory_server() as server:
        peers = [await connect(server, nursery) for _ in range(100)]
        for peer in peers:
            await peer.ask("subscribe", id="1", channel="session:1")
        await server.publish("session:1", triows.log("x"))

    assert server.connections() == []
    for peer in peers:
        assert [(await peer.hear())["type"] for _ in range(2)] == ["reconnect", "log"]
        assert await peer.close_code() == triows.CloseCode.RESTART


async def test_streams_served_in_tasks_of_others_are_cut_off(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """When the application fails, the server ends at once, and they with it."""
    with pytest.raises(KeyError):
        async with memory_server() as server:
            peer = await connect(server, nursery)
            raise KeyError("mine")
    assert (server.connections(), trio.current_time()) == ([], 0)
    assert await peer.close_code() == 1006  # this kind of stream cannot take a goodbye at once


@pytest.mark.parametrize("fails", [True, False])
async def test_no_stream_begins_when_the_server_has_been_left(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, fails: bool
) -> None:
    """One task that serves streams in turn: the next, and any later one, is closed at once."""
    peers: list[Peer] = []

    async def serve_in_turn() -> None:
        for _ in range(3):
            ours, theirs = trio.testing.memory_stream_pair()
            peers.append(Peer(ours))
            await server.serve_stream(theirs)

    limits = triows.Limits(drain_timeout=1, handshake_timeout=100)
    with pytest.raises(KeyError) if fails else nullcontext():
        async with memory_server(limits=limits) as server:
            nursery.start_soon(serve_in_turn)
            await trio.testing.wait_all_tasks_blocked()
            if fails:
                raise KeyError("mine")
    await serve_in_turn()
    assert trio.current_time() == (0 if fails else 1)
    assert [await peer.close_code() for peer in peers] == [1006] * 6


async def test_stream_that_cannot_be_closed(nursery: trio.Nursery) -> None:
    """An error of a stream is no error of whoever had it served."""

    def fail() -> None:
        raise OSError("not now")

    async with memory_server() as server:
        ours, theirs = trio.testing.memory_stream_pair()
        theirs.receive_stream.close_hook = fail
        await ours.send_eof()
        await server.serve_stream(theirs)


async def test_crash_of_a_connection_is_its_own(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the server ends the connection that met it with 1011, is logged once with its
    id, and disturbs no other.
    """

    async def broken(self: Session, request: triows.Message) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with memory_server() as server:
        victim = await connect(server, nursery)
        witness = await connect(server, nursery)
        identity = server.connections()[0].id
        monkeypatch.setattr(Session, "_route", broken)
        await victim.say("presence", id="1", channel="session:1")
        assert await victim.close_code() == triows.CloseCode.INTERNAL_ERROR
        monkeypatch.undo()
        assert (await witness.ask("subscribe", id="1", channel="session:1"))["type"] == "ack"

    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        f"connection {identity} failed"
    ]


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the port speaks TLS, and the same protocol over it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    settings = triows.Settings(
        server=triows.ServerSettings(port=0, tls_cert=str(chain), tls_key=str(key))
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with triows.open_server(settings=settings, auth=AUTH) as server:
        assert server.url.startswith("wss://")
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=context, https_compatible=True
        )
        peer = Peer(stream)
        await peer.send(request_head(token()))
        assert (await peer.response())[0] == 101
        await peer.hear()
        await peer.ask("subscribe", id="1", channel="session:1")
        for _ in range(50):
            await server.publish("session:1", triows.log("x" * 10_000))
        assert [(await peer.hear())["offset"] for _ in range(50)] == list(range(1, 51))
        await peer.stream.aclose()


async def test_plain_bytes_on_a_tls_port_disturb_nobody(tmp_path: Path) -> None:
    """A peer that does not speak TLS is hung up on."""
    issued = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    settings = triows.Settings(
        server=triows.ServerSettings(port=0, tls_cert=str(chain), tls_key=str(key))
    )
    async with triows.open_server(settings=settings, auth=AUTH) as server:
        peer = Peer(await trio.open_tcp_stream("127.0.0.1", server.port))
        await peer.send(request_head(token()))
        assert await peer.close_code() == 1006


async def test_store_that_is_unknown_is_a_clear_error() -> None:
    """The error names the setting and what is known."""
    with pytest.raises(triows.ConfigError, match="memory://"):
        async with triows.open_server(settings=triows.Settings(store="nope://"), auth=AUTH):
            pass


async def test_end_of_the_application_is_checked() -> None:
    """An `end` that says nothing a viewer could read is refused, as a client's is."""
    async with memory_server() as server:
        with pytest.raises(triows.RequestError, match="`end`: bad `data`"):
            await server.publish("session:1", triows.message("end", 5))
        await server.publish("session:1", triows.end(exit_code=5))
