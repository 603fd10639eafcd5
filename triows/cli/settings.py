"""Settings from a TOML file, the environment and flags, each under one name.

`limits.max_connections` is so in the file, `TRIOWS_LIMITS_MAX_CONNECTIONS` in the environment
and `--limits.max-connections` as a flag. Flags win over the environment, that over the file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs
import typed_settings as ts
from cyclopts import App, ArgumentCollection
from typed_settings.exceptions import TsError
from typed_settings.loaders import DictLoader, EnvLoader, FileLoader

from triows import ConfigError, Settings

PREFIX: Final = "TRIOWS_"

# It logs what it raises as well; once is enough.
logging.getLogger("typed-settings").setLevel(logging.CRITICAL)


@final
class FlagRecorder:
    """Notes which settings were given as flags: the parser itself only knows the outcome.

    Attributes:
        given: the words of each flag, by the path of its setting.
    """

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Called by the parser for each command."""
        paths = {path for path, _ in fields(Settings())}
        for argument in arguments:
            path = argument.name.removeprefix("--").replace("-", "_")
            if path in paths and argument.tokens:
                self.given[path] = [
                    str(token.implicit_value)
                    if token.implicit_value is not None and not token.value
                    else token.value
                    for token in argument.tokens
                    if isinstance(token.value, str)
                ]


flags: Final = FlagRecorder()


def fields(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each setting, in order."""
    for field in attrs.fields(Settings):
        value = getattr(settings, field.name)
        if attrs.has(type(value)):
            for inner in attrs.fields(type(value)):
                yield f"{field.name}.{inner.name}", getattr(value, inner.name)
        else:
            yield field.name, value


def load(config: Path | None) -> Settings:
    """Return the settings that hold, of file, environment and flags.

    Raises:
        ConfigError: naming the file or variable, and the key that is wrong.
    """
    path = _config_path(config)
    if path is not None:
        _read(path)
    _check_environment()
    converter = ts.converters.get_default_cattrs_converter()
    ts.register_strlist_hook(converter, sep=",")
    loaders: list[Any] = [EnvLoader(PREFIX), DictLoader(_nested(flags.given))]
    if path is not None:
        loaders.insert(0, FileLoader({"*": ts.TomlFormat(None)}, [f"!{path}"]))
    try:
        with attrs.validators.disabled():  # done below, where the errors stay our own
            loaded = ts.load_settings(Settings, loaders, converter=converter)
    except (TsError, ExceptionGroup) as error:
        raise ConfigError(f"bad settings: {_first_reason(error, config)}") from None
    _validate(loaded, config)
    return loaded


def _check_environment() -> None:
    """Refuse a misspelt variable, as a misspelt key is: it would be ignored in silence."""
    known = {PREFIX + path.upper().replace(".", "_") for path, _ in fields(Settings())}
    sections = tuple(f"{PREFIX}{f.name.upper()}_" for f in attrs.fields(Settings))
    for name in os.environ:
        if name.startswith(sections) and name not in known:
            raise ConfigError(f"the environment has {name}, which is no setting")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _validate(settings: Settings, config: Path | None) -> None:
    for section in attrs.fields(Settings):
        value = getattr(settings, section.name)
        if not attrs.has(type(value)):
            continue
        try:
            attrs.validate(value)
        except ConfigError as error:
            source = sources(config).get(str(error).split()[0], "default")
            raise ConfigError(f"{error} ({source})") from None


def _config_path(config: Path | None) -> Path | None:
    named = os.environ.get(f"{PREFIX}CONFIG")
    return config or (Path(named) if named else None)


def _nested(given: Mapping[str, list[str]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, words in given.items():
        *sections, name = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = ",".join(words)
    return nested


def _first_reason(error: BaseException, config: Path | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    told = re.match(r"Could not convert value (.+) for option '([\w.]+)' from", str(error))
    if told is None:
        return str(error)
    return f"{told[2]} cannot be {told[1]} ({sources(config)[told[2]]})"


def sources(config: Path | None) -> dict[str, str]:
    """Return for each setting where its value came from."""
    path = _config_path(config)
    in_file = _read(path) if path is not None else {}
    return {name: _source(name, path, in_file) for name, _ in fields(Settings())}


def _source(name: str, path: Path | None, in_file: Mapping[str, Any]) -> str:
    if name in flags.given:
        return f"flag --{name.replace('_', '-')}"
    variable = PREFIX + name.upper().replace(".", "_")
    if variable in os.environ:
        return f"environment {variable}"
    place: Any = in_file
    for part in name.split("."):
        place = place.get(part, place.get(part.replace("_", "-"))) if place else None
    return "default" if place is None else f"file {path}"


def as_toml(settings: Settings, origin: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a TOML file with these settings, and where each came from."""
    section = ""
    ordered = sorted(fields(settings), key=lambda item: "." in item[0])  # bare ones come first
    for path, value in ordered:
        head, _, name = path.rpartition(".")
        if head != section:
            section = head
            yield f"\n[{section}]"
        shown = settings.shown_store if path == "store" else value
        yield f"{name} = {_toml(shown)}  # {origin[path]}"


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
