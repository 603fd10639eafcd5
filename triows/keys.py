"""The keys that tokens are checked with: a secret, a public key, or a set behind an address.

They come from the configuration only. A key is of one family, and a family's algorithms are the
only ones it is ever used with.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable
from functools import partial
from typing import Final
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import trio
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWKSet

from triows.errors import AuthError, ConfigError

logger = logging.getLogger("triows.auth")

_PUBLIC: Final = re.compile(
    # The words alone: armour with a dash less, or in other letters, is no better a secret.
    rb"(?:BEGIN|END) [A-Z0-9 ]{0,40}(?:PUBLIC KEY|PRIVATE KEY|CERTIFICATE)"
    rb"|\A\s*(?:ssh-|ecdsa-|sk-|[\[{])",
    re.IGNORECASE,
)
MIN_SECRET: Final = 32  # bytes, the size of the hash (RFC 7518 section 3.2)
MIN_RSA: Final = 2048  # bits (NIST SP 800-131A)
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
MAX_KEY_SET: Final = 256 * 1024  # bytes of a key set that is read
KEY_SET_TIMEOUT: Final = 3  # seconds for one fetch
KEY_SET_TTL: Final = 600  # seconds after which the set is fetched again
KEY_SET_FLOOR: Final = 30  # seconds between two fetches, whatever key ids are asked for

FAMILIES: Final = {
    "secret": frozenset({"HS256", "HS384", "HS512"}),
    "rsa": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "ec": frozenset({"ES256", "ES384", "ES512"}),
    "ed25519": frozenset({"EdDSA"}),
}
DEFAULT_ALGORITHM: Final = {"secret": "HS256", "rsa": "RS256", "ec": "ES256", "ed25519": "EdDSA"}


def key_kind(key: object) -> str:
    """Return the family of a public key.

    Raises:
        ConfigError: it is of none that is supported.
    """
    name = type(key).__name__.lower()
    for kind in ("rsa", "ed25519"):
        if kind in name:
            return kind
    if "ellipticcurve" in name or name.startswith("ec"):
        return "ec"
    raise ConfigError(f"a key of the kind {type(key).__name__} is not supported")


def check_secret(secret: str | bytes) -> bytes:
    """Return an HMAC secret that is worth its name.

    Raises:
        ConfigError: it is short, or a public key.
    """
    value = secret.encode() if isinstance(secret, str) else secret
    if _PUBLIC.search(value):
        raise ConfigError(
            "the HMAC secret is a PEM, SSH or JWK key: a public key is no secret; "
            "configure it as auth.public_key_file"
        )
    if len(value) < MIN_SECRET:
        raise ConfigError(
            f"the HMAC secret has {len(value)} bytes; it needs {MIN_SECRET} or more "
            "(openssl rand -hex 32 makes one)"
        )
    return value


def check_strength(key: object, algorithms: Iterable[str]) -> None:
    """Check that a key is long enough, and of the kind its algorithms need.

    Raises:
        ConfigError: it is not.
    """
    for algorithm in algorithms:
        bits = int(algorithm[2:]) if algorithm[2:].isdecimal() else 0
        if isinstance(key, bytes) and algorithm.startswith("HS") and len(key) * 8 < bits:
            raise ConfigError(
                f"the HMAC secret has {len(key)} bytes; {algorithm} needs {bits // 8} or more"
            )
        if isinstance(key, EllipticCurvePublicKey) and _CURVES.get(algorithm) != key.curve.name:
            raise ConfigError(
                f"a key on the curve {key.curve.name} cannot be used with {algorithm}"
            )
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA:
        raise ConfigError(f"the RSA key has {key.key_size} bits; it needs {MIN_RSA} or more")


def load_public_key(pem: str | bytes) -> object:
    """Read a PEM public key.

    Raises:
        ConfigError: it is none.
    """
    try:
        return load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except ValueError as error:
        raise ConfigError(f"the public key is not a PEM public key: {error}") from None


def family_of(algorithms: Iterable[str]) -> str:
    """Return the one family of public keys that all of `algorithms` belong to.

    Raises:
        ConfigError: there is none.
    """
    for kind, family in FAMILIES.items():
        if kind != "secret" and set(algorithms) <= family:
            return kind
    raise ConfigError(
        f"auth.algorithms: {', '.join(algorithms)} are not all of one family that a key set "
        "may hold (RSA, EC or EdDSA)"
    )


def read_key_file(name: str, path: str) -> bytes | None:
    """Return what the file that the setting auth.`name` points to holds; None if it is not set.

    Raises:
        ConfigError: the file cannot be read.
    """
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError as error:
        raise ConfigError(f"auth.{name}: cannot read {path}: {error.strerror}") from None


class KeySet:
    """The keys behind an address, fetched when needed and kept when fetching fails.

    A set is one issuer's and one family's, so that a key id cannot mean somebody else's key.
    """

    def __init__(self, url: str, kind: str, algorithms: list[str]) -> None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("https", "http") and parts.hostname and (parts.port or 1)
        except ValueError:
            valid = False
        if not valid or not url.isascii() or " " in url:
            raise ConfigError(f"auth.jwks_url: {url!r} is not an http(s) address")
        self._url = url
        self._kind = kind
        self._algorithms = algorithms
        self._keys: dict[str | None, object] = {}
        self._fetched_at = -math.inf
        self._lock = trio.Lock()

    async def find(self, key_id: str | None) -> object:
        """Return the key named `key_id`, fetching the set if it is old or lacks it."""
        if not isinstance(key_id, str | None):
            raise AuthError("'kid' must be a string")
        if self._is_due(key_id):
            async with self._lock:
                if self._is_due(key_id):  # somebody may have fetched it while we waited
                    await self._fetch()
                    self._fetched_at = time.monotonic()
        try:
            return self._keys[key_id]
        except KeyError:
            raise AuthError("the token is signed with a key that is not known here") from None

    def _is_due(self, key_id: str | None) -> bool:
        age = time.monotonic() - self._fetched_at
        return age > KEY_SET_TTL or (key_id not in self._keys and age > KEY_SET_FLOOR)

    async def _fetch(self) -> None:
        try:
            text = await trio.to_thread.run_sync(
                partial(_download, self._url), abandon_on_cancel=True
            )
            fetched = {
                key.key_id: key.key
                for key in PyJWKSet.from_json(text.decode()).keys
                if self._is_usable(key)
            }
        except Exception as error:  # whatever that address may answer: the old keys stay
            logger.warning("cannot fetch the key set %s: %r", self._url, error)
            return
        self._keys = dict(fetched)
        if len(fetched) == 1:  # a set of one needs no key id
            self._keys[None] = next(iter(fetched.values()))

    def _is_usable(self, key: PyJWK) -> bool:
        if key.public_key_use not in (None, "sig"):
            return False
        try:
            check_strength(key.key, self._algorithms)
            return key_kind(key.key) == self._kind
        except ConfigError:
            return False


def _download(url: str) -> bytes:
    with urlopen(Request(url), timeout=KEY_SET_TIMEOUT) as response:  # noqa: S310 checked above
        text: bytes = response.read(MAX_KEY_SET + 1)
    if len(text) > MAX_KEY_SET:
        raise ValueError(f"the key set has more than {MAX_KEY_SET} bytes")
    return text
