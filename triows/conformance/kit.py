"""A whole run: the vectors, then the checks, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

import triows
from triows.conformance.checks import CHECKS
from triows.conformance.live import LiveStage, reason_to_leave_out
from triows.conformance.matcher import Mismatch
from triows.conformance.player import Player
from triows.conformance.report import Outcome, Report, Result
from triows.conformance.rig import Check, LeftOut, Rig
from triows.conformance.target import Target
from triows.conformance.vectors import Case, load_cases, load_tokens
from triows.errors import ConfigError

_LONGEST: Final = 30.0  # seconds of one case; the deadline of each answer is shorter


@attrs.frozen
class Tokens:
    """The tokens of a run.

    Attributes:
        secret: signs what is not given; empty: only those given are there.
        given: ready made, by name.
    """

    secret: str = ""
    given: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def read(cls, secret_file: Path | None, given: Mapping[str, str]) -> Tokens:
        """Read the file with the secret.

        Raises:
            ConfigError: it cannot be read, or there are no tokens at all.
        """
        if secret_file is None:
            if not given:
                raise ConfigError("no tokens: give --secret-file, or --token ann=… and so on")
            return cls("", given)
        try:
            return cls(secret_file.read_text("utf-8").strip(), given)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--secret-file: cannot read {secret_file}: {error}") from None

    def fresh(self) -> dict[str, str]:
        """Return the tokens by name; what is signed here is signed now.

        Raises:
            ConfigError: the secret is too short.
        """
        made = {
            name: triows.make_token(
                self.secret, claims["sub"], ttl=claims["exp"], **claims["triows"]
            )
            for name, claims in load_tokens().items()
            if self.secret
        }
        return made | dict(self.given)


async def run(target: Target, tokens: Tokens, only: list[str], report: Report) -> None:
    """Play what there is, and tell the report.

    Args:
        target: the server.
        tokens: those there are.
        only: beginnings of the names of what is played; empty: everything.
        report: is told each result as it comes.

    Raises:
        ConfigError: `only` names nothing.
    """
    cases, known = load_cases(), load_tokens()
    own = Rig(target, {}).own
    names = [name for name in (*cases, *CHECKS) if not only or name.startswith(tuple(only))]
    if not names:
        raise ConfigError(f"--only: no case begins with {' or '.join(only)}")
    for number, name in enumerate(names):
        report.begin(name)
        if name in CHECKS:
            check = CHECKS[name]
            play = partial(_make, check, target, tokens)
            report.add(await _outcome(name, check.section, play))
        elif reason := reason_to_leave_out(cases[name], known, tokens.fresh()):
            report.add(Result(name, "", Outcome.LEFT_OUT, reason))
        else:
            play = partial(_play, cases[name], target, tokens, f"{own}/v{number}/")
            report.add(await _outcome(name, "", play))


async def _play(case: Case, target: Target, tokens: Tokens, own: str) -> None:
    await Player(LiveStage(target), case, tokens.fresh(), own).play()


async def _make(check: Check, target: Target, tokens: Tokens) -> None:
    async with Rig(target, tokens.fresh()) as rig:
        await check.run(rig)


async def _outcome(name: str, section: str, play: Callable[[], Awaitable[Any]]) -> Result:
    """Play one case; no failure of the server, and no odd answer of it, ends the run."""
    began = trio.current_time()
    outcome, detail = Outcome.PASSED, ""
    try:
        with trio.fail_after(_LONGEST):
            await play()
    except trio.TooSlowError:
        outcome, detail = Outcome.FAILED, f"not done within {_LONGEST:g} s"
    except Exception as error:
        outcome, detail = _explain(error)
    return Result(name, section, outcome, detail, trio.current_time() - began)


def _explain(error: Exception) -> tuple[Outcome, str]:
    """Return what an exception says about the server."""
    found = list(_leaves(error))
    for wrong in found:
        if isinstance(wrong, Mismatch):
            return Outcome.FAILED, str(wrong)
    for wrong in found:
        if isinstance(wrong, LeftOut):
            return Outcome.LEFT_OUT, str(wrong)
    return Outcome.FAILED, f"expected an answer as in the protocol, got one that gives {found[0]!r}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
