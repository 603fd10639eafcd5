"""A token that is revoked or expires while its request is under way is worth nothing any more."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import ALL, Nursery, memory_server, token
from tests.support_http import ADMIN, A, Caller, ask, head_of

BODIES = {
    f"{A}/messages": b'{"type":"log"}',
    f"{A}/end": b"{}",
    "/api/revocations": b'{"user":"ann"}',
}


@pytest.mark.parametrize("path", BODIES)
async def test_revoked_while_the_body_comes(
    nursery: Nursery, autojump_clock: MockClock, path: str
) -> None:
    """Nothing is done by it: neither published nor revoked."""
    body = BODIES[path]
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.peer.send(head_of("POST", path, body, ADMIN) + body[:1])
        await wait_all_tasks_blocked()
        await server.revoke(user="root")
        await caller.peer.send(body[1:])
        answer = await caller.hear()
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert server.statistics().published == 0
        ann = await ask(server, nursery, "GET", "/api/channels", bearer=token("ann", **ALL))
        assert ann.status == 200


async def test_expired_while_the_body_comes(
    nursery: Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts when the request is carried out, not when its head came."""
    path, body = f"{A}/messages", b'{"type":"log"}'
    bearer = token("me", ttl=10, **ALL)
    async with memory_server() as server:
        caller = Caller(server, nursery)
        await caller.peer.send(head_of("POST", path, body, bearer) + body[:1])
        await wait_all_tasks_blocked()
        later = time.time() + 11
        monkeypatch.setattr(time, "time", lambda: later)
        await caller.peer.send(body[1:])
        assert (await caller.hear()).status == 401
        assert server.statistics().published == 0


@pytest.mark.parametrize(
    "path", [A, f"{A}/presence", f"{A}/messages", f"{A}/events", "/api/channels"]
)
async def test_revoked_while_the_authorizer_thinks(
    nursery: Nursery, autojump_clock: MockClock, path: str
) -> None:
    """Nothing is told to it."""
    decided = trio.Event()

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
        await decided.wait()
        return True

    async with memory_server(authorize=authorize) as server:
        await server.publish("session:1", triows.log("secret"))
        caller = Caller(server, nursery)
        await caller.send("GET", path)
        await wait_all_tasks_blocked()
        await server.revoke(user="me")
        decided.set()
        answer = await caller.hear()
        assert (answer.status, answer.code) == (401, "unauthorized")
