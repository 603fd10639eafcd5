"""Addresses; why an opening failed, and whether the client tries again."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio_websocket
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import triows
from tests.support import memory_server, token
from tests.support_client import (
    CHANNEL,
    Network,
    Script,
    Stage,
    answer,
    connected,
    play,
    refuse,
    welcome,
)
from triows.dial import Address, dial, explain

ADDRESS = Address.parse("ws://server.test/ws")


@pytest.mark.parametrize(
    ("url", "expected", "authority"),
    [
        ("ws://a", Address("a", 80, "/ws", tls=False), "a:80"),
        ("ws://a/", Address("a", 80, "/ws", tls=False), "a:80"),
        ("wss://a", Address("a", 443, "/ws", tls=True), "a:443"),
        ("WSS://A.example/ws", Address("a.example", 443, "/ws", tls=True), "a.example:443"),
        ("ws://a:8080/ws", Address("a", 8080, "/ws", tls=False), "a:8080"),
        ("ws://a/b/c?d=e", Address("a", 80, "/b/c?d=e", tls=False), "a:80"),
        ("ws://a?d=e", Address("a", 80, "/ws?d=e", tls=False), "a:80"),
        ("ws://[::1]:8080/ws", Address("::1", 8080, "/ws", tls=False), "[::1]:8080"),
        ("ws://a:0/ws", Address("a", 0, "/ws", tls=False), "a:0"),
        ("ws://127.0.0.1:1/x", Address("127.0.0.1", 1, "/x", tls=False), "127.0.0.1:1"),
    ],
)
def test_parse_takes_an_address_apart(url: str, expected: Address, authority: str) -> None:
    """Host, port and path, with what is usual where nothing is said."""
    address = Address.parse(url)
    assert address == expected
    assert address.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:8080",
        "http://a/ws",
        "//a/ws",
        "ws:/a",
        "ws://",
        "ws:///ws",
        "ws://:8080/ws",
        "ws://a:port/ws",
        "ws://a:65536/ws",
        "ws://a:-1/ws",
        "ws://[::1/ws",
        "ws://[nonsense]/ws",
    ],
)
def test_parse_refuses_what_is_no_address(url: str) -> None:
    """What is no address of a server is an error of the configuration."""
    with pytest.raises(triows.ConfigError, match="address"):
        Address.parse(url)


@pytest.mark.parametrize("userinfo", ["me:hunter2@", "hunter2@", ":hunter2@"])
def test_parse_refuses_a_password(userinfo: str) -> None:
    """A password in an address is refused."""
    with pytest.raises(triows.ConfigError, match="token"):
        Address.parse(f"ws://{userinfo}a/ws")


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:hunter2@a/ws",
        "http://me:hunter2@a/ws",
        "ws://me:hunter2@a:port/ws",
        "ws://me:hunter2@[nonsense]/ws",
        "ws://me:hunter2@/ws",
        "ws://me:hunter2@a/w s",
        "//me:hunter2@a/ws",
        "ws://a/ws?token=hunter2é",
        "me:hunter2@a",
    ],
)
def test_parse_repeats_no_password(url: str) -> None:
    """Whatever is wrong with it, the error does not repeat the secret in an address."""
    with pytest.raises(triows.ConfigError) as caught:
        Address.parse(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["ws://a/w s", "ws://a/é", "ws://é/ws", "ws://a/\x00", "ws://a/ws?b=\x7f", "ws://a/\udcff"],
)
def test_parse_refuses_characters_that_want_encoding(url: str) -> None:
    """What cannot go into a request is told before anything is sent."""
    with pytest.raises(triows.ConfigError):
        Address.parse(url)


@given(st.text())
def test_parse_raises_nothing_else(text: str) -> None:
    """Whatever somebody types, it is an address or a ConfigError."""
    for url in (text, f"ws://{text}"):
        try:
            address = Address.parse(url)
        except triows.ConfigError:
            continue
        assert address.host
        assert 0 <= address.port < 65536
        assert address.path.startswith("/")
        assert address.path.isascii()
        assert address.path.isprintable()


async def _refused(nursery: trio.Nursery, stage: Stage) -> triows.HandshakeRefused:
    stream = await stage.open()
    try:
        async with trio.open_nursery() as own:
            await dial(own, stream, ADDRESS, None, 1000)
    except* Exception as group:
        error = explain(group)
    await stream.aclose()
    assert isinstance(error, triows.HandshakeRefused)
    return error


async def test_refusal_carries_everything(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Status, code, words and the seconds to wait come from the answer."""
    stage = Stage(nursery, refuse(429, "rate_limited", message="too many", retry_after=7))
    error = await _refused(nursery, stage)
    assert (error.status, error.code, error.message) == (429, "rate_limited", "too many")
    assert error.retry_after == 7
    assert str(error) == "refused with 429: too many"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b'{"data": null}',
        b'{"data": [1]}',
        b"[" * 5000,
        b'{"data": {}}',
        b'{"data": {"message": {}, "code": []}}',
        b'{"data": {"message": "m", "code": "of the future"}}',
        b'{"data": {"message": "m", "code": "forbidden", "retry_after": "soon"}}',
        b'{"data": {"message": "m", "code": "forbidden", "retry_after": 1e999}}',
        b'{"data": {"message": "m", "code": "forbidden", "retry_after": null}}',
        b"\xff\xfe",
        b"\x00" * 1000,
    ],
)
async def test_refusal_survives_any_body(
    nursery: trio.Nursery, autojump_clock: MockClock, body: bytes
) -> None:
    """An answer of a proxy, or of somebody who means harm, is a refusal with its status."""
    error = await _refused(nursery, Stage(nursery, answer(502, raw=body)))
    assert error.status == 502
    assert error.retry_after is None


async def test_refusal_is_cut_short(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A message of endless length does not fill the terminal."""
    error = await _refused(nursery, Stage(nursery, refuse(403, "forbidden", message="x" * 9999)))
    assert error.message == "x" * 500


def _group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("a", [ExceptionGroup("b", errors)])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("no route"), "no route"),
        (trio.BrokenResourceError(), "connection lost"),
        (trio.TooSlowError(), "no answer within 5 s"),
        (trio_websocket.DisconnectionTimeout(), "connection lost"),
    ],
)
def test_explain_says_what_happened(error: Exception, words: str) -> None:
    """What the network did is told as a connection lost without a goodbye."""
    ended = explain(_group(error))
    assert isinstance(ended, triows.ConnectionClosed)
    assert (ended.code, ended.reason) == (1006, words)


def test_explain_keeps_the_servers_word() -> None:
    """A close code of the server is told as it is."""
    closed: Any = triows.ConnectionClosed(4503, "revoked")
    assert explain(_group(closed)) is closed


def test_explain_hides_no_bug() -> None:
    """What is no matter of the network comes out as it is."""
    group = _group(ZeroDivisionError())
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True) as caught:
        explain(group)
    assert caught.value is group


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_refused_for_now_obeys_retry_after(
    nursery: trio.Nursery, autojump_clock: MockClock, status: int
) -> None:
    """Too many, or no room, is no end: it comes back, and not before it was asked to."""
    stage = Stage(nursery, refuse(status, retry_after=33), refuse(status), play(welcome))
    async with stage.client() as client:
        await client.publish(CHANNEL, triows.log(1))
    assert stage.pauses[0] == pytest.approx(33, abs=1e-3)
    assert 0.5 <= stage.pauses[1] <= 1.5


async def test_retry_after_of_a_proxy_is_obeyed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The header says when to come back, where the body is of somebody else."""
    busy = answer(503, raw=b"busy", more="Retry-After: 30\r\n")
    odd = answer(503, raw=b"busy", more="Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n")
    stage = Stage(nursery, busy, odd, play(welcome))
    async with stage.client() as client:
        await client.publish(CHANNEL, triows.log(1))
    assert stage.pauses[0] == pytest.approx(30, abs=1e-3)
    assert 0.5 <= stage.pauses[1] <= 1.5


async def test_no_token_is_refused_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Without a token the server says 401 at once, and that is final."""
    async with memory_server() as server:
        network = Network(nursery, server)
        started = trio.current_time()
        async with network.client(token=None) as client:
            with pytest.raises(triows.HandshakeRefused) as caught, trio.fail_after(60):
                await client.publish(CHANNEL, triows.log(1))
            assert trio.current_time() - started < 0.1
            await trio.sleep(60)
    assert (caught.value.status, len(network.opened)) == (401, 1)


async def test_static_token_refused_is_final(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The same token would be refused again: 401 is the end."""
    stage = Stage(nursery, refuse(401, "unauthorized"))
    async with stage.client() as client:
        with pytest.raises(triows.HandshakeRefused) as caught:
            await client.publish(CHANNEL, triows.log(1))
        await trio.sleep(60)
    assert (caught.value.status, len(stage.opened)) == (401, 1)


@pytest.mark.parametrize("status", [400, 403, 404, 426])
async def test_refused_for_good_is_final(
    nursery: trio.Nursery, autojump_clock: MockClock, status: int
) -> None:
    """A wrong address or a forbidden origin does not get better by waiting."""
    stage = Stage(nursery, refuse(status, "not_found"))
    async with stage.client() as client, client.subscribe(CHANNEL) as messages:
        with pytest.raises(triows.HandshakeRefused) as caught:
            await anext(messages)
        await trio.sleep(60)
    assert (caught.value.status, len(stage.opened)) == (status, 1)


async def test_token_function_refused_three_times_is_final(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Fresh tokens get three chances in a row; a connection in between starts the count anew."""
    asked: list[float] = []

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        return f"token{len(asked)}"

    async def leave(script: Script) -> None:
        await script.greet()
        await script.close(1001)

    no = refuse(401, "unauthorized")
    stage = Stage(nursery, no, no, play(leave), no, no, no)
    async with stage.client(token=fresh) as client:
        with pytest.raises(triows.HandshakeRefused) as caught, trio.fail_after(300):
            await client.publish("session:43", triows.log(1))
        await trio.sleep(60)
    assert caught.value.status == 401
    assert len(stage.opened) == len(asked) == 6


async def test_token_function_that_fails_is_asked_again(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A token service that is down, or answers with what is no text, is no end."""
    answers: list[Any] = [ValueError("down"), None, 7, b"token", token()]

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        bearer: str = answer
        return bearer

    async with memory_server() as server, connected(nursery, server, token=fresh) as client:
        assert (await client.publish(CHANNEL, triows.log(1))).offset == 1
    assert "token function failed" in caplog.text


async def test_stalled_opening_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A server that takes the connection and says nothing is left after 5 s."""

    async def say_nothing(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    stage = Stage(nursery, say_nothing)
    async with stage.client():
        await trio.sleep(12)
    assert 5.5 <= stage.pauses[0] <= 6.001
