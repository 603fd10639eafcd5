"""The application's own code: handlers and authorizer, bounded and contained."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import triows
from tests.support import Nursery, connect, memory_server, token
from triows import Request
from triows.connection import HANDLER_QUEUE

A = "session:a"


async def test_command_handler(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A command is published and handled once; what the handler returns is in the `ack`."""
    seen: list[Request] = []

    async def steer(request: Request) -> Any:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return {"done": request.message.data}

    async with memory_server(on_command=steer) as server:
        peer, viewer = await connect(server, nursery), await connect(server, nursery)
        await viewer.ask("subscribe", channel=A)
        ack = await peer.ask("command", id="1", channel=A, data="stop")
        again = await peer.ask("command", id="1", channel=A, data="stop")
        await peer.say("command", channel=A, data="silent")
        (first, second) = await viewer.hear_all()

        assert ack["data"].pop("result") == {"done": "stop"}
        assert ack["data"]["offset"] == again["data"]["offset"] == first["offset"] == 1
        assert second["data"] == "silent"
        assert [r.message.data for r in seen] == ["stop", "silent"]
        assert (seen[0].identity.user, seen[0].connection) == ("me", server.connections()[0].id)
        assert seen[0].position is not None
        assert seen[0].position.offset == 1
        assert await peer.hear_all() == []


async def _raise(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise ValueError("secret detail")


async def _refuse(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise triows.RequestError(triows.ErrorCode.NOT_FOUND, "no such thing")


async def _no_json(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    return {"secret detail": object()}


async def _no_text(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    return "\ud800"


async def _hang(request: Request) -> Any:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "code", "after"),
    [
        (_raise, "handler_failed", 0),
        (_refuse, "not_found", 0),
        (_hang, "handler_failed", 3),
        (_no_json, "handler_failed", 0),
        (_no_text, "handler_failed", 0),
    ],
)
async def test_handler_fails(
    nursery: Nursery, autojump_clock: MockClock, handler: triows.Handler, code: str, after: float
) -> None:
    """A handler that fails is an `error` to who asked, in time, and nothing to anybody else."""
    limits = triows.Limits(handler_timeout=3)
    async with memory_server(limits=limits, handlers={"app": handler}) as server:
        peer, other = await connect(server, nursery), await connect(server, nursery)
        started = trio.current_time()
        await peer.say("app", id="1")
        assert (await other.ask("ping"))["type"] == "pong"
        error = await peer.hear()

        assert (error["id"], error["data"]["code"]) == ("1", code)
        assert error["data"]["retry"] is False
        assert trio.current_time() - started == pytest.approx(after)
        assert "secret detail" not in str(error)
        assert (await peer.ask("ping"))["type"] == "pong"


async def test_custom_types(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A type of the application's own is handled, acknowledged if it has an id, not published."""

    async def answer(request: Request) -> Any:
        await trio.lowlevel.checkpoint()
        assert request.position is None
        return [request.message.data, request.message.channel]

    async with memory_server(handlers={"app": answer}) as server:
        peer = await connect(server, nursery)
        before = server.statistics().published
        await peer.say("app", data="silent")
        ack = await peer.ask("app", id="1", channel=A, data=7)
        assert (ack["type"], ack["id"], ack["data"]) == ("ack", "1", [7, A])
        assert server.statistics().published == before


async def test_too_many_wait_for_the_handler(nursery: Nursery, autojump_clock: MockClock) -> None:
    """While the application is slow a client may have some messages wait, not endlessly many."""
    go_on = trio.Event()

    async def slow(request: Request) -> Any:
        await go_on.wait()

    async with memory_server(handlers={"app": slow}) as server:
        peer = await connect(server, nursery)
        for i in range(40):
            await peer.say("app", id=str(i))
        errors = await peer.hear_all()
        go_on.set()
        acks = await peer.hear_all()

        assert {(e["data"]["code"], e["data"]["retry"]) for e in errors} == {("unavailable", True)}
        assert 10 < len(acks) < 20
        assert sorted(int(m["id"]) for m in [*errors, *acks]) == list(range(40))


@pytest.mark.parametrize(
    ("verdict", "bearer", "expected", "after"),
    [
        (True, token("me", publish=["system"]), "ack", 0),
        (False, token(), "error", 0),
        ("yes", token(), "error", 0),
        (ValueError, token(), "error", 0),
        ("hang", token(), "error", 3),
    ],
    ids=range(5),
)
async def test_authorize_replaces_grants(
    nursery: Nursery,
    autojump_clock: MockClock,
    verdict: Any,
    bearer: str,
    expected: str,
    after: float,
) -> None:
    """An application's own check decides; one that fails or does not answer is a no."""
    asked = []

    async def authorize(identity: triows.Identity, action: triows.Action, channel: str) -> bool:
        asked.append((identity.user, action, channel))
        if verdict == "hang":
            await trio.sleep_forever()
        if verdict is ValueError:
            raise ValueError
        return verdict  # type: ignore[no-any-return]

    limits = triows.Limits(handler_timeout=3)
    async with memory_server(limits=limits, authorize=authorize) as server:
        peer = await connect(server, nursery, bearer)
        started = trio.current_time()
        answer = await peer.ask("log", id="1", channel=A)

        assert asked == [("me", "publish", A)]
        assert answer["type"] == expected
        assert expected == "ack" or answer["data"]["code"] == "forbidden"
        assert trio.current_time() - started == pytest.approx(after)


async def test_failed_command_stays_published(nursery: Nursery, autojump_clock: MockClock) -> None:
    """A command whose handler fails is published all the same, and is not run a second time."""
    runs = []

    async def fail(request: Request) -> Any:
        runs.append(request.message.id)
        return await _no_json(request)

    async with memory_server(on_command=fail) as server:
        peer = await connect(server, nursery)
        error = await peer.ask("command", id="1", channel=A)
        again = await peer.ask("command", id="1", channel=A)
        assert (error["id"], error["data"]["code"]) == ("1", "handler_failed")
        assert (again["type"], again["data"]["offset"]) == ("ack", 1)
        assert runs == ["1"]


@pytest.mark.parametrize("renew", [False, True])
async def test_command_that_finds_the_queue_full(
    nursery: Nursery, autojump_clock: MockClock, renew: bool
) -> None:
    """It is refused before it is published; sent again with the same id later, it is run."""
    go_on = trio.Event()
    runs = []

    async def slow(request: Request) -> Any:
        await go_on.wait()
        runs.append(request.message.id)

    async with memory_server(on_command=slow) as server:
        peer = await connect(server, nursery)
        count = HANDLER_QUEUE + 1  # one of them is being run
        for i in range(count):
            await peer.say("command", id=str(i), channel=A)
            await wait_all_tasks_blocked()
        assert await peer.hear_all() == []
        if renew:  # no kind of message is known to be allowed any more
            await peer.ask("auth", data={"token": token()})
        error = await peer.ask("command", id="late", channel=A, data="stop")
        assert (error["id"], error["data"]["code"]) == ("late", "unavailable")
        assert error["data"]["retry"] is True
        assert (await peer.ask("history", channel=A))["data"]["offset"] == count
        again = await peer.ask("command", id="0", channel=A)
        assert again["data"]["code"] == "unavailable"

        go_on.set()
        assert len(await peer.hear_all()) == count
        ack = await peer.ask("command", id="late", channel=A, data="stop")
        assert (ack["type"], ack["data"]["offset"]) == ("ack", count + 1)
        assert runs == [*map(str, range(count)), "late"]


async def test_places_in_the_queue_are_given_back(
    nursery: Nursery, autojump_clock: MockClock
) -> None:
    """Commands that are known already, or refused by the log, take no place for long."""

    async def quick(request: Request) -> Any:
        await trio.lowlevel.checkpoint()

    limits = triows.Limits(messages_per_second=0)
    async with memory_server(limits=limits, on_command=quick) as server:
        peer = await connect(server, nursery)
        assert (await peer.ask("command", id="1", channel=A))["type"] == "ack"
        for _ in range(3 * HANDLER_QUEUE):
            assert (await peer.ask("command", id="1", channel=A))["type"] == "ack"
        await server.publish(A, triows.end())
        for _ in range(3 * HANDLER_QUEUE):
            error = await peer.ask("command", id="2", channel=A)
            assert error["data"]["code"] == "ended"
        assert (await peer.ask("command", id="3", channel="session:b"))["type"] == "ack"
