"""`python -m benchmarks.setup`: installs the rivals that npm and PyPI have, below `.rivals`.

Their versions are pinned in `benchmarks/rivals`. What only the system has is told, not installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.choice import RIVALS
from benchmarks.homes import MODULES, PYTHON, ROOT, node

PINNED = ROOT / "benchmarks" / "rivals"


def main() -> int:
    """Install, and say what every rival lacks; 1 if an installation failed."""
    failed = False
    for step in (_python, _npm):
        try:
            step()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"this failed: {error}", file=sys.stderr)
            failed = True
    for candidate in RIVALS:
        print(f"{candidate.name}: {candidate.missing() or _versions(candidate.versions())}")
    return 1 if failed else 0


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _python() -> None:
    """Make the virtual environment; without pip of its own, as Debian has no ensurepip."""
    venv.create(PYTHON.parent.parent, clear=True)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}"
    pip = [str(base), "-m", "pip", "--python", str(PYTHON), "--disable-pip-version-check"]
    wanted = str(PINNED / "requirements.txt")
    subprocess.run([*pip, "install", "--quiet", "-r", wanted], check=True)


def _npm() -> None:
    """Install from the lock, without running the packages' own scripts."""
    place = MODULES.parent
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, place)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([*_npm_command(), "ci", "--prefix", str(place), *options], check=True)


def _npm_command() -> list[str]:
    """Return the npm that belongs to the Node in use."""
    program = node()
    if program is None:
        raise OSError("npm needs Node: `pip install -e '.[dev]'` installs it")
    script = Path(program).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [program, str(script)] if script.exists() else ["npm"]


if __name__ == "__main__":
    sys.exit(main())
