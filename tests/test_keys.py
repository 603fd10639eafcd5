"""Key sets: keys that rotate, sources that fail, and which keys are used."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from triows import keys
from triows.errors import AuthError
from triows.keys import KEY_SET_FLOOR, KEY_SET_TTL, MAX_KEY_SET
from triows.tokens import JWTAuth

SECRET = "not-a-real-secret-just-32-bytes!"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def _token(key: Any, algorithm: str, kid: str | None = None) -> str:
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode({"sub": "ann", "exp": time.time() + 3600}, key, algorithm, headers=headers)


async def _refusal(auth: JWTAuth, token: str) -> str:
    """Return why the token is refused."""
    with pytest.raises(AuthError) as caught:
        await auth.verify(token)
    return caught.value.message


NO_HTTP = b"* what HTTP is not\r\n\r\n"


class _KeyServer(http.server.ThreadingHTTPServer):
    """Answers with `body`, counting how often it was asked."""

    body, asked = b"", 0

    def offer(self, *jwks: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": jwks}).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _KeyServer)
        self.server.asked += 1
        if self.server.body == NO_HTTP:
            self.wfile.write(NO_HTTP)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def key_server() -> Iterator[_KeyServer]:
    """A key set on loopback."""
    with _KeyServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


def _auth(server: _KeyServer) -> JWTAuth:
    return JWTAuth(jwks_url=f"http://127.0.0.1:{server.server_port}/keys")


def _later(patch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic()
    patch.setattr(time, "monotonic", lambda: now + seconds)


async def test_key_set_follows_a_rotation_at_its_floor(
    key_server: _KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key id is looked up, but not more often than the floor allows."""
    key_server.offer(_jwk(RSA, "1"), _jwk(EC, "e"))
    auth, new = _auth(key_server), _token(OTHER_RSA, "RS256", "2")
    for _ in range(3):
        assert (await auth.verify(_token(RSA, "RS256", "1"))).user == "ann"
    key_server.offer(_jwk(RSA, "1"), _jwk(OTHER_RSA, "2"))
    assert "not known" in await _refusal(auth, new)
    _later(monkeypatch, KEY_SET_FLOOR + 1)
    assert (await auth.verify(new)).user == "ann"
    for kid in ("e", "", "3"):
        assert "not known" in await _refusal(auth, _token(RSA, "RS256", kid))
    assert key_server.asked == 2


@pytest.mark.parametrize(
    "failure",
    [
        *(b"", b"{}", b"[]", b"null", b"5", b'{"keys":[]}', b'{"keys":[5]}', b'{"keys":5}'),
        *(b"\xff", b"[" * 5000, b'{"keys":[%b]}' + b" " * MAX_KEY_SET, NO_HTTP),
    ],
    ids=lambda failure: ascii(failure[:20]),
)
async def test_key_set_is_kept_when_fetching_fails(
    key_server: _KeyServer, monkeypatch: pytest.MonkeyPatch, failure: bytes
) -> None:
    """Keys once known stay while their source is broken; what replaces them does so whole."""
    key_server.offer(_jwk(RSA, "1"))
    auth, old = _auth(key_server), _token(RSA, "RS256", "1")
    await auth.verify(old)
    key_server.body = failure.replace(b"%b", json.dumps(_jwk(OTHER_RSA, "2")).encode())
    _later(monkeypatch, KEY_SET_TTL + 1)
    assert (await auth.verify(old)).user == "ann"
    key_server.offer(_jwk(OTHER_RSA, "2"))
    _later(monkeypatch, KEY_SET_TTL + 1)
    assert "not known" in await _refusal(auth, old)
    assert key_server.asked == 3


async def test_key_set_survives_a_cancelled_fetch(
    key_server: _KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives up while the keys are being fetched locks nobody else out."""
    key_server.offer(_jwk(RSA, "1"))
    auth, token = _auth(key_server), _token(RSA, "RS256", "1")
    asked, go_on = threading.Event(), threading.Event()
    download = keys._download

    def slow(url: str) -> bytes:
        asked.set()
        go_on.wait(10)
        return download(url)

    monkeypatch.setattr(keys, "_download", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(auth.verify, token)
        await trio.to_thread.run_sync(asked.wait, 10)
        nursery.cancel_scope.cancel()
    go_on.set()
    assert (await auth.verify(token)).user == "ann"


async def test_key_set_leaves_weak_keys_out(key_server: _KeyServer) -> None:
    """An RSA key that is too short, or a key on another curve, is not used."""
    weak, p384 = rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())
    key_server.offer(_jwk(weak, "w"), _jwk(RSA, "1"))
    auth = _auth(key_server)
    assert (await auth.verify(_token(RSA, "RS256", "1"))).user == "ann"
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = _token(weak, "RS256", "w")
    assert "not known" in await _refusal(auth, token)
    key_server.offer(_jwk(p384, "3"), _jwk(EC, "e"))
    url = f"http://127.0.0.1:{key_server.server_port}/keys"
    auth = JWTAuth(jwks_url=url, algorithms=["ES256"])
    assert (await auth.verify(_token(EC, "ES256", "e"))).user == "ann"
    assert "not known" in await _refusal(auth, _token(EC, "ES256", "3"))


async def test_key_set_uses_keys_of_its_family_only(key_server: _KeyServer) -> None:
    """Keys to encrypt with, of other families, broken ones and secrets are not used."""
    secret = {
        "kty": "oct",
        "k": base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode(),
        "kid": "o",
    }
    broken = {"kty": "RSA", "n": 5, "kid": "b"}
    key_server.offer(secret, broken, _jwk(RSA, "c", use="enc"), _jwk(EC, "e"), _jwk(RSA, "1"))
    auth = _auth(key_server)
    assert (await auth.verify(_token(RSA, "RS256"))).user == "ann"  # one is left: no id is needed
    assert "algorithm" in await _refusal(auth, _token(SECRET, "HS256", "o"))
    assert "algorithm" in await _refusal(auth, _token(EC, "ES256", "e"))
    for kid in ("o", "b", "c", "e"):
        assert "not known" in await _refusal(auth, _token(RSA, "RS256", kid))
