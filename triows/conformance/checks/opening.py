"""The opening: what the answer of the upgrade says, and tokens that somebody has forged."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets

import triows
from triows.conformance.matcher import Mismatch, show
from triows.conformance.rig import Rig, check

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@check("Opening")
async def the_key_is_answered(rig: Rig) -> None:
    """`Sec-WebSocket-Accept` is made of our key, as RFC 6455 section 4.2.2 has it."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    _, status, headers, body = await rig.open(rig.token("ann"), {"Sec-WebSocket-Key": key})
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    wanted = base64.b64encode(digest).decode()
    if status != 101 or headers.get("sec-websocket-accept") != wanted:
        raise Mismatch(f"expected 101 with the key {wanted}, got {status} {headers} {show(body)}")


@check("Opening")
async def the_subprotocol_is_chosen(rig: Rig) -> None:
    """Of what a browser offers the server takes `triows.v1`, and never answers with the token."""
    offer = f"triows.v1, bearer.{rig.token('ann')}"
    for headers in (
        {"Sec-WebSocket-Protocol": "triows.v1"},
        {"Sec-WebSocket-Protocol": offer, "Authorization": ""},
    ):
        _, status, answer, body = await rig.open(rig.token("ann"), headers)
        got = answer.get("sec-websocket-protocol")
        if status != 101 or got != "triows.v1":
            raise Mismatch(f"expected 101 with triows.v1, got {status} with {got} {show(body)}")


@check("Tokens")
async def a_token_of_another_key(rig: Rig) -> None:
    """A token that is signed with another secret is refused with 401."""
    forged = triows.make_token(secrets.token_hex(32), "ann", admin=True)
    await _expect_refusal(rig, forged)


@check("Tokens")
async def a_token_without_a_signature(rig: Rig) -> None:
    """A token that says `alg: none` is refused with 401."""
    _, claims, _ = rig.token("ann").split(".")
    await _expect_refusal(rig, f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{claims}.")


@check("Tokens")
async def a_token_whose_claims_were_changed(rig: Rig) -> None:
    """A token with the signature of another is refused with 401."""
    head, claims, signature = rig.token("ann").split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    changed |= {"sub": "root", "triows": {"admin": True}}
    await _expect_refusal(rig, f"{head}.{_encode(changed)}.{signature}")


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def _expect_refusal(rig: Rig, token: str) -> None:
    _, status, _, body = await rig.open(token)
    if status != 401:
        raise Mismatch(f"expected status 401, got {status} {show(body)}")
