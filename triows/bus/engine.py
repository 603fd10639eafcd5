"""Which engine a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from triows.bus import Bus, Tell, Told
from triows.bus.address import SCHEMES, Address
from triows.bus.memory import MemoryBus
from triows.bus.sqlite import SQLiteBus
from triows.config import LogLimits, hide_password
from triows.errors import ConfigError

_SQLITE: Final = "sqlite:///"
_REDIS: Final = tuple(f"{scheme}:" for scheme in SCHEMES)


def open_bus(store: str, limits: LogLimits, tell: Tell, told: Told) -> Bus:
    """Return the engine that `store` names; enter it before use.

    What follows `sqlite:///` is a path: relative as it is, absolute with a slash of its own
    (`sqlite:////var/lib/triows.db`). For Redis, see `Address`.

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
    if store.startswith(_REDIS):
        return _open_redis(store, limits, tell, told)
    path = store.removeprefix(_SQLITE)
    if store.startswith(_SQLITE) and path:
        return SQLiteBus(Path(path), limits, tell, told)
    raise ConfigError(
        f"store is {store!r}; known are 'memory://', 'sqlite:///relative/file', "
        "'sqlite:////absolute/file', 'redis://host:port/database' and "
        "'redis+cluster://host:port,host:port'"
    )


def _open_redis(store: str, limits: LogLimits, tell: Tell, told: Told) -> Bus:
    """Return the engine whose libraries are an extra."""
    try:
        from triows.bus.redis import RedisBus
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "triows":
            raise
        raise ConfigError(
            f"store is {hide_password(store)!r}, which needs the extra: pip install 'triows[redis]'"
        ) from error
    return RedisBus(Address.parse(store), limits, tell, told)
