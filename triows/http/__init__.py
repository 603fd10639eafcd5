"""The HTTP side: the front of the one port, and, where its libraries are installed, the doors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from triows.administration import Administration
from triows.config import Settings
from triows.http.front import Resource
from triows.http.head import Head
from triows.peer import Services
from triows.transport import Transport


class Serving(Protocol):
    """What serves connections that speak HTTP."""

    async def serve(self, transport: Transport, head: Head) -> None:
        """Serve one connection to its end; the transport is closed by the caller."""


def open_doors(
    settings: Settings,
    services: Services,
    administration: Administration,
    public: Mapping[str, Resource],
) -> tuple[Serving | None, ImportError | None]:
    """Return the HTTP side, or what is missing for it: it is an extra of the package.

    Args:
        settings: origins, limits.
        services, administration: what is asked about.
        public: resources that everybody may read, by path.
    """
    try:
        from triows.http.call import Rooms
        from triows.http.doors import Doors
        from triows.http.rates import Rates
    except ImportError as error:
        return None, error
    rooms = Rooms(services, administration, Rates(services.limits))
    return Doors(settings, rooms, public), None
