"""The commands and their options; each does its work in a module of its own."""

from __future__ import annotations

import json as json_
import secrets
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import trio
from cyclopts import App, CycloptsError, Group, Parameter

import triows
from triows import Settings
from triows.cli import administer
from triows.cli import settings as settings_
from triows.cli.connect import (
    DEFAULT_URL,
    NOT_GIVEN,
    WHICH_SERVER,
    StateTeller,
    TokenFile,
    TokenOption,
    Urls,
    token_source,
)
from triows.cli.embed import embedded_server
from triows.cli.output import note
from triows.cli.publish import publish as publish_
from triows.cli.run import publish_by, run_command
from triows.cli.serve import configure_logging
from triows.cli.serve import serve as serve_
from triows.cli.steer import Steering, steered
from triows.cli.tail import parse_since
from triows.cli.tail import tail as tail_
from triows.cli.workers import serve_by_workers
from triows.schema import asyncapi as asyncapi_
from triows.schema import json_schema

app = App(
    name="triows",
    help="Streams live agent sessions: every channel is a log, every subscription a cursor.",
    config=settings_.flags,
)
administer.add_to(app)

Config = Annotated[
    Path | None, Parameter(help="TOML file with settings; also TRIOWS_CONFIG names one.")
]
Flags = Annotated[
    Settings | None, Parameter(name="*", group=Group("Settings", sort_key=1), show_default=True)
]


@app.command
def serve(
    *,
    dev: bool = False,
    workers: int | None = None,
    verbose: bool = False,
    config: Config = None,
    settings: Flags = None,
) -> int:
    """Serve until SIGTERM or Ctrl-C drains; a second one aborts.

    Args:
        dev: for a first look: an ephemeral key, loopback only, and tokens printed.
        workers: processes on one port, one for each core; short for --server.workers.
        verbose: log more.
    """
    if workers is not None:
        settings_.flags.given["server.workers"] = [str(workers)]
    loaded = settings_.load(config)
    configure_logging(verbose=verbose)
    if loaded.server.workers > 1:
        return trio.run(lambda: serve_by_workers(loaded, dev=dev, verbose=verbose))
    return trio.run(lambda: serve_(loaded, dev=dev))


@app.command
def run(
    *command: Annotated[str, Parameter(show=True)],
    id: str | None = None,
    url: Urls = (),
    token: TokenOption = None,
    token_file: TokenFile = None,
    pty: bool = False,
    allow_commands: bool = False,
    keep: bool = False,
    config: Config = None,
) -> int:
    """Run a command and stream its output, line by line, into `session:<id>`.

    Without a server it opens one on loopback for as long as the command runs, and prints how
    to watch.

    Args:
        command: the command and its arguments, after `--`.
        id: of the session; drawn by lot if not given.
        url: address of a server, or repeated of several that share one store, which are tried
            in turn; without one, a server is opened here.
        pty: run it in a terminal of its own: with colours, prompts and progress bars.
        allow_commands: obey `command` messages of those whose token has that grant.
        keep: with a server opened here, serve on after the command until Ctrl-C.
    """
    if not command:
        raise triows.ConfigError("no command to run: triows run -- make test")
    channel = f"session:{id or secrets.token_hex(4)}"
    settings = settings_.load(config)
    steering = Steering() if allow_commands else None
    work = partial(run_command, list(command), pty=pty, steering=steering)

    async def run_here() -> int:
        async with embedded_server(channel, settings, steering) as (publish, link):
            status = await work(publish)
            if keep:  # by now its output has driven the link away
                note("the command has ended; it can be watched until Ctrl-C ends the server:")
                note(f"  {link}", "bold")
                await trio.sleep_forever()
            return status

    async def run_there(client: triows.Client) -> int:
        note(f"publishing to {channel} at {' '.join(url)}")
        async with steered(client, channel, steering):
            return await work(publish_by(client, channel))

    if not url:
        if token is not None or token_file is not None:
            raise triows.ConfigError(WHICH_SERVER)
        return trio.run(run_here)
    return _with_client(run_there, url, token, token_file)


@app.command
def tail(
    channel: str,
    *,
    lines: Annotated[int, Parameter(alias="-n")] = 100,
    since: str | None = None,
    from_start: bool = False,
    json: bool = False,
    url: Urls = (DEFAULT_URL,),
    token: TokenOption = None,
    token_file: TokenFile = None,
) -> int:
    """Watch a channel until it ends; reconnects, and goes on where it was.

    Args:
        channel: such as `session:42`.
        lines: begin with so many of the messages there are.
        since: go on after a position, `epoch:offset`.
        from_start: begin with the oldest message there is.
        json: print whole messages, as JSON lines.
    """
    position = parse_since(since) if since is not None else None

    async def watch(client: triows.Client) -> int:
        first = None if from_start else lines
        return await tail_(client, channel, lines=first, since=position, as_json=json)

    return _with_client(watch, url, token, token_file)


@app.command
def publish(
    channel: str,
    *words: str,
    type: str = "log",
    json: bool = False,
    url: Urls = (DEFAULT_URL,),
    token: TokenOption = None,
    token_file: TokenFile = None,
) -> int:
    """Publish words as one message, or without any each line of standard input.

    Args:
        channel: such as `session:42`.
        words: the message.
        type: log, status, event, command, or end (with JSON such as '{"exit_code": 0}').
        json: the words, or each line, are JSON.
    """

    async def speak(client: triows.Client) -> int:
        return await publish_(client, channel, words, type_=type, as_json=json)

    return _with_client(speak, url, token, token_file)


@app.command
def token(
    *,
    sub: str,
    subscribe: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    publish: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    command: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    presence: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    admin: bool = False,
    ttl: float = 3600,
    config: Config = None,
    settings: Flags = None,
) -> int:
    """Print a token, signed with the secret in `auth.secret_file`.

    Args:
        sub: whose it is.
        subscribe: channel or pattern (`session:*`) that may be watched; can be repeated.
        publish: that may be published to.
        command: that may be sent commands.
        presence: whose viewers may be listed.
        admin: everything, administration included.
        ttl: seconds until it expires.
    """
    loaded = settings_.load(config)
    path = loaded.auth.secret_file
    if not path:
        raise triows.ConfigError("no secret to sign with: set auth.secret_file")
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise triows.ConfigError(f"auth.secret_file: {path}: {error.strerror}") from None
    claims = {"iss": loaded.auth.issuer, "aud": loaded.auth.audience}
    try:
        made = triows.make_token(
            secret,
            sub,
            ttl=ttl,
            subscribe=subscribe,
            publish=publish,
            command=command,
            presence=presence,
            admin=admin,
            algorithm=(loaded.auth.algorithms or ("HS256",))[0],
            claims={name: value for name, value in claims.items() if value},
        )
    except ValueError as error:
        raise triows.ConfigError(str(error)) from None
    print(made)
    return 0


@app.command
def config(*, config: Config = None, settings: Flags = None) -> int:
    """Print the settings that hold, as TOML, and where each came from."""
    loaded = settings_.load(config)
    for line in settings_.as_toml(loaded, settings_.sources(config)):
        print(line)
    return 0


@app.command
def schema(*, asyncapi: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Print the protocol for machines: the JSON Schema of all messages.

    Args:
        asyncapi: print an AsyncAPI 3.0 document instead.
    """
    print(json_.dumps(asyncapi_() if asyncapi else json_schema(), indent=2))
    return 0


def _with_client(
    work: Callable[[triows.Client], Awaitable[int]],
    url: tuple[str, ...],
    token: str | None,
    token_file: Path | None,
) -> int:
    if token is None and token_file is None:
        raise triows.ConfigError(NOT_GIVEN)

    async def run() -> int:
        source = token_source(token, token_file)
        async with triows.open_client(url, token=source, on_state=StateTeller()) as client:
            return await work(client)

    return trio.run(run)


def run_app(arguments: list[str]) -> int:
    """Run one command; return the exit status. Errors of use are said in one line."""
    try:
        result: Any = app(arguments, result_action="return_value", exit_on_error=False)
    except CycloptsError:
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except (triows.TriowsError, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: BaseException) -> int:
    """Say what went wrong and return the exit status; raises what is no error of use."""
    if isinstance(error, BaseExceptionGroup):
        expected, others = error.split((triows.TriowsError, KeyboardInterrupt))
        if others is not None or expected is None:
            raise error
        return _report(expected.exceptions[0])
    if isinstance(error, KeyboardInterrupt):
        return 130
    note(f"triows: {error}", "red")
    return 2 if isinstance(error, triows.ConfigError) else 1
