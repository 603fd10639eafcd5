"""Tokens: nothing but AuthError; none is believed that pyjwt or a plain reading refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Final

import jwt

import triows
from tests.support import SECRET
from triows.codec import encode_json
from triows.errors import AuthError
from triows.tokens import JWTAuth

_HUGE: Final = 10**300  # seconds since 1970: no clock will reach it
_AUTHS: Final = (
    JWTAuth(SECRET),
    JWTAuth(SECRET, issuer="we", audience="us"),
    JWTAuth(SECRET * 2, algorithms=["HS512", "HS384"]),
)


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def _signed(data: bytes, auth: JWTAuth) -> bytes:
    """Sign header and claims that `data` holds, one a line, whatever they are."""
    header, _, claims = data.partition(b"\n")
    text = _encode(header) + b"." + _encode(claims)
    digest = next((name for name in (b"512", b"384") if name in header), b"256")
    assert isinstance(auth._key, bytes)
    return text + b"." + _encode(hmac.digest(auth._key, text, f"sha{digest.decode()}"))


def _verify(auth: JWTAuth, text: str) -> triows.Identity | AuthError:
    coroutine = auth.verify(text)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        identity: triows.Identity = stop.value
        return identity
    except AuthError as error:
        return error
    raise AssertionError("it waited")


def _sound(auth: JWTAuth, text: str) -> bool:
    """Whether our own eyes find nothing wrong, reading only what the standard says."""
    parts = text.split(".")
    padded = [part + "=" * (-len(part) % 4) for part in parts]
    header, claims = (json.loads(base64.urlsafe_b64decode(part)) for part in padded[:2])
    bits = {"HS256": 256, "HS384": 384, "HS512": 512}[header["alg"]]
    signed = f"{parts[0]}.{parts[1]}".encode()
    assert isinstance(auth._key, bytes)
    right = hmac.new(auth._key, signed, getattr(hashlib, f"sha{bits}")).digest()
    return (
        len(parts) == 3
        and header["alg"] in auth._algorithms
        and "crit" not in header
        and hmac.compare_digest(base64.urlsafe_b64decode(padded[2]), right)
        and time.time() - 60 < claims["exp"] < _HUGE
        and (claims.get("nbf") or 0) < time.time() + 60
        and (auth._issuer is None or claims["iss"] == auth._issuer)
    )


def run(data: bytes) -> str:
    """Check a token. Of the first byte, the low bits choose the settings, the highest has header
    and claims (one a line) signed with the right key.
    """
    auth = _AUTHS[data[0] % 3 if data else 0]
    text = data[1:]
    if data and data[0] & 0x80:
        text = _signed(text, auth)
    try:
        word = text.decode("latin-1" if data and data[0] & 0x40 else "utf-8")
    except UnicodeDecodeError:
        return "no text: never gets here"
    found = _verify(auth, word)
    if isinstance(found, AuthError):
        assert found.status == 401
        assert len(word) < 20 or word not in str(found)
        return found.message[:30]
    options: Any = {
        "require": ["exp", "sub"],
        "verify_aud": auth._audience is not None,
        "verify_iat": False,
    }
    assert isinstance(auth._key, bytes)
    claims = jwt.decode(
        word, auth._key, auth._algorithms, options, issuer=auth._issuer, audience=auth._audience
    )
    assert found.user == claims["sub"]
    assert _sound(auth, word)
    encode_json({"user": found.user})
    return f"believed {found.grants.admin} {bool(found.token_id)} {bool(found.claims)}"
