"""A server killed again and again under load: what it acknowledged is there, once, in order."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support import SECRET
from tests.support_kill import Witness, serving
from tests.support_store import until

ROUNDS = 50
CHANNELS = ("session:one", "session:two", "session:shared", "session:shared")
AT_ONCE = 8  # messages under way from each publisher


@asynccontextmanager
async def _server(
    options: Sequence[str], witness: Witness, ending: signal.Signals
) -> AsyncIterator[None]:
    """Run a server that the clients use, and end it by a signal."""
    async with serving(*options) as (process, port):
        witness.add(port)
        yield
        witness.remove(port)
        process.send_signal(ending)
        await process.wait()


def _stored(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Return offset and text of every message in the file, by channel."""
    connection = sqlite3.connect(path)
    found: dict[str, list[tuple[int, str]]] = {}
    rows = connection.execute(
        "SELECT name, offset, text FROM messages JOIN channels ON channel = id"
        " WHERE name LIKE 'session:%' ORDER BY name, offset"
    )
    for name, offset, text in rows:
        found.setdefault(name, []).append((offset, json.loads(text)["data"]))
    connection.close()
    return found


def _check_order(messages: list[tuple[int, str]]) -> None:
    """Offsets count from 1, and what each publisher said is there once and in order."""
    assert [offset for offset, _ in messages] == list(range(1, len(messages) + 1))
    last: dict[str, int] = {}
    for _, text in messages:
        name, number = text.split()
        assert int(number) == last.get(name, -1) + 1
        last[name] = int(number)


@pytest.mark.slow
async def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 50 times `kill -9` under load every acknowledged message is there, once, in order,
    and every viewer has got each of them once.
    """
    monkeypatch.setattr("triows.client.backoff", lambda attempt, wait: 0.02)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)  # noqa: ASYNC240
    path = tmp_path / "store.db"
    options = (
        *("--store", f"sqlite:///{path}", "--auth.secret-file", str(secret)),
        *("--server.port", "0", "--limits.messages-per-second", "0"),
        *("--log.tail-bytes", "20000"),
    )
    witness, rounds = Witness(AT_ONCE), 0
    began = trio.current_time()
    async with trio.open_nursery() as viewers:
        for channel in sorted(set(CHANNELS)):
            viewers.start_soon(witness.watch, channel)
        async with trio.open_nursery() as publishers:
            for number, channel in enumerate(CHANNELS):
                publishers.start_soon(witness.publish, f"p{number}", channel)
            while rounds < ROUNDS:
                async with _server(options, witness, signal.SIGKILL):
                    wanted = len(witness.acknowledged) + 4 * AT_ONCE
                    await until(partial(witness.has_acknowledged, wanted), seconds=60)
                    await trio.sleep(random.uniform(0, 0.1))
                rounds += 1
            witness.stop.set()
            publishers.start_soon(_serve_last, options, witness, viewers)
    spent = trio.current_time() - began
    stored = _stored(path)
    print(  # noqa: T201 how much was tried is worth knowing
        f"\n{rounds} kills in {spent:.0f} s, {len(witness.acknowledged)} messages acknowledged, "
        f"{sum(map(len, stored.values()))} stored, {witness.connections} connections"
    )
    for messages in stored.values():
        _check_order(messages)
    for (channel, text), offset in witness.acknowledged.items():
        assert stored[channel][offset - 1] == (offset, text)
    assert sum(map(len, stored.values())) == len(witness.acknowledged)
    for channel, heard in witness.heard:
        assert heard == stored[channel]
    assert witness.gaps == []


async def _serve_last(options: Sequence[str], witness: Witness, viewers: trio.Nursery) -> None:
    """Run the server until all is acknowledged and heard; then drain it."""
    async with _server(options, witness, signal.SIGTERM):
        await until(lambda: not witness.publishing, seconds=60)
        await until(lambda: witness.heard_count == len(witness.acknowledged), seconds=60)
    viewers.cancel_scope.cancel()
