"""In which order the requests of a connection are answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import CLOSE, Nursery, connect, frame, memory_server
from triows.bus import store
from triows.codec import encode_json

CHANNEL = "session:1"


async def slow(work: Callable[..., Any], *values: Any, limiter: Any = None) -> Any:
    """Do in the main thread, after a second, what is meant for another."""
    await trio.sleep(1)
    return work(*values)


async def shielded(work: Callable[..., Any], *values: Any, limiter: Any = None) -> Any:
    """The same, finished once it is begun, cancelled or not: as a thread does it."""
    with trio.CancelScope(shield=True):
        return await slow(work, *values)


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "ping"},
        {"type": "history", "channel": CHANNEL},
        {"type": "subscribe", "channel": "nonsense"},
        {"type": "log", "channel": "nonsense"},
        {"type": 1},
    ],
    ids=["ping", "history", "refused", "refused log", "malformed"],
)
async def test_answers_come_in_order_from_a_slow_disk(
    nursery: Nursery,
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: dict[str, Any],
) -> None:
    """No answer overtakes the `ack` to a message published before it, which waits for the disk."""
    monkeypatch.setattr(store, "in_thread", slow)
    async with memory_server(store=f"sqlite:///{tmp_path / 'store.db'}") as server:
        peer = await connect(server, nursery)
        await peer.say("log", id="1", channel=CHANNEL, data="first")
        await peer.send(frame(encode_json({**request_, "id": "2"})))
        first, second = await peer.hear(), await peer.hear()

        assert (first["type"], first["id"]) == ("ack", "1")
        assert second.get("id") in ("2", None)
        if request_["type"] == "history":
            assert [message["data"] for message in second["data"]["messages"]] == ["first"]
        await trio.aclose_forcefully(peer.stream)


async def test_message_without_id_is_waited_for_too(
    nursery: Nursery, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history that was asked for after a message was published has it, acknowledged or not."""
    monkeypatch.setattr(store, "in_thread", slow)
    async with memory_server(store=f"sqlite:///{tmp_path / 'store.db'}") as server:
        peer = await connect(server, nursery)
        await peer.say("log", channel=CHANNEL, data="first")
        answer = await peer.ask("history", id="2", channel=CHANNEL)

        assert answer["data"]["offset"] == 1
        await trio.aclose_forcefully(peer.stream)


@pytest.mark.parametrize("what", ["history", "subscribe"])
async def test_revoked_gets_no_late_answer(
    nursery: Nursery,
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """Who is revoked while the disk reads for them is told nothing of what it has."""
    monkeypatch.setattr(store, "in_thread", shielded)
    async with memory_server(store=f"sqlite:///{tmp_path / 'store.db'}") as server:
        peer = await connect(server, nursery)
        await peer.say(what, id="1", channel=CHANNEL)
        await wait_all_tasks_blocked()
        await server.revoke(user="me")

        assert (await peer.receive())[0] == CLOSE
        await trio.aclose_forcefully(peer.stream)
