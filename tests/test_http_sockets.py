"""HTTP over real sockets: TLS, full buffers of the kernel, and the end of the server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

import triows
from tests.support import ALL, SECRET, token
from tests.support_http import A, head_of

LARGE = "x" * 900_000


@asynccontextmanager
async def open_server(**options: Any) -> AsyncIterator[triows.Server]:
    """Open a server on a port, with a channel that holds more than sockets do."""
    settings = triows.Settings(limits=triows.Limits(**options.pop("limits", {})), **options)
    auth = triows.JWTAuth(SECRET)
    async with triows.open_server(port=0, auth=auth, settings=settings) as server:
        for _ in range(12):
            await server.publish("session:1", triows.log(LARGE))
        yield server


async def until(what: str, condition: Any) -> None:
    """Wait for a condition that the kernel brings about."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 the kernel sets no event
            await trio.sleep(0.01)


async def stuck_stream(server: triows.Server, bearer: str) -> trio.SocketStream:
    """Return a stream of events whose reader takes nothing, stuck with full buffers."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(head_of("GET", f"{A}/events?tail=100", bearer=bearer))
    await until("blocked", lambda: any(c.lag and c.sent_bytes for c in server.connections()))
    sent = -1
    while sent != (now := server.connections()[0].sent_bytes):
        sent = now
        await trio.sleep(0.1)
    return stream


async def test_stuck_stream_is_cut_when_revoked() -> None:
    """What the reader has not taken never reaches it: the connection is reset at once."""
    async with open_server(limits={"write_timeout": 1000}) as server:
        stream = await stuck_stream(server, token("me", **ALL))
        assert await server.revoke(user="me") == 1
        await until("cut", lambda: not server.connections())
        with pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()


async def test_stuck_stream_is_cut_in_time() -> None:
    """A reader that takes nothing for `limits.write_timeout` is gone, and the record says why."""
    async with open_server(limits={"write_timeout": 0.5}) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(head_of("GET", f"{A}/events?tail=100"))
        await until("cut", lambda: server.closed_connections())
        assert server.closed_connections()[0].code == 4004
        await stream.aclose()


@pytest.mark.parametrize("path", [f"{A}/events?tail=100", f"{A}/messages?tail=100"])
async def test_cancelling_does_not_wait_for_readers(path: str) -> None:
    """A server that is cancelled leaves those who read nothing where they are."""
    with trio.fail_after(60):
        with trio.CancelScope() as scope:
            async with open_server(limits={"write_timeout": 1000}) as server:
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(head_of("GET", path))
                assert await stream.receive_some(10)
                await trio.testing.wait_all_tasks_blocked(0.01)  # its socket is full
                scope.cancel()
    await stream.aclose()


async def test_tls(tmp_path: Path) -> None:
    """Over TLS the same: kept connections, large answers, events."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = triows.ServerSettings(
        tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with open_server(server=files) as server:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", server.port, ssl_context=context, https_compatible=True
        )
        for _ in range(2):
            await stream.send_all(head_of("GET", f"{A}/messages?tail=1"))
            answer = b""
            while not answer.endswith(b'"gap":null}\n'):
                answer += await stream.receive_some()
            assert len(answer) > len(LARGE)
        await stream.send_all(head_of("GET", f"{A}/events?tail=1"))
        await server.publish("session:1", triows.end())
        answer = b""
        while data := await stream.receive_some():
            answer += data
        assert b"event: end" in answer
        await trio.aclose_forcefully(stream)
