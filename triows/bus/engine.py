"""Which engine a URL names."""

from __future__ import annotations

from triows.bus import Bus, Tell
from triows.bus.memory import MemoryBus
from triows.config import LogLimits
from triows.errors import ConfigError


def open_bus(store: str, limits: LogLimits, tell: Tell) -> Bus:
    """Return the engine that `store` names.

    Raises:
        ConfigError: it names none.
    """
    if store == "memory://":
        return MemoryBus(limits, tell)
    raise ConfigError(f"store is {store!r}; only 'memory://' is known")
