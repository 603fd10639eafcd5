"""`python -m benchmarks.setup`: installs the rivals that npm and PyPI have, below `.rivals`.

Their versions are pinned in `benchmarks/rivals`; what is there in these versions is left alone.
What only the system has is told, not installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.choice import RIVALS
from benchmarks.homes import MODULES, PYTHON, ROOT, node

PINNED = ROOT / "benchmarks" / "rivals"


def main() -> int:
    """Install, and say what every rival lacks; 1 if an installation failed."""
    failed = False
    for step, place, *pinned in _STEPS:
        try:
            once(step, place, [(PINNED / name).read_text() for name in pinned])
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"this failed: {error}", file=sys.stderr)
            failed = True
    for candidate in RIVALS:
        print(f"{candidate.name}: {candidate.missing() or _versions(candidate.versions())}")
    return 1 if failed else 0


def once(step: Callable[[Path], None], place: Path, pinned: list[str]) -> None:
    """Do a step, unless it was done before with the same versions."""
    done, wanted = place / "installed", "\n".join(pinned)
    if done.exists() and done.read_text() == wanted:
        return
    done.unlink(missing_ok=True)
    step(place)
    done.write_text(wanted)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _python(place: Path) -> None:
    """Make the virtual environment; without pip of its own, as Debian has no ensurepip."""
    venv.create(place, clear=True, symlinks=True)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}"
    pip = [str(base), "-m", "pip", "--python", str(PYTHON), "--disable-pip-version-check"]
    wanted = str(PINNED / "requirements.txt")
    subprocess.run([*pip, "install", "--quiet", "-r", wanted], check=True)


def _npm(place: Path) -> None:
    """Install from the lock, without running the packages' own scripts."""
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


_STEPS = (
    (_python, PYTHON.parent.parent, "requirements.txt"),
    (_npm, MODULES.parent, "package.json", "package-lock.json"),
)


if __name__ == "__main__":
    sys.exit(main())
