"""The rivals of the benchmarks do the work they are measured by, and their bytes are right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket, socketpair

import pytest

from benchmarks import choice, homes, setup
from benchmarks.candidates import MARKER, SIZE, Candidate, Triows
from benchmarks.floor import Floor
from benchmarks.frames import BINARY, PING, client_frame, mask, server_frame
from benchmarks.load import Asker, Keeper, LoadError, Reader, read_message, send
from benchmarks.opening import Script, close_all, open_all
from benchmarks.process import Server, running
from benchmarks.rivals.brokers import Nats, Nchan
from benchmarks.rivals.socketio import SocketIoOnNode
from benchmarks.workloads import WORKLOADS

RIVALS = homes.ROOT / "benchmarks" / "rivals"
VIEWERS = 3
WINDOW = 8

EVERYBODY: list[Candidate] = [Triows(), Floor(), *choice.RIVALS]
ALWAYS_THERE = [one for one in EVERYBODY if one.home is homes.OWN]
INSTALLED = [one for one in EVERYBODY if not one.missing()]

by_name = pytest.mark.parametrize("candidate", INSTALLED, ids=lambda one: one.name)


@contextmanager
def opened(server: Server, scripts: list[Script]) -> Iterator[list[socket]]:
    """Open connections, and close them in the end."""
    clients = open_all(server.port, scripts)
    try:
        yield clients
    finally:
        close_all(clients)


@pytest.mark.parametrize("candidate", ALWAYS_THERE, ids=lambda one: one.name)
def test_those_in_python_are_tested_everywhere(candidate: Candidate) -> None:
    """The others are where `python -m benchmarks.setup` was run."""
    assert not candidate.missing()
    assert set(candidate.versions()) == set(candidate.packages)


@by_name
def test_every_viewer_gets_every_message(candidate: Candidate) -> None:
    """One alone, then several under way: as many bytes, or markers, as are counted on."""
    with running(candidate.command()) as server:
        scripts = [candidate.publisher(), *[candidate.subscriber()] * VIEWERS]
        with opened(server, scripts) as (publisher, *viewers):
            send(publisher, candidate.message())
            for viewer in viewers:
                payload = read_message(viewer, candidate.pings)
                candidate.check(payload, 1)
            first = len(server_frame(payload))
            growths = (candidate.growth(offset) for offset in range(2, WINDOW + 2))
            size = WINDOW if candidate.packed else sum(first + growth for growth in growths)
            reader = Reader(viewers, candidate.packed)
            send(publisher, candidate.message() * WINDOW)
            reader.wait(size * VIEWERS)


@by_name
def test_every_request_is_answered(candidate: Candidate) -> None:
    """One alone, then several under way: as many markers as are counted on."""
    with running(candidate.command(ping_interval=60)) as server:
        with opened(server, [candidate.asker()] * VIEWERS) as clients:
            sources = [candidate.requests(number) for number in range(VIEWERS)]
            for client, source in zip(clients, sources, strict=True):
                send(client, source(1))
                payload = read_message(client, candidate.pings)
                candidate.check(payload, 1)
                assert payload.count(candidate.marker) == 1
            asker = Asker(clients, candidate.marker, sources, WINDOW)
            asker.start()
            asker.finish()


def test_missing_rival_is_told_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured."""
    monkeypatch.setattr(homes.Node, "version", lambda self, package: None)
    chosen, left_out = choice.choose(["websockets", "ws"])
    assert [candidate.name for candidate in chosen] == ["triows", "websockets"]
    assert left_out == [
        "ws is left out: ws is not installed: `python -m benchmarks.setup` installs it"
    ]


def test_rivals_are_chosen_by_name() -> None:
    """Those named, and triows; all without a name."""
    chosen, left_out = choice.choose(["trio-websocket"])
    assert [candidate.name for candidate in chosen] == ["triows", "trio-websocket"]
    assert left_out == []
    chosen, left_out = choice.choose([])
    assert len(chosen) + len(left_out) == 1 + len(choice.RIVALS)


def payloads(frames: bytes) -> list[bytes]:
    """Take the frames of a client apart."""
    found = []
    while frames:
        length, start = frames[1] & 0x7F, 2
        if length == 126:
            length, start = int.from_bytes(frames[2:4], "big"), 4
        end = start + 4 + length
        found.append(mask(frames[start + 4 : end]))
        frames = frames[end:]
    return found


def test_socket_io_speaks_its_protocol() -> None:
    """Packets as its documentation has them: events, and acknowledgements with their ids."""
    rival = SocketIoOnNode()
    text = MARKER.decode().ljust(SIZE, "x")
    assert payloads(rival.subscriber()[-2][0]) == [b"40"]
    assert payloads(rival.subscriber()[-1][0]) == [b'420["subscribe"]']
    (published,) = payloads(rival.message())
    assert published[:2] == b"42"
    assert json.loads(published[2:]) == ["publish", text]
    asked = payloads(rival.requests(0)(2))
    assert asked == [f'421["echo","{text}"]'.encode()] * 2
    rival.check(f'42["message","{text}"]'.encode(), 1)
    rival.check(f'431["{text}"]'.encode(), 1)
    with pytest.raises(LoadError, match="not what was sent"):
        rival.check(f'430["{text}"]'.encode(), 1)
    assert {ping: payloads(pong) for ping, pong in rival.pings.items()} == {b"2": [b"3"]}


def test_every_package_is_pinned() -> None:
    """Those of Python in one file; those of npm in another, and all they need in its lock."""
    lines = (RIVALS / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\d.]+", package) for package in packages)
    wanted = json.loads((RIVALS / "package.json").read_text())["dependencies"]
    locked = json.loads((RIVALS / "package-lock.json").read_text())["packages"]
    assert wanted == {name: locked[f"node_modules/{name}"]["version"] for name in wanted}
    assert locked[""]["dependencies"] == wanted


def test_what_was_installed_is_left_alone(tmp_path: Path) -> None:
    """Until other versions are pinned, or when it did not come to its end."""
    done: list[Path] = []
    setup.once(done.append, tmp_path, ["one==1"])
    setup.once(done.append, tmp_path, ["one==1"])
    assert done == [tmp_path]
    setup.once(done.append, tmp_path, ["one==2"])
    assert done == [tmp_path] * 2

    def fail(place: Path) -> None:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        setup.once(fail, tmp_path, ["one==3"])
    setup.once(done.append, tmp_path, ["one==2"])
    assert done == [tmp_path] * 3


def test_program_that_does_not_run_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a Bun for another kind of machine."""
    monkeypatch.setattr(homes, "MODULES", tmp_path)
    assert "not installed" in homes.BUN.missing(("bun",))
    program = tmp_path / "@oven" / "bun-linux-other" / "bin" / "bun"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF of another kind")
    program.chmod(0o755)
    assert "not installed" in homes.BUN.missing(("bun",))


def test_nats_speaks_its_protocol() -> None:
    """Commands as its documentation has them, without and with answers to each."""
    rival = Nats()
    text = b"{".ljust(SIZE, b"x")
    assert payloads(rival.subscriber()[-1][0]) == [
        b'CONNECT {"verbose": false, "pedantic": false}\r\nSUB viewer 1\r\nPING\r\n'
    ]
    assert b'"verbose": true' in payloads(rival.asker()[-1][0])[0]
    assert payloads(rival.message()) == [b"PUB viewer 200\r\n" + text + b"\r\n"]
    assert payloads(rival.requests(7)(1)) == [b"PUB ask-7 200\r\n" + text + b"\r\n"]
    rival.check(b"+OK\r\n", 1)
    rival.check(b"MSG viewer 1 200\r\n" + text + b"\r\nPING\r\n", 1)
    with pytest.raises(LoadError, match="not what was sent"):
        rival.check(b"-ERR 'Unknown Protocol Operation'\r\n", 1)


def test_no_frame_of_nats_looks_like_its_markers() -> None:
    """It puts what gathered into one frame: the length of none may hold what is counted."""
    rival = Nats()
    message = b"MSG viewer 1 200\r\n" + b"{".ljust(SIZE, b"x") + b"\r\n"
    rival.check(message, 1)
    for count in range(1, 65):
        assert server_frame(message * count, BINARY).count(rival.packed) == count
        assert server_frame(b"+OK\r\n" * count, BINARY).count(rival.marker) == count
        with_ping = message * count + b"PING\r\n"
        assert server_frame(with_ping, BINARY).count(rival.packed) == count


def test_nchan_answers_with_an_id() -> None:
    """A publisher's answer tells of the channel, and of the message that was published."""
    rival = Nchan()
    answer = b'{"messages": 4, "requested": -1, "subscribers": 0, "last_message_id": "17:3" }'
    rival.check(answer, 1)
    assert answer.count(rival.marker) == 1
    with pytest.raises(LoadError, match="not what was sent"):
        rival.check(b'{"error": "no channel id provided"}', 1)


def test_pings_are_neither_messages_nor_left_alone() -> None:
    """Those of the protocol on top of WebSocket, beside its own."""
    ours, theirs = socketpair()
    with ours, theirs:
        ours.setblocking(False)
        keeper = Keeper({b"2": client_frame(b"3")})
        keeper.add(ours)
        theirs.sendall(server_frame(b"2") + server_frame(b"now", PING) + server_frame(b"text"))
        keeper.serve(0)
        assert keeper.pings == 2
        assert payloads(theirs.recv(1000)) == [b"3", b"now"]
        theirs.sendall(server_frame(b"2") + server_frame(b"text") + server_frame(b"2"))
        assert read_message(ours, {b"2": b""}) == b"text"


def test_long_work_is_done_by_the_leaders_and_who_is_named() -> None:
    """Everything else by all."""
    candidates = [Triows(), *choice.RIVALS]
    assert set(choice.LONG) <= {workload.name for workload in WORKLOADS}
    assert choice.among("fanout-1", candidates, []) == candidates
    found = choice.among("fanout-10000", candidates, [])
    assert [candidate.name for candidate in found] == list(choice.LEADERS)
    assert choice.among("fanout-10000", candidates[:2], ["websockets"]) == candidates[:2]


@pytest.mark.parametrize("candidate", choice.RIVALS, ids=lambda one: one.name)
def test_names_and_programs(candidate: Candidate) -> None:
    """A rival has a server in the tree, and a name of its own."""
    assert choice.NAMES.count(candidate.name) == 1
    assert list((homes.ROOT / "benchmarks/servers").glob(f"{candidate.module}.*"))
