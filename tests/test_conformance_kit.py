"""The conformance kit: our server passes, and a server that errs is told where."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

import triows
from tests.support import CLOSE, SECRET, token
from tests.support_client import cli
from tests.support_conformance import Lie, Sent, bare_kit, kit, lie_about, listening, lying
from triows.conformance.checks import CHECKS
from triows.conformance.vectors import load_cases

pytestmark = pytest.mark.slow

Message = dict[str, Any]


@pytest.mark.slow
async def test_triows_serve_passes(tmp_path: Path) -> None:
    """Nothing fails; only what needs another server, or its administrator, is left out."""
    secret, found = tmp_path / "secret", tmp_path / "found.json"
    secret.write_text(SECRET)
    async with cli("serve", "--auth.secret-file", secret, "--server.port", "0") as command:
        url = (await command.says(r"listens on (ws://\S+)"))[1]
        run = await kit(url, tmp_path, "--json", found)
    assert run.failed == []
    assert (run.status, run.err) == (0, "")
    told = json.loads(found.read_text())
    assert [told[k] for k in ("passed", "failed", "left_out")] == [
        int(n) for n in re.findall(r"\d+", run.summary)
    ]
    cases = load_cases()
    outcomes = {case["name"]: case["outcome"] for case in told["cases"]}
    assert outcomes.keys() == cases.keys() | CHECKS.keys()
    left_out = {name for name, outcome in outcomes.items() if outcome == "left out"}
    assert left_out == {
        name
        for name, case in cases.items()
        if "needs" in case or any("server" in step for step in case["steps"])
    }


async def test_over_tls(tmp_path: Path) -> None:
    """`wss://` is checked against the system's certificates."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    settings = triows.ServerSettings(
        port=0, tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")
    )
    async with triows.open_server(
        auth=triows.JWTAuth(SECRET), settings=triows.Settings(server=settings)
    ) as server:
        trusted = await kit(
            server.url, tmp_path, "--only", "ping", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
        unknown = await kit(server.url, tmp_path, "--only", "ping: plain")
    assert (trusted.status, trusted.failed) == (0, [])
    assert unknown.status == 1
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.failed[0]


async def test_tokens_that_were_given(tmp_path: Path) -> None:
    """Without a secret, cases whose tokens are not given are left out, and counted so."""
    async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server:
        run = await bare_kit(server.url, "--token", f"ann={token('ann')}", "--only", "publish: ")
    assert run.status == 0
    assert "passed    publish: the same id on two channels\n" in run.out
    assert "left out  publish: log: needs the token bob\n" in run.out
    assert re.fullmatch(r"\d+ passed, 0 failed, \d\d left out", run.summary)


def _offset(message: Message) -> Any:
    return message["offset"] if message["type"] == "log" else None


def _drops(message: Message) -> list[Message]:
    return [] if _offset(message) == 2 else [message]


def _doubles(message: Message) -> list[Message]:
    return [message, message] if _offset(message) == 1 else [message]


def _gives_an_offset_twice(message: Message) -> list[Message]:
    return [message | {"offset": 4} if _offset(message) == 5 else message]


def _tells_another_retry(message: Message) -> list[Message]:
    if message["type"] == "error":
        message["data"]["retry"] = not message["data"]["retry"]
    return [message]


def _counts_a_gap_wrong(message: Message) -> list[Message]:
    if message["type"] == "gap":
        message["data"]["count"] += 1
    return [message]


def _forgets_history(message: Message) -> list[Message]:
    if "messages" in (message.get("data") or {}):
        message["data"]["messages"] = message["data"]["messages"][1:]
    return [message]


def _acknowledges_another_offset(message: Message) -> list[Message]:
    if message["type"] == "ack" and message["data"].get("offset") == 3:
        message["data"]["offset"] = 2
    return [message]


def _says_nothing(message: Message) -> list[Message]:
    return [message] if message["type"] == "auth" else []


def _says_no_object(message: Message) -> list[Any]:
    return [message if message["type"] == "auth" else "hello"]


def _has_an_ack_without_data(message: Message) -> list[Message]:
    return [{k: v for k, v in message.items() if k != "data" or message["type"] != "ack"}]


def _closes_with(code: int) -> Lie:
    def lie(opcode: int, payload: bytes) -> Sent:
        return [(opcode, code.to_bytes(2, "big") if opcode == CLOSE else payload)]

    return lie


@pytest.mark.parametrize(
    ("lie", "case", "words"),
    [
        (lie_about(_drops), "publish: in order, to all", "message.offset: 3 instead of 2"),
        (lie_about(_drops), "resume: since while another publishes", "expected message 2 of"),
        (lie_about(_drops), "resume: connections cut at random bytes", "expected message 2 of"),
        (lie_about(_doubles), "publish: log", "expected nothing more, ann got [{"),
        (lie_about(_doubles), "resume: many join while another", "expected message 2 of"),
        (lie_about(_gives_an_offset_twice), "order: two publishers", "expected offset 5, got"),
        (lie_about(_acknowledges_another_offset), "order: two", "delivered and acknowledged"),
        (lie_about(_forgets_history), "order: history", "messages as they were delivered, got"),
        (lie_about(_counts_a_gap_wrong), "resume: what is kept no longer", "expected a gap with"),
        (lie_about(_says_nothing), "ping: plain", "got nothing within 2 s"),
        (lie_about(_says_no_object), "ping: plain", 'got what is no object: "hello"'),
        (lie_about(_has_an_ack_without_data), "resume: many join", "KeyError('data')"),
        (_closes_with(1000), "limits: a binary message", "1003, got a close frame with 1000"),
        (_closes_with(1011), "bounds: a message that is too", "1009, got a close frame with 1011"),
        (_closes_with(1000), "framing: an unmasked frame", "1002, got a close frame with 1000"),
        (_closes_with(3000), "limits: a binary", "1003, got a close frame with 3000"),
    ],
)
async def test_a_lie_is_found(lie: Lie, case: str, words: str, tmp_path: Path) -> None:
    """The kit fails, names the case, and says what came instead of what."""
    limits = triows.LogLimits(max_messages=400)
    async with triows.open_server(
        auth=triows.JWTAuth(SECRET), port=0, settings=triows.Settings(log=limits)
    ) as server:
        async with lying(server.url, lie) as url:
            run = await kit(url, tmp_path, "--only", case, "--patience", "2")
    assert run.status == 1
    assert re.search(r"^0 passed, 1 failed, 0 left out$", run.summary)
    assert run.failed[0].startswith(f"FAILED    {case}")
    assert words in run.failed[0]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lie_about(_tells_another_retry), "expected retry False with 'bad_json', got True"),
        (_closes_with(3000), "expected a close code of the table, or 4000 to 4999, got 3000"),
    ],
)
async def test_advice_is_looked_at(lie: Lie, words: str, tmp_path: Path) -> None:
    """What errors and close frames advised is held against the tables at the end."""
    async with (
        triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
        lying(server.url, lie) as url,
    ):
        names = ["--only", "limits: too many bad", "--only", "advice"]
        run = await kit(url, tmp_path, *names)
    assert run.status == 1
    assert words in run.failed[-1]


async def test_a_server_that_publishes_twice(tmp_path: Path) -> None:
    """One that forgets ids at once."""
    settings = triows.Settings(log=triows.LogLimits(idempotency_window=0))
    async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0, settings=settings) as server:
        run = await kit(server.url, tmp_path, "--only", "once")
    assert run.summary == "0 passed, 2 failed, 0 left out"
    assert "expected offset" in run.failed[0]
    assert "the answers differ" in run.failed[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        triows.Limits(messages_per_second=30, messages_burst=20, max_message_bytes=4096),
        triows.Limits(messages_per_second=0, bytes_per_second=0, max_message_bytes=1 << 23),
        triows.Limits(messages_per_second=100_000, bytes_per_second=20_000),
    ],
    ids=["little", "without", "fast"],
)
async def test_servers_with_other_limits_pass(limits: triows.Limits, tmp_path: Path) -> None:
    """The kit keeps to what the greeting announces, and is over in a minute."""
    settings = triows.Settings(limits=limits)
    async with triows.open_server(auth=triows.JWTAuth(SECRET), port=0, settings=settings) as server:
        run = await kit(server.url, tmp_path)
    assert run.failed == []


async def test_a_server_that_believes_everybody(tmp_path: Path) -> None:
    """Tokens that are forged have to be refused."""
    good = f"Bearer {token('ann')}".encode()

    def believe(head: bytes) -> bytes:
        return re.sub(rb"Bearer [^\r]*", good, head)

    async with (
        triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
        lying(server.url, head=believe) as url,
    ):
        run = await kit(url, tmp_path, "--only", "opening: a token", "--only", "handshake: an exp")
    assert run.status == 1
    assert len(run.failed) == 4
    assert all("expected status 401, got 101" in line for line in run.failed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no HTTP answer"),
        (b"220 mail.example\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "was refused with 200"),
        (b"HTTP/1.1 101 Switching\r\n\r\n\x81\x82hi", "a frame against RFC 6455"),
        (b"HTTP/1.1 101 Switching\r\n\r\n\x80\x00", "fragments out of order"),
        (b"HTTP/1.1 101 Switching\r\n\r\n\x81\x02hi", "what is not JSON"),
        (b"HTTP/1.1 101 Switching\r\n\r\n\x09\x00\x09\x00", "a control frame that is in"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "got the end of the connection"),
    ],
)
async def test_not_a_server_at_all(answer: bytes, words: str, tmp_path: Path) -> None:
    """Whatever listens there: the case fails with what came, and the run goes on."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async with listening(serve) as url:
        run = await kit(url, tmp_path, "--only", "ping: plain", "--only", "ping: null is data")
    assert run.status == 1
    assert len(run.failed) == 2
    assert all(words in line for line in run.failed)


async def test_a_server_that_hangs(tmp_path: Path) -> None:
    """Each answer has a deadline."""

    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(serve) as url:
        run = await kit(url, tmp_path, "--only", "ping: plain", "--patience", "1")
    assert run.status == 1
    assert "no answer to an opening within 1 s" in run.failed[0]


async def test_nobody_there(tmp_path: Path) -> None:
    """A refused connection is a failure, not a crash."""
    async with listening(trio.aclose_forcefully) as url:
        pass
    run = await kit(url, tmp_path, "--only", "ping: plain")
    assert (run.status, run.err) == (1, "")
    assert "no connection to 127.0.0.1" in run.failed[0]


async def test_nobody_reads_on() -> None:
    """As with `| head`: an end without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["ws://127.0.0.1:1/ws", "--token", "ann=a", "--only", "ping"]
    try:
        run = await trio.run_process(
            [sys.executable, "-m", "triows.conformance", *arguments],
            stdout=writing,
            capture_stderr=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (run.returncode, run.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ws://127.0.0.1:1/ws"], "no tokens: give --secret-file"),
        (["http://127.0.0.1:1/ws", "--token", "ann=a"], "is no address"),
        (["ws://127.0.0.1:1/ws", "--token", "ann"], "--token ann: expected NAME=TOKEN"),
        (["ws://127.0.0.1:1/ws", "--secret-file", "/nowhere"], "cannot read /nowhere"),
        (["ws://127.0.0.1:1/ws", "--token", "ann=a", "--only", "what"], "no case begins with"),
        (["ws://127.0.0.1:1/ws", "--token", "ann=a", "--patience", "0"], "--patience"),
    ],
)
async def test_errors_of_use(arguments: list[str], words: str) -> None:
    """Status 2, and what to do, without a traceback."""
    run = await bare_kit(*arguments)
    assert run.status == 2
    assert words in run.err
    assert "Traceback" not in run.err


def test_every_check_names_a_section() -> None:
    """… which docs/protocol.md has."""
    text = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
    titles = set(re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    assert {check.section for check in CHECKS.values()} <= titles


def test_every_check_says_what_it_shows() -> None:
    """… in its docstring; and none hides another or a vector."""
    runs: set[Callable[..., Any]] = {check.run for check in CHECKS.values()}
    assert len(runs) == len(CHECKS) > 25
    assert all(run.__doc__ for run in runs)
    assert not CHECKS.keys() & load_cases().keys()


async def test_a_server_that_was_held_up_is_asked_again(tmp_path: Path) -> None:
    """It may read at once what was sent over seconds, and find that too fast."""
    refused = 0

    def refuse(message: dict[str, Any]) -> list[dict[str, Any]]:
        nonlocal refused
        if message["type"] != "ack" or refused == 3:
            return [message]
        refused += 1
        data = {"code": "rate_limited", "message": "", "retry": True, "retry_after": 0.003}
        return [{**message, "type": "error", "data": data}]

    async with (
        triows.open_server(auth=triows.JWTAuth(SECRET), port=0) as server,
        lying(server.url, lie_about(refuse)) as url,
    ):
        run = await kit(url, tmp_path, "--only", "once")
    assert refused == 3
    assert run.summary == "2 passed, 0 failed, 0 left out"
