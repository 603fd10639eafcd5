"""The command `python -m triows.conformance`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

import trio

from triows.conformance.kit import Tokens, run
from triows.conformance.report import Report
from triows.conformance.talk import PATIENCE
from triows.conformance.target import Target
from triows.errors import ConfigError

_ABOUT: Final = """
Check a server against docs/protocol.md: play the test vectors, then races, cut connections, odd
bytes and limits. Exit status: 0, 1 when a case failed or none could be played, 2 for an error of
use, 130 after Ctrl-C.
"""


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m triows.conformance", description=_ABOUT)
    parser.add_argument("url", help="ws://host:port/ws or wss://…")
    parser.add_argument(
        "--secret-file", type=Path, help="HMAC secret of the server: signs the tokens"
    )
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        metavar="NAME=TOKEN",
        help="a token ready made, instead of that of tokens.json; may be repeated",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="play only what begins with this name, `publish` or `resume: many`; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long the server has for each answer (%(default)g)",
    )
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and less than 1000")
    return value


def _named(given: list[str]) -> dict[str, str]:
    """Read tokens that were given as NAME=TOKEN."""
    for text in given:
        name, equals, token = text.partition("=")
        if not (name and equals and token.isascii() and token.isprintable() and token.strip()):
            raise ConfigError(f"--token {name}: expected NAME=TOKEN, for example ann=eyJhbGciOi…")
    return dict(text.split("=", 1) for text in given)


def main(arguments: list[str]) -> int:
    """Run the kit; return the exit status."""
    options = _parse(arguments)
    report = Report()
    try:
        try:
            _run(options, report)
        finally:
            if report.results:
                print(report.summary(), flush=True)
    except BrokenPipeError:  # nobody reads on, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConfigError, OSError) as error:
        print(f"triows.conformance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return int(report.failed)


def _run(options: argparse.Namespace, report: Report) -> None:
    target = Target.parse(options.url, options.patience)
    tokens = Tokens.read(options.secret_file, _named(options.token))
    tokens.fresh()
    trio.run(run, target, tokens, options.only, report)
    if options.json is not None:
        report.write(options.json, options.url)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
