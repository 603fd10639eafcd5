"""`triows why`, `triows revoke`, `triows drain`: what an administrator asks and does."""

from __future__ import annotations

import time
from typing import Any, Final

import triows
from triows.cli.api import Api
from triows.cli.output import harmless, styled
from triows.cli.units import ago, amount, size

ID_LENGTH: Final = 36
"""Characters of a connection's id."""


async def why(api: Api, connection: str, *, colour: bool) -> int:
    """Print why a connection was closed, or how it is doing; return the exit status.

    Args:
        connection: its id; or the first characters of it, if it is one of the server asked and no
            other begins so.
    """
    # A whole id is looked for on all servers.
    id_ = connection if len(connection) == ID_LENGTH else await _find(api, connection)
    answer = await api.get(f"/api/connections/{id_}")
    lines = _closed(answer) if answer["state"] == "closed" else _still_open(answer)
    for name, value in lines:
        print(f"{styled(f'{name:>10}', 'dim', colour=colour)}  {harmless(value, colour=False)}")
    return 0


async def _find(api: Api, beginning: str) -> str:
    everyone = await api.get("/api/connections")
    ids = [one["id"] for one in everyone["open"]] + [
        one["last"]["id"] for one in everyone["closed"]
    ]
    found = [id_ for id_ in ids if id_.startswith(beginning)]
    if len(found) == 1 or beginning in found:
        return beginning if beginning in found else found[0]
    if found:
        raise triows.TriowsError(
            f"{len(found)} connections begin with {beginning!r}, such as {found[0]} and {found[1]}"
        )
    raise triows.TriowsError(
        f"no connection {beginning!r}; {len(everyone['open'])} are open and the last "
        f"{len(everyone['closed'])} closed ones are remembered"
    )


def _closed(answer: dict[str, Any]) -> list[tuple[str, str]]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(answer["closed_at"]))
    return [
        ("closed", f"{when}, {ago(time.time() - answer['closed_at'])} ago"),
        ("code", str(answer["code"])),
        ("reason", answer["reason"] or "none given"),
        ("advice", answer["advice"]),
        *_facts(answer["last"]),
    ]


def _still_open(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [("state", answer["state"]), *_facts(answer)]


def _facts(last: dict[str, Any]) -> list[tuple[str, str]]:
    round_trip = last["round_trip"]
    return [
        ("connection", last["id"]),
        ("user", last["user"] or "not told"),
        ("from", last["peer"] or "not known"),
        ("lived", ago(last["age"])),
        ("watched", ", ".join(last["channels"]) or "nothing"),
        ("lag", f"{amount(last['lag'])} messages, {last['lag_seconds']:.1f} s"),
        ("round trip", "not measured" if round_trip is None else f"{round_trip * 1000:.0f} ms"),
        (
            "received",
            f"{amount(last['received_messages'])} messages, {size(last['received_bytes'])}",
        ),
        ("sent", f"{amount(last['sent_messages'])} messages, {size(last['sent_bytes'])}"),
    ]


async def revoke(api: Api, user: str | None, token_id: str | None) -> int:
    """Revoke a user's tokens, or one token; return the exit status."""
    body = {"user": user, "token_id": token_id}
    answer = await api.post(
        "/api/revocations", {name: value for name, value in body.items() if value is not None}
    )
    print(f"revoked; {amount(answer['closed'])} connections were cut at this server")
    return 0


async def drain(api: Api) -> int:
    """Have the server finish: no new connections, and the ones there are sent away in peace."""
    answer = await api.post("/api/drain")
    print(
        f"draining: {amount(answer['connections'])} connections, asked to come back "
        f"within {answer['window']:.1f} s"
    )
    return 0
