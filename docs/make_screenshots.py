"""Takes the screenshots in docs/images, from the real thing.

`.venv/bin/python -m docs.make_screenshots`, in the venv of ./tests/run: starts
`triows serve --dev`, runs this project's own tests and checks through `triows run`, watches some
of them with `triows tail`, and looks at it all with chromium.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.support_browser import ROOT, open_browser
from tests.support_dashboard import Dashboard

IMAGES: Final = Path(__file__).parent / "images"
TRIOWS: Final = [sys.executable, "-c", "import triows.cli; triows.cli.main()"]
PYTEST: Final = [sys.executable, "-m", "pytest", "-v", "--color=yes"]
DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
GATHER: Final = 30  # seconds for the charts to have something to show

SESSIONS: Final = {
    "triows/types": [sys.executable, "-m", "mypy", "--pretty"],
    "triows/compile": [sys.executable, "-m", "compileall", "-f", "triows"],
    "triows/missing": [*PYTEST, "tests/test_missing.py"],
    "triows/quiet": ["sleep", "600"],
    "triows/tests": [*PYTEST, "tests", "-m", "not slow"],
}
WATCHED: Final = ("triows/tests", "triows/tests", "triows/quiet")


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    """Serve on a free port; the link for the browser, and the start of a `triows run`."""
    command = [*TRIOWS, "serve", "--dev", "--server.port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        link, run = "", []
        for line in server.stdout:
            if found := re.search(r" run --url (\S+) --token (\S+)", line):
                run = [*TRIOWS, "run", "--url", found[1], "--token", found[2]]
            if found := re.match(r"http://\S+#token=\S+", line):
                link = found[0]
                break
        try:
            yield link, run
        finally:
            server.terminate()


@contextmanager
def running(run: list[str]) -> Iterator[None]:
    """Run all sessions at once; those that still run in the end are stopped."""
    with ExitStack() as stack:
        for name, command in SESSIONS.items():
            _start(stack, [*run, "--id", name, "--", *command])
        for name in WATCHED:
            tail = [each if each != "run" else "tail" for each in run]
            _start(stack, [*tail, f"session:{name}"])
        yield


def _start(stack: ExitStack, command: list[str]) -> None:
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stdin=null, stdout=null, stderr=null)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def show(dashboard: Dashboard, view: str, size: tuple[int, int], theme: str) -> None:
    """Show a view as it is to be pictured."""
    dashboard.set_width(*size)
    dashboard.set_theme(theme)
    dashboard.run("location.hash = arguments[0]", f"#/{view}")
    time.sleep(5)  # two rounds of figures


def take(dashboard: Dashboard, name: str) -> None:
    """Take one picture."""
    path = IMAGES / f"{name}.png"
    path.write_bytes(_smaller(dashboard.driver.get_screenshot_as_png()))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


def _smaller(png: bytes) -> bytes:
    """Compress an image as well as it can be; the browser is in a hurry."""
    chunks, at, pixels = [], 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            pixels += data
            continue
        if kind == b"IEND":
            chunks.append((b"IDAT", zlib.compress(zlib.decompress(pixels), 9)))
        chunks.append((kind, data))
    whole = (k + d for k, d in chunks)
    sums = (struct.pack(">I", len(b) - 4) + b + struct.pack(">I", zlib.crc32(b)) for b in whole)
    return png[:8] + b"".join(sums)


def main() -> None:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory())
        link, run = stack.enter_context(serving())
        driver = stack.enter_context(open_browser(Path(profile)))
        stack.enter_context(running(run))
        dashboard = Dashboard(driver, link.split("/#")[0])
        dashboard.set_width(*DESKTOP)
        driver.get(link)
        dashboard.see("nav a")
        time.sleep(GATHER)
        log = "log/session:triows/tests"
        for name, view, size, theme in (
            ("log", log, DESKTOP, "dark"),
            ("sessions", "", DESKTOP, "light"),
            ("phone-log", log, PHONE, "light"),
            ("phone-sessions", "", PHONE, "dark"),
            ("connections", "connections", DESKTOP, "light"),
            ("server", "server", DESKTOP, "dark"),
        ):
            show(dashboard, view, size, theme)
            take(dashboard, name)


if __name__ == "__main__":
    main()
