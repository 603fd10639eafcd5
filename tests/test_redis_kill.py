"""Two servers and their Redis killed in turn under load: all is there, once, and heard once."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support import SECRET
from tests.support_kill import Witness, check_places, serving
from tests.support_redis import Redis, until
from tests.support_redis import durable_redis as durable_redis

ROUNDS = 50
REDIS_EVERY = 5  # rounds in which Redis is killed instead of a server
CHANNELS = ("session:one", "session:two", "session:shared", "session:shared")
AT_ONCE = 8  # messages under way from each publisher


class Servers:
    """Two servers on one Redis, one of which is killed now and then."""

    def __init__(self, redis: Redis, secret: Path, witness: Witness) -> None:
        self.kills = [0, 0]
        self._witness = witness
        self._options = (
            *("--store", redis.url, "--auth.secret-file", str(secret), "--server.port", "0"),
            *("--limits.messages-per-second", "0", "--log.tail-bytes", "20000"),
        )
        self._kill = [trio.Event(), trio.Event()]
        self._up = [trio.Event(), trio.Event()]

    async def run(self, number: int) -> None:
        """Run one server, and again when it was killed."""
        while True:
            async with serving(*self._options) as (process, port):
                self._witness.add(port)
                self._up[number].set()
                await self._kill[number].wait()
                process.kill()
                await process.wait()
                self._witness.remove(port)
            self._kill[number] = trio.Event()

    async def kill(self, number: int) -> None:
        """Kill one server, as soon as it is up."""
        await self._up[number].wait()
        self._up[number] = trio.Event()
        self.kills[number] += 1
        self._kill[number].set()


@pytest.mark.slow
async def test_killed_in_turn(
    durable_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 50 times `kill -9` under load, of either server and of Redis, every acknowledged
    message is there, once, and every viewer has got each of them once.
    """
    monkeypatch.setattr("triows.client.backoff", lambda attempt, wait: 0.02)
    redis, witness = durable_redis, Witness(AT_ONCE)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)  # noqa: ASYNC240
    servers = Servers(redis, secret, witness)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(servers.run, number)
        for channel in sorted(set(CHANNELS)) * 2:
            nursery.start_soon(witness.watch, channel)
        async with trio.open_nursery() as publishers:
            for number, channel in enumerate(CHANNELS):
                publishers.start_soon(witness.publish, f"p{number}", channel)
            await _kill_in_turn(redis, servers, witness)
            witness.stop.set()
        await until(partial(_all_heard, witness), seconds=60)
        nursery.cancel_scope.cancel()
    stored = _stored(redis)
    print(  # noqa: T201 how much was tried is worth knowing
        f"\n{ROUNDS} kills (servers {servers.kills}, Redis {ROUNDS // REDIS_EVERY}) in "
        f"{trio.current_time() - began:.0f} s, {len(witness.acknowledged)} messages acknowledged, "
        f"{sum(map(len, stored.values()))} stored, {witness.heard_count} heard, "
        f"{witness.connections} connections"
    )
    for messages in stored.values():
        check_places(messages, AT_ONCE)
    for (channel, text), offset in witness.acknowledged.items():
        assert stored[channel][offset - 1] == (offset, text)
    assert sum(map(len, stored.values())) == len(witness.acknowledged)
    for channel, heard in witness.heard:
        assert heard == stored[channel]
    assert witness.gaps == []


async def _kill_in_turn(redis: Redis, servers: Servers, witness: Witness) -> None:
    for number in range(ROUNDS):
        wanted = len(witness.acknowledged) + 4 * AT_ONCE
        await until(partial(_has_acknowledged, witness, wanted), seconds=60)
        await trio.sleep(random.uniform(0, 0.1))
        if number % REDIS_EVERY == REDIS_EVERY - 1:
            redis.kill()
            redis.start()
        else:
            await servers.kill(number % 2)


def _has_acknowledged(witness: Witness, count: int) -> bool:
    return len(witness.acknowledged) >= count


def _all_heard(witness: Witness) -> bool:
    return witness.heard_count == 2 * len(witness.acknowledged)


def _stored(redis: Redis) -> dict[str, list[tuple[int, str]]]:
    """Return offset and text of every message in Redis, by channel."""
    found = {}
    for channel in sorted(set(CHANNELS)):
        said = redis.run("--json", "XRANGE", f"triows:{{{channel}}}:stream", "-", "+")
        entries = [json.loads(fields[1]) for _, fields in json.loads(said)]
        found[channel] = [(entry["offset"], entry["data"]) for entry in entries]
    return found
