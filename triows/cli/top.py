"""`triows top`: channels and connections, live, in a terminal."""

from __future__ import annotations

import time
from typing import Any, Final

import attrs
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from triows.cli.api import Api
from triows.cli.output import harmless
from triows.cli.units import ago, amount, size

_CHANNELS: Final = 1000  # asked for at once
_HEADS: Final = 6  # lines of a screen that titles and headings take
_WIDE: Final = 200  # columns, where no terminal says how many there are
_QUIET: Final = 60  # seconds without a message, after which a channel is called quiet


@attrs.frozen
class Snapshot:
    """What the server said at one moment.

    Attributes:
        at: monotonic time in seconds.
        statistics, channels, connections: the API's answers.
    """

    at: float
    statistics: dict[str, Any]
    channels: list[dict[str, Any]]
    connections: list[dict[str, Any]]


async def top(api: Api, *, interval: float, once: bool) -> int:
    """Show channels and connections until interrupted; return the exit status.

    Args:
        interval: seconds between two looks.
        once: look twice, for the rates, print, and end.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    before = await _look(api)
    if once or not console.is_terminal:
        await trio.sleep(interval)
        now = await _look(api)
        console.print(render(before, now, rows=len(now.channels) + len(now.connections)))
        return 0
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            now = await _look(api)
            rows = max(2, console.size.height - _HEADS)
            live.update(render(before, now, rows=rows), refresh=True)
            before = now
            await trio.sleep(interval)


async def _look(api: Api) -> Snapshot:
    answers: dict[str, Any] = {}

    async def ask(path: str, **query: int) -> None:
        answers[path] = await api.get(path, **query)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "/api/statistics")
        nursery.start_soon(lambda: ask("/api/channels", limit=_CHANNELS))
        nursery.start_soon(ask, "/api/connections")
    return Snapshot(
        trio.current_time(),
        answers["/api/statistics"],
        answers["/api/channels"]["channels"],
        answers["/api/connections"]["open"],
    )


def render(before: Snapshot, now: Snapshot, *, rows: int) -> Group:
    """Draw two tables and a line above them.

    Args:
        before, now: two looks; rates are of the time between.
        rows: how many both tables may have together.
    """
    channels = min(len(now.channels), max(rows // 2, rows - len(now.connections)))
    return Group(
        _headline(before, now),
        _channel_table(before, now, channels),
        _connection_table(now, rows - channels),
    )


def _headline(before: Snapshot, now: Snapshot) -> Text:
    seconds = max(now.at - before.at, 1e-3)
    published = now.statistics["published"] - before.statistics["published"]
    delivered = now.statistics["delivered"] - before.statistics["delivered"]
    state = "draining" if now.statistics["draining"] else "serving"
    return Text(
        f"{state}: {amount(now.statistics['connections'])} connections, "
        f"{amount(now.statistics['channels'])} channels with "
        f"{size(now.statistics['log_bytes'])} of logs in memory, "
        f"{amount(published / seconds)} messages/s, {amount(delivered / seconds)} deliveries/s",
        style="bold",
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column(title, no_wrap=True, ratio=1)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, min_width=max(7, len(column)))
    return table


def _channel_table(before: Snapshot, now: Snapshot, rows: int) -> Table:
    """Draw the busiest channels first."""
    seconds = max(now.at - before.at, 1e-3)
    heads: dict[str, int] = {one["channel"]: one["offset"] for one in before.channels}

    def rate(channel: dict[str, Any]) -> float:
        grown: int = channel["offset"] - heads.get(channel["channel"], 0)
        return max(0, grown) / seconds

    table = _table("channel", "state", "messages/s", "messages", "kept", "viewers", "last")
    busiest = sorted(now.channels, key=lambda channel: (-rate(channel), -channel["touched_at"]))
    for channel in busiest[:rows]:
        table.add_row(
            Text(harmless(channel["channel"], colour=False)),
            _state(channel),
            f"{rate(channel):,.1f}",
            amount(channel["offset"]),
            size(channel["bytes"]),
            amount(channel["viewers"]),
            ago(time.time() - channel["touched_at"]),
        )
    return table


def _state(channel: dict[str, Any]) -> Text:
    """Say whether a channel is running, quiet or over."""
    ended = channel["ended"]
    if ended is not None:
        code = ended.get("exit_code") if isinstance(ended, dict) else None
        if code is None:
            return Text("ended", style="dim")
        return Text(f"exit {code}", style="red" if code else "dim")
    if time.time() - channel["touched_at"] > _QUIET:
        return Text("quiet", style="yellow")
    return Text("running", style="green")


def _connection_table(now: Snapshot, rows: int) -> Table:
    """Draw the connections that lag most first."""
    table = _table("connection", "user", "lag", "round trip", "received", "sent", "age")
    for one in sorted(now.connections, key=lambda one: (-one["lag"], -one["sent_bytes"]))[:rows]:
        round_trip = one["round_trip"]
        table.add_row(
            Text(harmless(one["id"], colour=False)),
            Text(harmless(one["user"] or "–", colour=False)[:24]),
            Text(amount(one["lag"]), style="red" if one["lag_seconds"] > 1 else ""),
            "–" if round_trip is None else f"{round_trip * 1000:.0f} ms",
            size(one["received_bytes"]),
            size(one["sent_bytes"]),
            ago(one["age"]),
        )
    return table
