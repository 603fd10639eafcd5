"""Attacks that others fell for, and what becomes of them here; SECURITY.md lists all of them."""

from __future__ import annotations

import hmac
import json
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import (
    PING,
    PONG,
    SECRET,
    Nursery,
    connect,
    dial,
    frame,
    memory_server,
    request_head,
    token,
)
from tests.support_client import Stage, answer
from tests.test_keys import _jwk
from tests.test_tokens import OTHER_RSA, RSA
from triows.errors import AuthError, ConfigError
from triows.http.head import MAX_HEAD, _parse
from triows.keys import check_secret

A = "session:a"
PACKAGE = Path(triows.__file__).parent
CLAIMS = {"sub": "ann", "exp": 9999999999}


# Tokens


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Key sets at two addresses with the same key id; the addresses that were asked for."""
    addresses: list[str] = []
    keys = {"https://one/keys": _jwk(RSA, "k"), "https://two/keys": _jwk(OTHER_RSA, "k")}

    def download(url: str) -> bytes:
        addresses.append(url)
        return json.dumps({"keys": [keys[url]]}).encode()

    monkeypatch.setattr("triows.keys._download", download)
    return addresses


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "iss", "kid"])
async def test_token_cannot_say_where_keys_come_from(asked: list[str], name: str) -> None:
    """Whatever address a token names, only the configured one is ever asked."""
    evil: Any = "https://evil.example/keys"
    if name == "jwk":
        evil = _jwk(OTHER_RSA, "k")
    claims = {**CLAIMS, "iss": "https://evil.example"} if name == "iss" else CLAIMS
    forged = jwt.encode(claims, OTHER_RSA, "RS256", headers={"kid": "k", name: evil})
    with pytest.raises(AuthError):
        await triows.JWTAuth(jwks_url="https://one/keys").verify(forged)
    assert set(asked) == {"https://one/keys"}


async def test_key_of_another_issuer_is_another_key(asked: list[str]) -> None:
    """The same key id in two sets is two keys: none is kept by its id alone."""
    one = triows.JWTAuth(jwks_url="https://one/keys")
    two = triows.JWTAuth(jwks_url="https://two/keys")
    of_one = jwt.encode(CLAIMS, RSA, "RS256", headers={"kid": "k"})
    assert (await one.verify(of_one)).user == "ann"
    with pytest.raises(AuthError, match="signature"):
        await two.verify(of_one)
    assert (await one.verify(of_one)).user == "ann"


@pytest.mark.parametrize(
    "header",
    [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"crit": "x"}],
    ids=str,
)
async def test_token_with_a_critical_extension_is_refused(header: dict[str, Any]) -> None:
    """What has to be understood and is not is no reason to believe."""
    auth = triows.JWTAuth(SECRET)
    with pytest.raises(AuthError):
        await auth.verify(jwt.encode(CLAIMS, SECRET, "HS256", headers=header))


@pytest.mark.parametrize("claim", ["w", "wee", "WE", "", ["we"], None, "we\0"])
async def test_issuer_is_compared_whole(claim: Any) -> None:
    """A part of the issuer's name, or more than it, is another issuer."""
    auth = triows.JWTAuth(SECRET, issuer="we")
    text = json.dumps({**CLAIMS, "iss": claim}).encode()
    with pytest.raises(AuthError):
        await auth.verify(jwt.PyJWS().encode(text, SECRET, "HS256"))


_BODY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo"


@pytest.mark.parametrize(
    "armour",
    [
        "-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----",
        "\n \t-----BEGIN RSA PUBLIC KEY-----\r\n%s\r\n-----END RSA PUBLIC KEY-----",
        "----BEGIN PUBLIC KEY-----\n%s",
        "-----begin public key-----\n%s",
        "----- BEGIN PUBLIC KEY -----\n%s",
        "–––––BEGIN PUBLIC KEY–––––\n%s",
        "-----BEGIN CERTIFICATE-----\n%s",
        "---- BEGIN SSH2 PUBLIC KEY ----\n%s",
        "\ufeff-----BEGIN PUBLIC KEY-----\n%s",
        "%s\n-----END PUBLIC KEY-----",
        "ssh-ed25519 %s",
        "ecdsa-sha2-nistp256 %s",
        "SSH-RSA %s",
        '{"kty":"RSA","n":"%s"}',
        ' [{"kty":"RSA","n":"%s"}]',
    ],
)
def test_public_key_is_no_secret(armour: str) -> None:
    """A public key given as HMAC secret is refused, however its armour was altered."""
    with pytest.raises(ConfigError, match="public key is no secret"):
        check_secret(armour % _BODY)


async def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only secret that is compared, is compared by `hmac.compare_digest`."""
    compared: list[int] = []
    compare = hmac.compare_digest

    def record(one: bytes, other: bytes) -> bool:
        compared.append(len(other))
        return compare(one, other)

    monkeypatch.setattr("hmac.compare_digest", record)
    await triows.JWTAuth(SECRET).verify(token())
    assert compared == [32]


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError("no disk"), RecursionError()])
async def test_authentication_fails_closed(
    nursery: Nursery, autojump_clock: MockClock, error: Exception
) -> None:
    """When checking a token fails in a way nobody thought of, nobody is let in."""

    class Broken:
        async def verify(self, text: str) -> triows.Identity:
            raise error

    async with memory_server(auth=Broken()) as server:
        peer = dial(server, nursery)
        await peer.send(request_head(token()))
        assert b" 101 " not in await peer.stream.receive_some()
        assert server.statistics().opened == 0


# Tasks, threads, memory


async def test_peers_start_no_tasks(nursery: Nursery, autojump_clock: MockClock) -> None:
    """However much a peer sends, it has the tasks it had, and no thread."""
    async with memory_server(limits=triows.Limits(messages_per_second=0)) as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", id="1", channel=A)
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        threads = set(threading.enumerate())
        for what in (
            frame("x", PONG),
            frame("x", PING),
            frame('{"type":"ping"}'),
            frame(f'{{"type":"log","channel":"{A}"}}'),
            frame(f'{{"type":"history","channel":"{A}"}}'),
            frame("{", fin=False) + frame("}", 0),
        ):
            await peer.send(what * 90)
            await trio.lowlevel.checkpoint()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            await wait_all_tasks_blocked()
            assert set(threading.enumerate()) <= threads  # idle ones may end


async def test_unfinished_message_is_not_kept_for_ever(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Who begins a message and never ends it is idle, whatever pings and fragments it sends."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.send(frame("{", fin=False))
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.send(frame("", PING) + frame(" ", 0, fin=False))
                await trio.sleep(1)
        idle = server.settings.limits.idle_timeout
        assert trio.current_time() - started == pytest.approx(idle, abs=5)
        assert [c.code for c in server.closed_connections()] == [4001]


_WORST = {
    "one long line": b"X: " + b"a" * 15_000,
    "many lines": b"\r\n".join(b"a%d: b" % number for number in range(1500)),
    "one name again and again": b"\r\n".join([b"X: a, b"] * 1600),
    "white space": b"X:" + b" \t" * 7500 + b"a",
    "almost folded": b"X: a" + b"\r" * 15_000,
    "commas": b"Sec-WebSocket-Protocol: " + b"," * 15_000,
    "a query": b"X: " + b"%41&" * 3700,
}


@pytest.mark.parametrize("name", _WORST)
def test_head_holds_nobody_up(name: str) -> None:
    """The largest head is read in a moment, whatever stands in it: no search goes back."""
    head = b"GET /ws?" + b"a=b&" * 60 + b" HTTP/1.1\r\nHost: a\r\n" + _WORST[name] + b"\r\n\r\n"
    assert len(head) <= MAX_HEAD
    began = time.thread_time()
    try:
        _parse(head, b"")
    except triows.HandshakeRefused:
        pass
    assert time.thread_time() - began < 0.3


async def test_newlines_are_not_amplified(nursery: Nursery, autojump_clock: MockClock) -> None:
    """What is published goes out to a viewer about as long as it came, whatever is in it."""
    async with memory_server() as server:
        peer = await connect(server, nursery)
        await peer.ask("subscribe", id="1", channel=A)
        for text in ("\n" * 50_000, "\u2028" * 20_000, '"' * 50_000, "\0" * 20_000):
            came = len(frame(json.dumps({"type": "log", "channel": A, "data": text})))
            before = server.connections()[0].sent_bytes
            await server.publish(A, triows.log(text))
            assert (await peer.hear())["data"] == text
            assert server.connections()[0].sent_bytes - before < came + 200


# What others are told


def test_nothing_read_can_run() -> None:
    """Nothing in the package turns bytes into code or objects of any class."""
    able = re.compile(
        r"\b(?:import|from) (?:pickle|marshal|shelve|dill|yaml|ctypes)\b"
        r"|(?<![.\w])(?:eval|exec|__import__)\(|shell=True|os\.system"
    )
    found = {
        str(path.relative_to(PACKAGE)): match[0]
        for path in PACKAGE.rglob("*.py")
        if (match := able.search(path.read_text()))
    }
    assert found == {}


ESCAPE = "\x1b[2J\x1b]0;owned\x07\x9b31m"


async def test_logs_hold_no_escape_sequences(
    nursery: Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer says reaches the operator's terminal without control characters."""
    caplog.set_level("DEBUG", "triows")
    bad = ESCAPE.encode()
    async with memory_server() as server:
        for head in (
            request_head(token(), headers={"Origin": f"https://{ESCAPE[:-4]}"}),
            b"GET /" + bad + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            request_head(token(), path="/nowhere%1b%5b2J"),
            bad + b"\r\n\r\n",
        ):
            peer = dial(server, nursery)
            await peer.send(head)
            await peer.response()
        peer = await connect(server, nursery)
        await peer.say("subscribe", channel=f"session:{ESCAPE}")
        await peer.say(ESCAPE)
        await peer.send(frame((1000).to_bytes(2, "big") + bad[:-4], 0x8))
        await wait_all_tasks_blocked()
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("triows")]
    assert texts
    assert not [text for text in texts if not text.replace("\n", "").isprintable()]


async def test_client_follows_no_redirect(nursery: Nursery, autojump_clock: MockClock) -> None:
    """The client takes its token to the address it was given, and nowhere else."""
    more = "Location: ws://evil.example/ws\r\n"
    stage = Stage(nursery, answer(302, more=more))
    async with stage.client() as client:
        with pytest.raises(triows.HandshakeRefused, match="302"):
            await client.publish(A, triows.log(1))
    assert len(stage.opened) == 1


def test_masks_cannot_be_foretold() -> None:
    """The client's masks are of the system's randomness, not of Python's generator."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import TextMessage

    frames = set()
    for _ in range(20):
        random.seed(1)
        frames.add(Connection(ConnectionType.CLIENT).send(TextMessage(data="x"))[2:6])
    assert len(frames) == 20
