"""JSON Web Tokens (RFC 7519): checking and, for tools and tests, making them.

The key and the few algorithms it may be used with come from the configuration, never from the
token: a token can only say which key of the set it was signed with.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import attrs
import cattrs
import jwt

from triows.auth import Grants, Identity
from triows.config import AuthSettings
from triows.errors import AuthError, ConfigError
from triows.keys import (
    DEFAULT_ALGORITHM,
    FAMILIES,
    KeySet,
    check_secret,
    check_strength,
    family_of,
    key_kind,
    load_public_key,
    read_key_file,
)
from triows.messages import Patterns

_FOREVER: Final = 1e12  # seconds since 1970 that no clock will reach
_REGISTERED: Final = frozenset({"sub", "exp", "iat", "jti", "iss", "aud", "nbf", "triows"})
MAX_TOKEN: Final = 8192  # bytes; it has to fit into a request head of 16 KiB with room to spare


@attrs.frozen
class _GrantClaims:
    """The claim `triows`."""

    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()
    admin: bool = False


def _strictly(kind: type) -> Any:
    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return structure


_converter: Final = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)
_converter.register_structure_hook(str, _strictly(str))
_converter.register_structure_hook(bool, _strictly(bool))


def _read_grants(claim: object) -> Grants:
    if not isinstance(claim, Mapping):
        raise AuthError("the claim 'triows' is not an object")
    for name, value in claim.items():
        if name != "admin" and not isinstance(value, list):
            raise AuthError(f"the claim 'triows.{name}' is not a list of patterns")
    try:
        claims = _converter.structure(claim, _GrantClaims)
        return Grants(
            Patterns.parse(claims.subscribe),
            Patterns.parse(claims.publish),
            Patterns.parse(claims.command),
            Patterns.parse(claims.presence),
            claims.admin,
        )
    except (ValueError, TypeError, cattrs.ForbiddenExtraKeysError) as error:
        raise AuthError(f"the claim 'triows' is wrong: {error}") from None


def _is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8: JSON can hold halves of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_time(value: object) -> bool:
    """Whether `value` can be seconds since 1970."""
    return type(value) in (int, float) and -_FOREVER < value < _FOREVER  # type: ignore[operator]


def _read_identity(claims: dict[str, Any]) -> Identity:
    user, expires_at = claims["sub"], claims["exp"]
    if not isinstance(user, str) or not 0 < len(user) <= 255 or not _is_text(user):
        raise AuthError("'sub' must be a string of 1 to 255 characters")
    issued_at, token_id = claims.get("iat"), claims.get("jti")
    for name in ("exp", "iat", "nbf"):
        if claims.get(name) is not None and not _is_time(claims[name]):
            raise AuthError(f"'{name}' must be a number")
    if token_id is not None and not isinstance(token_id, str):
        raise AuthError("'jti' must be a string")
    grants = _read_grants(claims.get("triows", {}))
    others = {name: value for name, value in claims.items() if name not in _REGISTERED}
    return Identity(user, float(expires_at), grants, token_id, issued_at, others)


@final
class JWTAuth:
    """Believes tokens signed with one secret, one public key, or a key of one key set.

    Args:
        secret: HMAC secret, at least 32 bytes; text counts as UTF-8.
        public_key: PEM text of an RSA, EC or Ed25519 public key.
        jwks_url: http(s) address of a JSON Web Key Set.
        algorithms: those allowed, all of one family; None means the usual one of the key.
        issuer: required `iss`; None means not checked.
        audience: required `aud`; None means not checked.

    Raises:
        ConfigError: none or several keys, a weak or unfit one, algorithms of another family.
    """

    def __init__(
        self,
        secret: str | bytes | None = None,
        *,
        public_key: str | bytes | None = None,
        jwks_url: str | None = None,
        algorithms: Iterable[str] | None = None,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        if sum(source is not None for source in (secret, public_key, jwks_url)) != 1:
            raise ConfigError("exactly one of a secret, a public key and a JWKS address is needed")
        allowed = tuple(algorithms or ())
        self._key: object | None = None
        self._keys: KeySet | None = None
        if secret is not None:
            self._key = check_secret(secret)
            kind: str = "secret"
        elif public_key is not None:
            self._key = load_public_key(public_key)
            kind = key_kind(self._key)
        else:
            kind = family_of(allowed or ("RS256",))
            self._keys = KeySet(str(jwks_url), kind, list(allowed or (DEFAULT_ALGORITHM[kind],)))
        self._algorithms = list(allowed or (DEFAULT_ALGORITHM[kind],))
        foreign = set(self._algorithms) - FAMILIES[kind]
        if foreign:
            raise ConfigError(
                f"auth.algorithms: {', '.join(sorted(foreign))} cannot be used with a key of "
                f"the kind {kind!r}; allowed: {', '.join(sorted(FAMILIES[kind]))}"
            )
        if self._key is not None:
            check_strength(self._key, self._algorithms)
        self._issuer = issuer or None
        self._audience = audience or None

    @classmethod
    def from_settings(cls, settings: AuthSettings) -> JWTAuth:
        """Make one from the section `auth`, reading the files it names.

        Raises:
            ConfigError: nothing is configured, or a file cannot be read.
        """
        if not (settings.secret_file or settings.public_key_file or settings.jwks_url):
            raise ConfigError(
                "no key to check tokens with: set auth.secret_file, auth.public_key_file or "
                "auth.jwks_url (or use --dev for a first look)"
            )
        secret = read_key_file("secret_file", settings.secret_file)
        return cls(
            secret.strip() if secret is not None else None,
            public_key=read_key_file("public_key_file", settings.public_key_file),
            jwks_url=settings.jwks_url or None,
            algorithms=settings.algorithms,
            issuer=settings.issuer,
            audience=settings.audience,
        )

    async def verify(self, token: str) -> Identity:
        """Return whose token it is. Waits only when a key set has to be fetched.

        Raises:
            AuthError: not a token, not signed by the key, expired, or a claim is wrong.
        """
        if len(token) > MAX_TOKEN:
            raise AuthError(f"the token has {len(token)} bytes; the limit is {MAX_TOKEN}")
        try:
            key = await self._key_for(token)
            claims = jwt.decode(
                token,
                key,  # type: ignore[arg-type]  # one of PyJWT's own key classes
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._audience is not None,
                    "verify_iat": False,  # a clock a second off is no reason to refuse
                },
            )
        except jwt.PyJWTError as error:
            raise AuthError(_why(error)) from None
        except (ArithmeticError, ValueError, TypeError, RecursionError):
            raise AuthError("not a JSON Web Token") from None
        return _read_identity(claims)

    async def _key_for(self, token: str) -> object:
        if self._keys is None:
            return self._key
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._algorithms:
            raise AuthError(f"the algorithm is not one of {', '.join(self._algorithms)}")
        return await self._keys.find(header.get("kid"))


def _why(error: jwt.PyJWTError) -> str:
    """Say which check failed, in words that hold nothing of the token."""
    match error:
        case jwt.ExpiredSignatureError():
            return "the token has expired; ask for a new one"
        case jwt.MissingRequiredClaimError():
            return f"the token lacks {error.claim!r}"
        case jwt.InvalidAlgorithmError():
            return "the token's algorithm is not allowed here"
        case jwt.InvalidSignatureError():
            return "the token's signature is wrong"
        case jwt.InvalidAudienceError():
            return "the token is for another audience"
        case jwt.InvalidIssuerError():
            return "the token is of another issuer"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet"
        case _:
            return "not a valid token"


def make_token(
    secret: str | bytes,
    sub: str,
    *,
    ttl: float = 3600,
    subscribe: Iterable[str] = (),
    publish: Iterable[str] = (),
    command: Iterable[str] = (),
    presence: Iterable[str] = (),
    admin: bool = False,
    claims: Mapping[str, Any] | None = None,
    algorithm: str = "HS256",
) -> str:
    """Make a token that `JWTAuth(secret)` believes.

    Args:
        secret: HMAC secret, at least 32 bytes.
        sub: whose it is.
        ttl: seconds until it expires.
        subscribe: channels or patterns it may watch; so for publish, command and presence.
        admin: everything, administration included.
        claims: further claims, such as `iss` and `aud`.
        algorithm: HS256, HS384 or HS512.

    Raises:
        ConfigError: the secret is weak or is a public key.
        ValueError: a pattern or the time is wrong.
    """
    granted = {
        "subscribe": list(subscribe),
        "publish": list(publish),
        "command": list(command),
        "presence": list(presence),
    }
    for patterns in granted.values():
        Patterns.parse(tuple(patterns))
    if not math.isfinite(ttl):
        raise ValueError(f"ttl is {ttl}: a token has to expire")
    now = time.time()
    payload: dict[str, Any] = {
        "sub": sub,
        "iat": round(now, 3),
        "exp": int(now + ttl),
        "jti": str(uuid.uuid4()),
        "triows": {name: patterns for name, patterns in granted.items() if patterns},
        **(claims or {}),
    }
    if admin:
        payload["triows"]["admin"] = True
    if algorithm not in FAMILIES["secret"]:
        raise ConfigError(f"a token cannot be signed with a secret and {algorithm}")
    key = check_secret(secret)
    check_strength(key, [algorithm])
    return jwt.encode(payload, key, algorithm=algorithm)
