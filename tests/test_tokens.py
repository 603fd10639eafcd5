"""Tokens: what is believed, and every refusal."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from triows.auth import Action
from triows.errors import AuthError, ConfigError
from triows.tokens import MAX_TOKEN, JWTAuth, make_token

SECRET = "not-a-real-secret-just-32-bytes!"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def _pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _token(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any
) -> str:
    """A token as some issuer would make it; a claim that is ... is left out."""
    payload = {"sub": "ann", "exp": time.time() + 3600, **claims}
    payload = {name: value for name, value in payload.items() if value is not ...}
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(payload, key, algorithm, headers=headers)


def _encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


async def _refusal(auth: JWTAuth, token: str) -> str:
    """Return why the token is refused; never in words of its own."""
    with pytest.raises(AuthError) as caught:
        await auth.verify(token)
    assert caught.value.status == 401
    for part in (token, *token.split(".")):
        assert len(part) < 8 or part not in str(caught.value)
    return caught.value.message


@pytest.mark.parametrize(
    ("auth", "token"),
    [
        (JWTAuth(SECRET), _token()),
        (JWTAuth(SECRET.encode()), _token(aud="not checked", iss="not checked")),
        (JWTAuth("s" * 64, algorithms=["HS512"]), _token("s" * 64, "HS512")),
        (JWTAuth(public_key=_pem(RSA)), _token(RSA, "RS256")),
        (JWTAuth(public_key=_pem(RSA).decode(), algorithms=["PS256"]), _token(RSA, "PS256")),
        (JWTAuth(public_key=_pem(EC)), _token(EC, "ES256")),
        (JWTAuth(public_key=_pem(ED)), _token(ED, "EdDSA")),
    ],
    ids=["HS256", "bytes", "HS512", "RS256", "PS256", "ES256", "EdDSA"],
)
async def test_token_is_believed(auth: JWTAuth, token: str) -> None:
    """A genuine token of each family names its user, who may do nothing by default."""
    identity = await auth.verify(token)
    assert identity.user == "ann"
    assert identity.expires_at == pytest.approx(time.time() + 3600, abs=1800)
    assert not any(identity.grants.allow(action, "session:1") for action in Action)


async def test_token_claims_become_the_identity() -> None:
    """`jti`, `iat` and grants arrive, and as `claims` those that triows does not know."""
    claim = {"subscribe": ["session:*"], "publish": ["session:1"], "admin": False}
    identity = await JWTAuth(SECRET).verify(
        _token(jti="j", iat=12.5, nbf=1, iss="i", triows=claim, role="x")
    )
    assert (identity.token_id, identity.issued_at, identity.claims) == ("j", 12.5, {"role": "x"})
    assert identity.grants.allow(Action.SUBSCRIBE, "session:2")
    assert identity.grants.allow(Action.PUBLISH, "session:1")
    assert not identity.grants.allow(Action.PUBLISH, "session:2")
    assert not identity.grants.allow(Action.COMMAND, "session:1")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        *(({"exp": value}, "expired") for value in (1, -1)),
        ({"exp": ...}, "lacks 'exp'"),
        ({"exp": "9999999999"}, "'exp' must be a number"),
        *(({"exp": value}, "") for value in (10**400, 1e300, True)),
        *(({"iat": value}, "'iat' must be") for value in (10**400, True, -(10**400))),
        *(({"exp": value}, "") for value in ([9999999999], float("inf"), float("nan"))),
        *(({"nbf": value}, "'nbf' must be") for value in ("1", True)),
        ({"sub": ...}, "lacks 'sub'"),
        ({"sub": 5}, ""),
        *(({"sub": value}, "'sub' must be") for value in ("", "x" * 256, "\ud800")),
        *(({"iat": value}, "'iat' must be") for value in ("soon", float("inf"), [1])),
        ({"jti": 5}, ""),
        ({"jti": ["j"]}, ""),
        ({"nbf": 9999999999}, "not valid yet"),
        *(({"triows": claim}, "not an object") for claim in ("*", 5, None)),
        *(({"triows": {"subscribe": value}}, "not a list") for value in ("*", {"*": 1}, None)),
        *(({"triows": {"publish": [value]}}, "expected str") for value in (1, None, ["a"])),
        *(({"triows": {"admin": value}}, "expected bool") for value in (1, "true", None)),
        ({"triows": {"command": ["a*b"]}}, "at its end"),
        ({"triows": {"subscribes": ["*"]}}, "subscribes"),
        ({"triows": {"Admin": True}}, "Admin"),
    ],
    ids=str,
)
async def test_token_with_a_wrong_claim_is_refused(claims: dict[str, Any], words: str) -> None:
    """Expired, incomplete, of the wrong types, or granting what is not known."""
    assert words in await _refusal(JWTAuth(SECRET), _token(**claims))


@pytest.mark.parametrize(
    ("auth", "token", "words"),
    [
        (JWTAuth(SECRET), _token(None, "none"), "algorithm"),
        (JWTAuth(SECRET), _token(SECRET * 2, "HS512"), "algorithm"),
        (JWTAuth(SECRET), _token(RSA, "RS256"), "algorithm"),
        (JWTAuth(public_key=_pem(RSA)), _token(None, "none"), "algorithm"),
        (JWTAuth(public_key=_pem(RSA)), _token(), "algorithm"),
        (JWTAuth(public_key=_pem(RSA)), _token(RSA, "RS512"), "algorithm"),
        (JWTAuth(public_key=_pem(EC)), _token(RSA, "RS256"), "algorithm"),
        (JWTAuth(SECRET), _token("x" * 32), "signature"),
        (JWTAuth(public_key=_pem(RSA)), _token(OTHER_RSA, "RS256"), "signature"),
        (JWTAuth(SECRET), ".".join((*_token().split(".")[:2], "")), "signature"),
        (JWTAuth(SECRET), _token() + "A" * 8, "signature"),
    ],
    ids=lambda value: "token" if "." in str(value) else None,  # names that stay the same
)
async def test_token_not_signed_with_the_key_is_refused(
    auth: JWTAuth, token: str, words: str
) -> None:
    """The token has no say in the algorithm, and its signature is checked."""
    assert words in await _refusal(auth, token)


async def test_token_signed_with_the_public_key_as_secret_is_refused() -> None:
    """The classic confusion: the public PEM used as an HMAC secret by the attacker."""
    text = _encode(b'{"alg":"HS256"}') + "." + _encode(b'{"sub":"ann","exp":9999999999}')
    token = f"{text}.{_encode(hmac.digest(_pem(RSA), text.encode(), 'sha256'))}"
    assert "algorithm" in await _refusal(JWTAuth(public_key=_pem(RSA)), token)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 2000,
        b"null",
        b"\xff",
        b'{"alg":["HS256"]}',
        b'{"alg":null}',
        b'{"alg":"HS256","kid":[]}',
        b'{"alg":"HS256","b64":false}',
    ],
)
async def test_token_with_an_odd_header_is_refused(header: bytes) -> None:
    """A header of another shape is refused like any bad token."""
    await _refusal(JWTAuth(SECRET), f"{_encode(header)}.{_encode(b'{}')}.{_encode(b'x' * 32)}")


@given(st.text(max_size=60) | st.text("ey.J-_", max_size=60))
async def test_token_of_garbage_is_refused(token: str) -> None:
    """Any text is refused with an AuthError, lone surrogates and dots included."""
    with pytest.raises(AuthError):
        await JWTAuth(SECRET).verify(token)


async def test_token_too_long_is_refused() -> None:
    """A genuine token above the limit is refused; one at the limit is not."""
    size = (MAX_TOKEN - len(_token(exp=9999999999, x=""))) * 3 // 4
    fits, exceeds = (_token(exp=9999999999, x="x" * (size + more)) for more in (-1, 3))
    assert MAX_TOKEN - 4 <= len(fits) <= MAX_TOKEN < len(exceeds)
    assert (await JWTAuth(SECRET).verify(fits)).user == "ann"
    assert "limit" in await _refusal(JWTAuth(SECRET), exceeds)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "we", "aud": "us"}, None),
        ({"iss": "we", "aud": ["them", "us"]}, None),
        ({"iss": "they", "aud": "us"}, "issuer"),
        ({"aud": "us"}, "lacks 'iss'"),
        ({"iss": "we", "aud": "them"}, "audience"),
        ({"iss": "we"}, "lacks 'aud'"),
    ],
)
async def test_token_issuer_and_audience(claims: dict[str, Any], words: str | None) -> None:
    """`iss` and `aud` are required and checked when they are configured."""
    auth = JWTAuth(SECRET, issuer="we", audience="us")
    token = _token(**claims)
    assert (words in await _refusal(auth, token)) if words else await auth.verify(token)


async def test_make_token_is_believed() -> None:
    """A token that was made says what was asked for, and no two are the same."""
    token = make_token(SECRET, "ann", subscribe=["a:*"], command=["a:1"], claims={"role": "x"})
    identity = await JWTAuth(SECRET).verify(token)
    assert (identity.user, identity.claims["role"], identity.grants.admin) == ("ann", "x", False)
    assert identity.grants.allow(Action.SUBSCRIBE, "a:2")
    assert not identity.grants.allow(Action.COMMAND, "a:2")
    admin = await JWTAuth(SECRET).verify(make_token(SECRET, "ann", admin=True))
    assert admin.grants.admin
    assert admin.token_id != identity.token_id
    assert "expired" in await _refusal(JWTAuth(SECRET), make_token(SECRET, "ann", ttl=-1))


@pytest.mark.parametrize(
    ("secret", "pattern", "error"),
    [("short", "a:1", ConfigError), (_pem(RSA), "a:1", ConfigError), (SECRET, "a*b", ValueError)],
)
def test_make_token_refuses(secret: str, pattern: str, error: type[Exception]) -> None:
    """Weak secrets and wrong patterns are told when a token is made."""
    with pytest.raises(error):
        make_token(secret, "ann", subscribe=[pattern])
