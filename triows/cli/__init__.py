"""The command line: `triows serve`, `run`, `tail`, `publish`, `token`, `config`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the entry point `triows`."""
    try:
        from triows.cli.app import run_app
    except ModuleNotFoundError as error:
        if error.name in ("cyclopts", "rich", "structlog", "typed_settings"):
            sys.exit(f"triows: {error.name} is missing: pip install 'triows[server]'")
        raise
    sys.exit(run_app(sys.argv[1:]))
