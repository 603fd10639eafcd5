"""`triows serve --workers`: processes on one port, replaced when they die, and none left over."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triows
from tests.support import SECRET, Peer, request_head
from tests.support_client import CHANNEL, Command, cli
from tests.support_ports import free_port
from tests.support_workers import ALONE, children, is_alive, logged, program, wait
from triows.cli import workers
from triows.cli.serve import DRAINING
from triows.cli.worker import Job

pytestmark = pytest.mark.slow

TWO = ("serve", "--dev", "--workers", "2", "--server.port", "0")


async def _up(command: Command) -> tuple[str, str, set[int]]:
    """Return address, a token and the workers, once they are all up."""
    url = (await command.says(r"listens on (ws://\S+), 2 workers"))[1]
    speak = (await command.says(r"publish session:demo hello .*--token (\S+)", "out"))[1]
    found = children(command.process.pid)
    assert len(found) == 2
    return url, speak, found


async def _greeted(url: str, token: str) -> None:
    """Open a connection, and close it."""
    async with triows.open_client(url, token=token) as client:
        await client.request(triows.Message("ping"))


async def test_connections_are_spread() -> None:
    """Every worker gets connections of the one port, and each log line says whose it is."""
    async with program(ALONE, *TWO) as command:
        url, token, _ = await _up(command)
        seen: set[int] = set()
        while seen != {1, 2}:
            await _greeted(url, token)
            seen = {line["worker"] for line in logged(command) if "connection" in line}
        assert command.err.count("listens on") == 1


@pytest.mark.slow
async def test_killed_worker_is_replaced() -> None:
    """The other serves on, what happened is told, and soon there are two again."""
    async with program(ALONE, *TWO) as command:
        url, token, before = await _up(command)
        for victim in sorted(before):
            signal_ = signal.SIGKILL if victim == min(before) else signal.SIGSEGV
            os.kill(victim, signal_)
            await command.says(rf"worker \d was killed by {signal_.name} after \S+ s; replaced in")
            await _greeted(url, token)
        await wait(lambda: len(children(command.process.pid) - before) == 2)
        command.process.terminate()
        assert await command.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_all(number: signal.Signals) -> None:
    """It ends with 0, after all workers have, and says so once."""
    async with program(ALONE, *TWO) as command:
        _, _, before = await _up(command)
        command.process.send_signal(number)
        assert await command.ended() == 0
        assert not any(map(is_alive, before))
        assert command.err.count("draining") == 1
        assert command.err.endswith("drained\n")
        assert "Traceback" not in command.err


async def test_signal_while_they_start() -> None:
    """Workers that were not up yet end as well."""
    async with program(ALONE, *TWO) as command:
        await wait(lambda: len(children(command.process.pid)) == 2)
        command.process.terminate()
        assert await command.ended() == 0
        assert "Traceback" not in command.err
        assert "replaced" not in command.err


@pytest.mark.slow
async def test_second_signal_aborts_all() -> None:
    """A viewer that reads nothing holds one worker up; the second signal does not wait."""
    async with program(ALONE, *TWO) as command:
        url, token, before = await _up(command)
        stalled = Peer(await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2][:-3])))
        await stalled.send(request_head(token))
        await stalled.response()
        await stalled.hear()
        await stalled.ask("subscribe", id="1", channel=CHANNEL)
        for number in range(9):
            await stalled.say("log", channel=CHANNEL, data="x" * 900_000, id=str(number))
        command.process.terminate()
        await command.says("draining")
        await wait(lambda: sum(map(is_alive, before)) == 1)
        command.process.terminate()
        assert await command.ended() == 1
        assert not any(map(is_alive, before))
        assert "aborted" in command.err
        await stalled.stream.aclose()


@pytest.mark.slow
async def test_parent_killed() -> None:
    """Its workers notice, drain, and end."""
    async with program(ALONE, *TWO) as command:
        _, _, before = await _up(command)
        command.process.kill()
        await wait(lambda: not any(map(is_alive, before)))


@pytest.mark.slow
async def test_administrator_drains_all() -> None:
    """What one worker was asked over its port, all do."""
    async with program(ALONE, *TWO) as command:
        url, _, before = await _up(command)
        admin = (await command.says(r"top --url \S+ --token (\S+)", "out"))[1]
        async with cli("drain", "--url", url, "--token", admin) as drain:
            assert await drain.ended() == 0
        assert await command.ended() == 0
        assert not any(map(is_alive, before))
        assert "drained" in command.err


@pytest.mark.slow
async def test_port_of_each_worker() -> None:
    """`server.worker_port` gives each a port of its own, beside the one they share."""
    own = free_port(2)
    async with program(ALONE, *TWO, "--server.worker-port", own) as command:
        _, token, _ = await _up(command)
        for number in (1, 2):
            await _greeted(f"ws://127.0.0.1:{own + number - 1}/ws", token)
            await command.says(f'"worker": {number}\\b')
        assert _ended_at(command) == [1, 2]


def _ended_at(command: Command) -> list[int]:
    """Return the worker of each connection that has ended."""
    return [line["worker"] for line in logged(command) if "connection" in line]


@pytest.mark.parametrize("store", ["memory://", "sqlite:///here.db"])
async def test_store_that_cannot_be_shared(store: str) -> None:
    """Refused at once, saying why and what to do."""
    async with cli(*TWO, "--store", store) as command:
        assert await command.ended() == 2
    assert command.err.count("\n") == 1
    assert store in command.err
    assert "--store redis://" in command.err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--auth.secret-file", "not there"), "not there"),
        (("--dev", "--server.tls-cert", "no", "--server.tls-key", "no"), "server.tls_cert no"),
    ],
)
async def test_worker_that_cannot_start(flags: tuple[str, ...], reason: str) -> None:
    """What one says is said once, and it ends with 2."""
    two = ("serve", "--workers", "2", "--server.port", "0")
    async with program(ALONE, *two, *flags) as command:
        assert await command.ended() == 2
    assert command.err.count("\n") == 1
    assert reason in command.err


@pytest.mark.slow
async def test_port_of_somebody_else() -> None:
    """Neither a server alone nor other workers lose connections to ours."""
    async with program(ALONE, *TWO) as first:
        url, _, _ = await _up(first)
        port = url.split(":")[2][:-3]
        async with program(ALONE, *TWO[:-1], port) as second:
            assert await second.ended() == 2
        assert f"port {port}" in second.err


async def test_gives_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers that die at once are replaced some times; then it is over, with the reason."""
    monkeypatch.setattr(workers, "COMMAND", ("false",))
    monkeypatch.setattr(workers, "SHORTEST", 0.001)
    with pytest.raises(triows.TriowsError, match="has died 5 times"):
        await workers.Workers([_job(1), _job(2)]).run()
    said = capsys.readouterr().err  # either may be the first to have died so often
    assert max(said.count(f"worker {number} ended with 1 after") for number in (1, 2)) >= 4


async def test_signal_while_giving_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not have those drain who are being ended already."""
    monkeypatch.setattr(workers, "COMMAND", ("false",))
    monkeypatch.setattr(workers, "SHORTEST", 0.001)
    giving_up = workers.Workers._failure_by

    def planted(self: workers.Workers, worker: workers.Worker, how: str) -> Any:
        failure = giving_up(self, worker, how)
        if failure is not None:
            os.kill(os.getpid(), signal.SIGTERM)
        return failure

    monkeypatch.setattr(workers.Workers, "_failure_by", planted)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes again if nobody took it
    try:
        with pytest.raises(triows.TriowsError, match="has died 5 times"):
            await workers.Workers([_job(1), _job(2)]).run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert DRAINING not in capsys.readouterr().err


async def test_gives_up_once(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    """Workers that die for good in the same moment are one error, the first one's."""

    async def die(_: workers.Workers, __: workers.Worker) -> int:
        await trio.lowlevel.checkpoint()
        return 1

    monkeypatch.setattr(workers.Workers, "_run", die)
    with pytest.raises(triows.TriowsError, match="has died 5 times"):
        await workers.Workers([_job(1), _job(2)]).run()


def _job(number: int) -> Job:
    settings = triows.Settings(server=triows.ServerSettings(workers=2, trusted_proxies=("::1",)))
    return Job(number, settings, SECRET, verbose=False)


def test_job_arrives_as_it_was_sent() -> None:
    """The settings go to the worker whole."""
    assert Job.from_json(_job(1).to_json()) == _job(1)


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": 257}, {"worker_port": -1}, {"worker_port": 65535, "workers": 2}],
)
def test_bad_settings(wrong: dict[str, Any]) -> None:
    """Each is named, with what it may be."""
    with pytest.raises(triows.ConfigError, match=r"server\.worker.* must be from"):
        triows.ServerSettings(**wrong)


async def test_setting_in_a_file(tmp_path: Path) -> None:
    """`server.workers` counts as `--workers` does."""
    file = tmp_path / "triows.toml"
    file.write_text("[server]\nworkers = 3\n")  # noqa: ASYNC240
    async with cli("serve", "--dev", "--config", file) as command:
        assert await command.ended() == 2
    assert "server.workers is 3" in command.err
