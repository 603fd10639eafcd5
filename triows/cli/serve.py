"""`triows serve`: the standalone server."""

from __future__ import annotations

import gc
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog
import trio

import triows
from triows.cli.output import note, program

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
COLLECT_EVERY: Final = 50_000  # new containers; Python's own 700 cost a third of each opening
DRAINING: Final = "draining; another signal aborts"
DEV_TTL: Final = 7 * 86_400  # seconds the tokens of --dev are good for


async def serve(settings: triows.Settings, *, dev: bool) -> int:
    """Serve until a signal asks to stop; return the exit status.

    The first SIGTERM or SIGINT drains, the second aborts.

    Raises:
        ConfigError: no key, `dev` on a public address, or the port cannot be opened.
    """
    secret = dev_secret(settings) if dev else None

    def opened(url: str) -> None:
        note(f"triows listens on {url}")
        if secret is not None:
            print_tokens(url, secret)

    if await serve_until_stopped(settings, secret, opened, lambda: note(DRAINING)):
        note("drained")
        return 0
    note("aborted", "yellow")
    return 1


def dev_secret(settings: triows.Settings) -> str:
    """Return a key for `--dev`, which lives as long as what signs with it.

    Raises:
        ConfigError: the server would be open to others.
    """
    if settings.server.host not in LOOPBACK:
        raise triows.ConfigError(
            f"--dev serves loopback only, and server.host is {settings.server.host}: "
            "for others to connect, configure a key and leave --dev out"
        )
    return secrets.token_hex(32)


async def serve_until_stopped(
    settings: triows.Settings,
    secret: str | None,
    opened: Callable[[str], None],
    draining: Callable[[], None],
    *ends: Callable[[], Awaitable[None]],
) -> bool:
    """Serve until a signal, an administrator or one of `ends` asks to stop, then drain.

    Args:
        settings: of the server.
        secret: key of the tokens; None is what the settings say.
        opened: called with the address, once it can be connected to.
        draining: called when draining begins.
        ends: each returns when it is time to stop.

    Returns:
        False if a second signal broke the draining off.

    Raises:
        ConfigError: no key, or the port or the store cannot be opened.
    """
    auth = None if secret is None else triows.JWTAuth(secret)
    stop = trio.Event()
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.CancelScope() as abort,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, stop, abort)
            async with triows.open_server(settings=settings, auth=auth) as server:
                _spare_the_collector()
                opened(server.url)
                await _first_of(stop.wait, server.wait_draining, *ends)
                stop.set()
                draining()
            nursery.cancel_scope.cancel(reason="drained")
    return not abort.cancelled_caught


def _spare_the_collector() -> None:
    """Have Python's garbage collector come by less often, and not look at what stays for good.

    A connection is some hundred containers that live long and leave no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 10, 10)


async def _watch(signals: AsyncIterator[int], stop: trio.Event, abort: trio.CancelScope) -> None:
    async for _ in signals:
        if stop.is_set():
            abort.cancel(reason="a second signal")
        stop.set()


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of them returns."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[None]]) -> None:
            await one()
            nursery.cancel_scope.cancel(reason="the first is enough")

        for one in waits:
            nursery.start_soon(wait, one)


def print_tokens(url: str, secret: str) -> None:
    """Print what a first look needs, ready to paste; the key dies with this process."""
    watch = triows.make_token(secret, "viewer", ttl=DEV_TTL, subscribe=["*"], presence=["*"])
    speak = triows.make_token(
        secret,
        "publisher",
        ttl=DEV_TTL,
        subscribe=["*"],
        publish=["*"],
        command=["*"],
        presence=["*"],
    )
    admin = triows.make_token(secret, "admin", ttl=DEV_TTL, admin=True)
    me = program()
    at = f"--url {url} --token"
    print(f"# watch\n{me} tail session:demo {at} {watch}\n")
    print(f"# publish\n{me} publish session:demo hello {at} {speak}\n")
    print(f"# run a command and publish what it prints\n{me} run {at} {speak} -- ping localhost\n")
    print(f"# administrate\n{me} top {at} {admin}\n")
    http = url.replace("ws", "http", 1).removesuffix("/ws")
    print(f"# look, in a browser\n{http}/#token={admin}", flush=True)


def configure_logging(*, verbose: bool, worker: int | None = None) -> None:
    """Send the log to standard error: JSON lines, or prose if a person is looking.

    Args:
        verbose: more of it.
        worker: number of this process among several, for each line.
    """
    person = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    if worker is not None:
        shared.append(lambda logger, method, entry: {**entry, "worker": worker})
    if not person:
        shared.append(structlog.processors.format_exc_info)
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True
    )
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
