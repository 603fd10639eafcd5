"""Who answers which operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.responses import Response

from triows.http import administering, channels, history, publishing
from triows.http.call import Call
from triows.http.events import events

Handler = Callable[[Call], Awaitable[Response]]

HANDLERS: Final[Mapping[str, Handler]] = {
    "publish": publishing.publish,
    "history": history.history,
    "events": events,
    "end": publishing.end,
    "presence": channels.presence,
    "channels": channels.channels,
    "channel": channels.channel,
    "connections": administering.connections,
    "connection": administering.connection,
    "disconnect": administering.disconnect,
    "revoke": administering.revoke,
    "drain": administering.drain,
    "statistics": administering.statistics,
    "metrics": administering.metrics,
    "openapi": administering.openapi,
}
"""By the names in the table of operations."""
