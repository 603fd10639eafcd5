"""Settings of file, environment and flags; tokens; and errors of use, in one line each."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import triows
from tests.support import SECRET
from triows.cli import app, settings
from triows.cli.app import run_app


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine, or of the test before, and no logging of ours."""
    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "configure_logging", lambda *, verbose: None)
    settings.flags.given.clear()
    yield
    settings.flags.given.clear()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the secret of the tests."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "triows.toml"
    path.write_text(text)
    return str(path)


def _config(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    assert run_app(["config", *arguments]) == 0
    out = capsys.readouterr().out
    return tomllib.loads(out), out


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_app(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_config_prints_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed can be read as the file, and is every setting there is."""
    printed, out = _config(capsys)
    assert printed["limits"]["max_connections"] == 1000
    assert printed["server"]["port"] == 8080
    assert printed["store"] == "memory://"
    paths = {path for path, _ in settings.fields(triows.Settings())}
    sections = {k: v for k, v in printed.items() if isinstance(v, dict)}
    assert {f"{s}.{name}" for s, members in sections.items() for name in members} | {
        name for name in printed if name not in sections
    } == paths
    assert out.count("# default") == len(paths)


def test_config_printed_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed settings, as a file, are the same settings."""
    first, out = _config(
        capsys, "--limits.max-connections", "7", "--server.allowed-origins", "https://a"
    )
    settings.flags.given.clear()
    second, _ = _config(capsys, "--config", _file(tmp_path, out))
    assert second == first
    assert second["server"]["allowed_origins"] == ["https://a"]


@pytest.mark.parametrize(
    ("where", "expected", "source"),
    [
        ((), 1000, "default"),
        (("file",), 1, "file "),
        (("file", "environment"), 2, "environment TRIOWS_LIMITS_MAX_CONNECTIONS"),
        (("file", "environment", "flag"), 3, "flag --limits.max-connections"),
        (("file", "flag"), 3, "flag --limits.max-connections"),
    ],
)
def test_settings_precedence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, ...],
    expected: int,
    source: str,
) -> None:
    """A flag wins over the environment, that over the file, that over the default."""
    arguments: list[str] = []
    if "file" in where:
        arguments += ["--config", _file(tmp_path, "[limits]\nmax_connections = 1\n")]
    if "environment" in where:
        monkeypatch.setenv("TRIOWS_LIMITS_MAX_CONNECTIONS", "2")
    if "flag" in where:
        arguments += ["--limits.max-connections", "3"]
    printed, out = _config(capsys, *arguments)
    assert printed["limits"]["max_connections"] == expected
    [line] = [line for line in out.splitlines() if line.startswith("max_connections =")]
    assert f"# {source}" in line


def test_settings_file_is_named_by_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRIOWS_CONFIG names the file as --config does."""
    path = _file(tmp_path, 'store = "memory://"\n[server]\nport = 99\n')
    monkeypatch.setenv("TRIOWS_CONFIG", path)
    printed, out = _config(capsys)
    assert printed["server"]["port"] == 99
    assert f"# file {path}" in out


def test_settings_lists_and_switches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and switches have the same names and values in all three places."""
    path = _file(tmp_path, '[server]\nallowed_origins = ["a", "b"]\ntoken_in_query = true\n')
    by_file, _ = _config(capsys, "--config", path)
    monkeypatch.setenv("TRIOWS_SERVER_ALLOWED_ORIGINS", "a,b")
    monkeypatch.setenv("TRIOWS_SERVER_TOKEN_IN_QUERY", "true")
    by_environment, _ = _config(capsys)
    monkeypatch.delenv("TRIOWS_SERVER_ALLOWED_ORIGINS")
    monkeypatch.delenv("TRIOWS_SERVER_TOKEN_IN_QUERY")
    origins = ("--server.allowed-origins", "a", "--server.allowed-origins", "b")
    by_flag, _ = _config(capsys, *origins, "--server.token-in-query")
    assert by_file["server"] == by_environment["server"] == by_flag["server"]
    assert by_flag["server"]["allowed_origins"] == ["a", "b"]
    assert by_flag["server"]["token_in_query"] is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nmax_connections = -1\n", ("limits.max_connections", "triows.toml", "-1")),
        ("[limits]\nmax_conections = 1\n", ("max_conections",)),
        ("[nonsense]\na = 1\n", ("nonsense",)),
        ("[server]\nport = 70000\n", ("server.port", "70000", "triows.toml")),
        ('[server]\ntls_key = "k"\n', ("tls_key", "tls_cert")),
        ("[limits]\nping_interval = nan\n", ("limits.ping_interval",)),
    ],
)
def test_settings_error_names_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: tuple[str, ...]
) -> None:
    """What is wrong in the file is named, with the file."""
    error = _error(capsys, "config", "--config", _file(tmp_path, text))
    assert all(word in error for word in words), error


def test_settings_error_names_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong in the environment is named with its variable."""
    monkeypatch.setenv("TRIOWS_LIMITS_IDLE_TIMEOUT", "-3")
    error = _error(capsys, "config")
    assert "TRIOWS_LIMITS_IDLE_TIMEOUT" in error
    assert "-3" in error


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TRIOWS_LIMITS_MAX_CONNECTIONS", "many", "limits.max_connections"),
        ("TRIOWS_SERVER_TOKEN_IN_QUERY", "perhaps", "server.token_in_query"),
    ],
)
def test_settings_error_names_the_variable_of_another_kind(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    key: str,
) -> None:
    """A word where a number belongs is named with its variable and its setting."""
    monkeypatch.setenv(name, value)
    error = _error(capsys, "config")
    assert all(word in error for word in (name, key, value)), error


@pytest.mark.parametrize("text", ["a = [", "[limits\n"])
def test_settings_file_that_is_no_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """An error of syntax is named with the file."""
    error = _error(capsys, "config", "--config", _file(tmp_path, text))
    assert "triows.toml is not TOML" in error


def test_settings_file_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are not UTF-8 are no TOML either."""
    (tmp_path / "a.toml").write_bytes(b"\xff")
    assert "a.toml is not TOML" in _error(capsys, "config", "--config", "a.toml")


def test_settings_file_that_is_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory is no file, however it was named."""
    assert str(tmp_path) in _error(capsys, "config", "--config", str(tmp_path))
    monkeypatch.setenv("TRIOWS_CONFIG", str(tmp_path))
    assert str(tmp_path) in _error(capsys, "config")


def test_settings_flag_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag with a number that cannot be is named, in one line."""
    error = _error(capsys, "config", "--limits.max-connections=-1")
    assert "limits.max_connections is -1" in error


def test_settings_file_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is an error, not the defaults."""
    assert "not/there.toml" in _error(capsys, "config", "--config", "not/there.toml")


async def _verify(bearer: str, **options: Any) -> triows.Identity:
    return await triows.JWTAuth(SECRET, **options).verify(bearer)


def test_token_is_believed(capsys: pytest.CaptureFixture[str], secret: Path) -> None:
    """A printed token passes the check of a server with the same secret, with its grants."""
    arguments = ["--subscribe", "session:*", "--subscribe", "system", "--publish", "session:1"]
    arguments += ["--sub", "me", "--ttl", "60", "--auth.secret-file", str(secret)]
    assert run_app(["token", *arguments]) == 0
    identity = trio.run(_verify, capsys.readouterr().out.strip())
    grants = identity.grants
    assert identity.user == "me"
    assert grants.allow(triows.Action.SUBSCRIBE, "session:9")
    assert grants.allow(triows.Action.PUBLISH, "session:1")
    assert not grants.allow(triows.Action.PUBLISH, "session:2")
    assert not grants.allow(triows.Action.COMMAND, "session:1")
    assert not grants.admin


def test_token_has_issuer_and_audience(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], secret: Path
) -> None:
    """What the settings require of tokens, the printed one has."""
    auth = f"[auth]\nsecret_file = {json.dumps(str(secret))}\nissuer = 'i'\naudience = 'a'\n"
    assert run_app(["token", "--sub", "me", "--admin", "--config", _file(tmp_path, auth)]) == 0
    bearer = capsys.readouterr().out.strip()

    async def verify() -> triows.Identity:
        return await _verify(bearer, issuer="i", audience="a")

    assert trio.run(verify).grants.admin


def test_token_is_signed_with_the_algorithm_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that takes HS512 only believes the printed token."""
    long = SECRET * 2
    (tmp_path / "long").write_text(long)
    auth = "[auth]\nsecret_file = 'long'\nalgorithms = ['HS512']\n"
    assert run_app(["token", "--sub", "me", "--config", _file(tmp_path, auth)]) == 0
    bearer = capsys.readouterr().out.strip()
    assert trio.run(triows.JWTAuth(long, algorithms=["HS512"]).verify, bearer).user == "me"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subscribe", "a*b"], "'a*b'"),
        (["--auth.secret-file", "nowhere"], "auth.secret_file: nowhere"),
        (["--auth.secret-file", "short"], "32"),
        (["--auth.secret-file", ""], "auth.secret_file"),
        (["--ttl", "inf"], "ttl"),
        (["--ttl", "nan"], "ttl"),
        (["--auth.algorithms", "HS512"], "64"),
        (["--auth.algorithms", "RS256"], "RS256"),
    ],
)
def test_token_errors_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    secret: Path,
    arguments: list[str],
    words: str,
) -> None:
    """A bad pattern, no secret or a weak one: status 2, and what is wrong."""
    (tmp_path / "short").write_text("too short")
    start = ["token", "--sub", "me"]
    if "--auth.secret-file" not in arguments:
        start += ["--auth.secret-file", str(secret)]
    assert words in _error(capsys, *start, *arguments)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_serve_dev_on_a_public_address_is_refused(
    capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """An ephemeral key that is printed is for loopback only."""
    error = _error(capsys, "serve", "--dev", "--server.host", host)
    assert host in error
    assert "loopback" in error


def test_serve_on_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else's port is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in _error(capsys, "serve", "--dev", "--server.port", port)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail", "session:1", "--url", "http://a/ws"],
        ["tail", "session:1", "--url", "ws://me:hunter2@a/ws"],
        ["tail", "session:1", "--since", "5"],
        ["tail", "session:1", "--since", "abc:"],
        ["tail", "session:1", "--since", "abc:-1"],
        ["publish", "session:1", "a", "--token-file", "not there"],
        ["run"],
    ],
)
def test_errors_of_use_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A wrong address, position or file ends with 2 before anything was tried."""
    assert "hunter2" not in _error(capsys, *arguments)


@pytest.mark.parametrize("arguments", [["nonsense"], ["tail"], ["tail", "a", "--lines", "x"]])
def test_unknown_arguments_end_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """What the parser does not understand is an error of use as well."""
    assert run_app(arguments) == 2
