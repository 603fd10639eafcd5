"""For tests: servers in memory, networks that fail, virtual time, and simulations by a seed.

docs/testing.md has it all; the fixtures for pytest are in `pytest_triows`.
"""

from triows.testing.network import Link as Link
from triows.testing.network import MemoryPort as MemoryPort
from triows.testing.network import Network as Network
from triows.testing.schedule import Schedule as Schedule
from triows.testing.schedule import draw as draw
from triows.testing.simulation import Outcome as Outcome
from triows.testing.simulation import shrink as shrink
from triows.testing.simulation import simulate as simulate
from triows.testing.site import Site as Site
from triows.testing.site import open_site as open_site
from triows.testing.streams import FaultyStream as FaultyStream
from triows.testing.streams import Pipe as Pipe
from triows.testing.tokens import Tokens as Tokens
from triows.testing.virtual import run as run
from triows.testing.virtual import seeded as seeded
from triows.testing.virtual import virtual_time as virtual_time
