"""Servers over one Redis, killed one after the other: nobody who watches loses anything."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

import triows
from tests.support import ALL, SECRET
from tests.support_client import Command
from tests.support_redis import Redis
from tests.support_redis import redis as redis
from tests.support_workers import children, is_alive, program, wait

TRIOWS = "from triows.cli import main; main()"
CHANNEL = "session:42"
KILLS = 4


class Watch:
    """What one viewer has got so far."""

    def __init__(self) -> None:
        self.offsets: list[int | None] = []
        self.texts: list[object] = []
        self.gaps = 0

    async def run(self, urls: list[str]) -> None:
        """Watch from the start, until cancelled."""
        token = triows.make_token(SECRET, "viewer", **ALL)
        async with (
            triows.open_client(urls, token=token) as client,
            client.subscribe(CHANNEL, from_start=True) as messages,
        ):
            async for message in messages:
                self.gaps += message.type == "gap"
                self.offsets.append(message.offset)
                self.texts.append(message.data)


async def _publish(urls: list[str], texts: list[str], stop: trio.Event) -> None:
    """Publish numbered messages until told to stop; each is in `texts` once acknowledged."""
    token = triows.make_token(SECRET, "publisher", **ALL)
    async with triows.open_client(urls, token=token) as client:
        while not stop.is_set():
            more = [str(len(texts) + number) for number in range(8)]
            await client.publish_many(CHANNEL, map(triows.log, more))
            texts += more
            await trio.sleep(0.02)


async def _kill_one(command: Command, texts: list[str]) -> None:
    """Kill a worker under load, and wait for what takes its place."""
    wanted = len(texts) + 40
    await wait(lambda: len(texts) >= wanted)
    before = children(command.process.pid)
    os.kill(min(before), signal.SIGKILL)
    await wait(lambda: len(children(command.process.pid) - before) == 1)


@pytest.mark.slow
async def test_workers_killed_in_turn(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Viewers of a worker that is killed go on at another, or at what took its place."""
    monkeypatch.setattr("triows.client.backoff", lambda attempt, wait: max(wait, 0.05))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)  # noqa: ASYNC240
    flags = ("--store", redis.url, "--auth.secret-file", secret, "--server.port", "0")
    unlimited = ("--limits.messages-per-second", "0")
    async with program(TRIOWS, "serve", "--workers", "2", *flags, *unlimited) as command:
        url = (await command.says(r"listens on (ws://\S+), 2 workers"))[1]
        texts: list[str] = []
        watches = [Watch() for _ in range(8)]
        stop = trio.Event()
        async with trio.open_nursery() as viewers:
            for watch in watches:
                viewers.start_soon(watch.run, [url])
            async with trio.open_nursery() as publishers:
                publishers.start_soon(_publish, [url], texts, stop)
                for _ in range(KILLS):
                    await _kill_one(command, texts)
                stop.set()
            await wait(lambda: all(len(watch.texts) >= len(texts) for watch in watches))
            viewers.cancel_scope.cancel()
        assert [watch.gaps for watch in watches] == [0] * 8
        for watch in watches:
            assert watch.offsets == list(range(1, len(texts) + 1))
            assert watch.texts == texts
        print(  # noqa: T201 how much was tried is worth knowing
            f"\n{KILLS} workers killed, {len(texts)} messages, {len(watches)} viewers: "
            "lost 0, doubled 0"
        )
        before = children(command.process.pid)
        command.process.terminate()
        assert await command.ended() == 0
        assert not any(map(is_alive, before))
