"""The head of a request: read within bounds, and checked before anything else sees it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from triows.errors import HandshakeRefused
from triows.http.head import (
    MAX_HEAD,
    Head,
    PeerGone,
    check_origin,
    check_upgrade,
    find_token,
    read_head,
)
from triows.transport import Transport

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
OPENING = {
    "Host": "example.com:8080",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def _request(
    line: str = "GET /ws HTTP/1.1", *extra: tuple[str, str], **changed: str | None
) -> bytes:
    """An opening handshake; `changed` by name with _ for -, None to leave a header out."""
    headers: dict[str, str | None] = dict(OPENING)
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    pairs = [*((name, value) for name, value in headers.items() if value is not None), *extra]
    lines = [line, *(f"{name}: {value}" for name, value in pairs)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read(data: bytes, *, step: int = 0) -> Head:
    """Read a head that comes `step` bytes at a time, or all at once; then the peer is gone."""
    client, server = trio.testing.memory_stream_pair()
    step = step or max(len(data), 1)

    async def send() -> None:
        for at in range(0, len(data), step):
            await client.send_all(data[at : at + step])
            await wait_all_tasks_blocked()
        await client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        head = await read_head(Transport(server, "peer"))
        nursery.cancel_scope.cancel()
    return head


async def _refusal(data: bytes) -> int:
    """Return the status that a request gets."""
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(data)
    with pytest.raises(HandshakeRefused) as caught:
        check_upgrade(await read_head(Transport(server, "peer")))
    assert caught.value.message
    return caught.value.status


@pytest.mark.parametrize("step", [0, 1, 7])
async def test_head_is_read(step: int) -> None:
    """Method, path, query and headers, whether it comes at once or byte by byte."""
    data = _request("GET /ws?a=1&b HTTP/1.1", ("X-Two", "a"), ("X-Two", "b, c"))
    head = await _read(data, step=step)
    assert (head.method, head.path, head.query) == ("GET", "/ws", "a=1&b")
    assert head.header("host") == "example.com:8080"
    assert head.tokens("x-two") == ["a", "b", "c"]
    assert (head.header("x-none"), head.tokens("x-none")) == ("", [])
    assert head.rest == b""
    check_upgrade(head)


@pytest.mark.parametrize("rest", [b"\x81", b"x" * 60_000, b"\r\n\r\n", b"\xff\r\n\r\n\x00"])
async def test_head_leaves_the_rest(rest: bytes) -> None:
    """What came in the same bytes after the head is not looked at, and not lost."""
    head = await _read(_request() + rest)
    assert head.header("host") == "example.com:8080"
    assert head.rest == rest


@pytest.mark.parametrize("sent", [0, 1, 30, -1])
@pytest.mark.parametrize("step", [0, 1])
async def test_head_of_a_peer_that_left_is_no_request(sent: int, step: int) -> None:
    """A peer that ends before its head is whole gets no answer."""
    with pytest.RaisesGroup(PeerGone):
        await _read(_request()[:sent], step=step)


@pytest.mark.parametrize("step", [0, 1000])
async def test_head_of_exactly_the_limit_is_read(step: int) -> None:
    """16 KiB pass, the empty line included."""
    padding = MAX_HEAD - len(_request(X=""))
    assert (await _read(_request(X="x" * padding), step=step)).header("x") == "x" * padding
    assert await _refusal(_request(X="x" * (padding + 1))) == 431


@pytest.mark.parametrize("data", [b"x" * (MAX_HEAD + 1), _request(X="x" * 100_000), b"\r" * 20_000])
async def test_head_too_large_is_refused(data: bytes) -> None:
    """More than that is 431, without waiting for an end that may never come."""
    assert await _refusal(data) == 431


@pytest.mark.parametrize(
    "data",
    [
        _request(X="caf\xe9"),
        _request(Host="ex\xe4mple.com"),
        _request("GET /\xff HTTP/1.1"),
        _request(Host=None),
        _request(X="a\x00b"),
        *(
            _request("GET /ws HTTP/1.1", (name, OPENING.get(name, "Bearer x")), (name, "x"))
            for name in ("Host", "Authorization", "Origin", "Sec-WebSocket-Key", "Upgrade")
        ),
        _request("GET http://[/ws HTTP/1.1"),
        _request("GET /ws"),
        _request("GET  /ws HTTP/1.1"),
        _request("GET /w s HTTP/1.1"),
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost : a\r\n\r\n",
    ],
)
async def test_head_that_is_not_http_is_refused(data: bytes) -> None:
    """Bytes above 0x7f, what may occur once twice, or no HTTP at all: 400."""
    assert await _refusal(data) == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_request(Upgrade=None), 426),
        (_request(Connection=None), 426),
        *((_request(Upgrade=word), 426) for word in ("h2c", "h2c, websocket", "websocket, x")),
        (_request(Connection="keep-alive"), 426),
        (_request("POST /ws HTTP/1.1", Upgrade=None), 426),
        (_request(Sec_WebSocket_Version="8"), 426),
        (_request(Sec_WebSocket_Version="13, 8"), 426),
        (_request(Sec_WebSocket_Version=None), 426),
        (_request("POST /ws HTTP/1.1"), 400),
        (_request("HEAD /ws HTTP/1.1"), 400),
        (_request("GET /ws HTTP/1.0"), 400),
        (_request(Sec_WebSocket_Key=None), 400),
        (_request(Sec_WebSocket_Key=""), 400),
        (_request(Sec_WebSocket_Key="AAAA"), 400),
        (_request(Sec_WebSocket_Key=KEY[:-1]), 400),
        (_request(Sec_WebSocket_Key="!" * 24), 400),
        (_request(Sec_WebSocket_Key=KEY + "AAAA"), 400),
    ],
)
async def test_upgrade_is_refused(data: bytes, status: int) -> None:
    """426 for what asks for no WebSocket of version 13, 400 for what asks wrongly."""
    assert await _refusal(data) == status


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE"},
        {"Sec_WebSocket_Key": f"  {KEY} "},
    ],
)
async def test_upgrade_is_accepted(changed: dict[str, str]) -> None:
    """Words are compared without case; `Upgrade` may stand in a list of `Connection`."""
    check_upgrade(await _read(_request(**changed)))


FOREIGN = "https://evil.example"


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "loopback", "passes"),
    [
        ("a.com", None, (), False, True),
        ("a.com", "https://a.com", (), False, True),
        ("a.com:8080", "http://a.com:8080", (), False, True),
        ("a.com:8080", "http://a.com", (), False, False),
        ("a.com", "https://a.com:8443", (), False, False),
        ("A.com:8080", "http://a.COM:8080", (), False, True),
        ("LocalHost:8080", "http://localhost:8080", (), True, True),
        ("", "null", (), False, False),
        ("", "null", (), True, False),
        ("", "http://", (), False, False),
        ("a.com", FOREIGN, (), False, False),
        ("a.com", "https://a.com.evil.example", (), False, False),
        ("a.com", "https://a.com@evil.example", (), False, False),
        ("a.com", FOREIGN, (FOREIGN,), False, True),
        ("a.com", FOREIGN, ("https://other.example",), False, False),
        ("a.com", FOREIGN, ("https://evil",), False, False),
        ("a.com", "http://evil.example", (FOREIGN,), False, False),
        ("a.com", FOREIGN, ("*",), False, True),
        ("a.com", "null", (), False, False),
        ("a.com", "null", (FOREIGN,), False, False),
        ("a.com", "null", ("null",), False, True),
        ("a.com", "http://[", (), False, False),
        ("a.com", "a.com", (), False, False),
        ("localhost:8080", "http://localhost:8080", (), True, True),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", (), True, True),
        ("[::1]:8080", "http://[::1]:8080", (), True, True),
        ("localhost:8080", "http://localhost:3000", (), True, False),
        ("localhost:8080", FOREIGN, (), True, False),
        ("evil.example:8080", "http://evil.example:8080", (), True, False),
        ("evil.example", "http://evil.example", ("http://evil.example",), True, True),
        ("localhost.evil.example", "http://localhost.evil.example", (), True, False),
    ],
)
async def test_origin(
    host: str, origin: str | None, allowed: tuple[str, ...], loopback: bool, passes: bool
) -> None:
    """Own pages and listed ones may; on loopback a name that only points there may not."""
    head = await _read(_request(Host=host, Origin=origin))
    if passes:
        check_origin(head, allowed, loopback=loopback)
        return
    with pytest.raises(HandshakeRefused) as caught:
        check_origin(head, allowed, loopback=loopback)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("path", "headers", "token"),
    [
        ("/ws", {}, None),
        ("/ws", {"Authorization": "Bearer a.b.c"}, "a.b.c"),
        ("/ws", {"Authorization": "bearer   a.b.c  "}, "a.b.c"),
        ("/ws", {"Authorization": "Basic YTpi"}, None),
        ("/ws", {"Authorization": "Bearer"}, None),
        ("/ws", {"Sec_WebSocket_Protocol": "triows.v1, bearer.a.b.c"}, "a.b.c"),
        ("/ws", {"Sec_WebSocket_Protocol": "bearer.a.b.c,triows.v1"}, "a.b.c"),
        ("/ws", {"Sec_WebSocket_Protocol": "triows.v1"}, None),
        ("/ws", {"Authorization": "Bearer h", "Sec_WebSocket_Protocol": "bearer.p"}, "h"),
        ("/ws", {"Authorization": "Basic h", "Sec_WebSocket_Protocol": "bearer.p"}, "p"),
        ("/ws?other=token", {}, None),
    ],
)
@pytest.mark.parametrize("in_query", [False, True])
async def test_token_is_found(
    path: str, headers: dict[str, str], token: str | None, in_query: bool
) -> None:
    """The header is preferred to the subprotocol, and that to the address."""
    head = await _read(_request(f"GET {path} HTTP/1.1", **headers))
    assert find_token(head, in_query=in_query) == token


@pytest.mark.parametrize("query", ["token=a.b.c", "x=1&token=a.b.c", "%74oken=a%2Eb.c"])
async def test_token_in_the_address(query: str) -> None:
    """It counts only where that is switched on; else it is refused without being repeated, even
    if a header brings one, too.
    """
    head = await _read(_request(f"GET /ws?{query} HTTP/1.1"))
    assert find_token(head, in_query=True) == "a.b.c"
    beside = await _read(_request(f"GET /ws?{query} HTTP/1.1", Authorization="Bearer h"))
    assert find_token(beside, in_query=True) == "h"
    for refused in (head, beside):
        with pytest.raises(HandshakeRefused) as caught:
            find_token(refused, in_query=False)
        assert caught.value.status == 400
        assert "a.b.c" not in str(caught.value)
