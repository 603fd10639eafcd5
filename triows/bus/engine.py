"""Which engine a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from triows.bus import Bus, Tell, Told
from triows.bus.memory import MemoryBus
from triows.bus.sqlite import SQLiteBus
from triows.config import LogLimits
from triows.errors import ConfigError

_SQLITE: Final = "sqlite:///"


def open_bus(store: str, limits: LogLimits, tell: Tell, told: Told) -> Bus:
    """Return the engine that `store` names; enter it before use.

    What follows `sqlite:///` is a path: relative as it is, absolute with a slash of its own
    (`sqlite:////var/lib/triows.db`).

    Args:
        store: the setting.
        limits: what is kept.
        tell: told of each log that has grown.
        told: told of each revocation: of those that were kept, and of those of others.

    Raises:
        ConfigError: it names none.
    """
    if store == "memory://":
        return MemoryBus(limits, tell)
    path = store.removeprefix(_SQLITE)
    if store.startswith(_SQLITE) and path:
        return SQLiteBus(Path(path), limits, tell, told)
    raise ConfigError(
        f"store is {store!r}; known are 'memory://', 'sqlite:///relative/file' and "
        "'sqlite:////absolute/file'"
    )
