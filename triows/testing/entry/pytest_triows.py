"""The plugin for pytest: fixtures only, which import triows when a test uses them.

It stands outside the package, for pytest imports it at every start, and with a module all
packages it is in. Installed, it is a module of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import trio.testing

    import triows
    from triows.testing import Network, Site


@pytest.fixture
def triows_clock() -> Iterator[trio.testing.MockClock]:
    """Virtual time, which jumps to the next deadline when all tasks wait; the calendar follows.

    Only a test that names it itself has it: pytest-trio looks for a clock nowhere else.
    """
    from triows.testing import virtual_time

    with virtual_time() as clock:
        yield clock


@pytest.fixture
def triows_options() -> dict[str, Any]:
    """What `triows_site` opens its server with, besides the port: to be overridden."""
    return {}


@pytest.fixture
async def triows_site(triows_options: dict[str, Any]) -> AsyncIterator[Site]:
    """A server in this process, and a network in memory that leads to it."""
    from triows.testing import open_site

    async with open_site(**triows_options) as site:
        yield site


@pytest.fixture
def triows_server(triows_site: Site) -> triows.Server:
    """The server of `triows_site`."""
    return triows_site.server


@pytest.fixture
def triows_network(triows_site: Site) -> Network:
    """The network that leads to `triows_server`."""
    return triows_site.network


@pytest.fixture
def triows_connect(triows_site: Site) -> Any:
    """What opens clients of `triows_server`: `async with` it, called with the name of a user."""
    return triows_site.connect
