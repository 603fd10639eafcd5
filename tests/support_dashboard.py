"""The dashboard as a person has it: the server in a process of its own, and a browser on it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

import triows
from tests.support import SECRET
from tests.support_browser import DEADLINE, wait_until

MAX_LINES: Final = 1000  # published with one request
MAX_BYTES: Final = 1 << 20
ADMIN: Final = triows.make_token(SECRET, "ann", admin=True)


class DashboardServer:
    """`triows serve`, and messages published to it.

    Attributes:
        url: of the dashboard.
    """

    def __init__(self, folder: Path, *flags: str, port: int = 0) -> None:
        secret = folder / "secret"
        secret.write_text(SECRET)
        command = f"serve --auth.secret-file {secret} --server.port {port}"
        limits = "--limits.messages-per-second 0 --limits.handshakes-per-second-per-address 0"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import triows.cli; triows.cli.main()",
                *command.split(),
                *limits.split(),
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if " listens on " in line:
                break
        self.url = line.split()[-1].replace("ws", "http", 1).removesuffix("/ws")
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        """Kill it, without a word to anybody."""
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait(DEADLINE)
        self._process.stderr.close()

    def publish(self, channel: str, messages: Iterable[dict[str, Any]]) -> None:
        """Publish messages in order; returns when they are kept."""
        path = f"/api/channels/{quote(channel, safe='')}/messages"
        for body in _batches(json.dumps(each).encode() + b"\n" for each in messages):
            answer = self._post(path, body, "application/x-ndjson")
            assert not any("error" in result for result in answer["results"]), answer

    def log(self, channel: str, *lines: Any, **more: Any) -> None:
        """Publish lines as `triows run` does."""
        self.publish(channel, ({"type": "log", "data": {"text": t, **more}} for t in lines))

    def end(self, channel: str, **data: Any) -> None:
        """End a channel."""
        self.publish(channel, [{"type": "end", "data": data}])

    def revoke(self, user: str) -> None:
        """Cut all connections of a user, and refuse its tokens."""
        self._post("/api/revocations", json.dumps({"user": user}).encode(), "application/json")

    def _post(self, path: str, body: bytes, kind: str) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)


def _batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines into bodies that the server takes: neither too many at once, nor too large."""
    batch: list[bytes] = []
    for line in lines:
        if batch and (len(batch) == MAX_LINES or sum(map(len, batch)) + len(line) > MAX_BYTES):
            yield b"".join(batch)
            batch = []
        batch.append(line)
    if batch:
        yield b"".join(batch)


@contextmanager
def serving(folder: Path, *flags: str, port: int = 0) -> Iterator[DashboardServer]:
    """Serve for as long as the block runs; `flags` are of `triows serve`."""
    server = DashboardServer(folder, *flags, port=port)
    try:
        yield server
    finally:
        server.kill()


class Dashboard:
    """The dashboard in a browser, by what a person sees of it."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, view: str = "", *, token: str = ADMIN) -> None:
        """Come by a link with a token in it."""
        self.driver.get("about:blank")
        channel = f"&channel={view.removeprefix('log/')}" if view.startswith("log/") else ""
        self.driver.get(f"{self.url}/#token={token}{channel}")
        self.see("nav a")
        if view and not channel:
            self.run("location.hash = arguments[0]", f"#/{view}")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements there are now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def see(self, selector: str, text: str = "") -> WebElement:
        """Wait until an element that is seen contains a text, and return it."""
        look = """for (const each of document.querySelectorAll(arguments[0]))
            if (each.checkVisibility() && each.textContent.includes(arguments[1])) return each"""
        found: WebElement = wait_until(
            f"{text!r} in {selector}", lambda: self.run(look, selector, text)
        )
        return found

    def gone(self, selector: str) -> None:
        """Wait until no such element is seen."""
        look = "return ![...document.querySelectorAll(arguments[0])].some(e => e.checkVisibility())"
        wait_until(f"{selector} is gone", lambda: self.run(look, selector))

    def press(self, text: str, selector: str = "button, summary") -> None:
        """Click on what has this text or label."""
        look = """return [...document.querySelectorAll(arguments[0])].find(each =>
            each.checkVisibility() &&
            (each.ariaLabel ?? each.textContent).includes(arguments[1]))"""
        wait_until(f"a button {text!r}", lambda: self.run(look, selector, text)).click()

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def with_key(self, held: str, key: str) -> None:
        """Press a key while another is held."""
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def lines(self) -> list[str]:
        """Return the lines of the log that have elements."""
        look = "return [...document.querySelectorAll('.window .text')].map(e => e.textContent)"
        found: list[str] = self.run(look)
        return found

    def see_line(self, text: str) -> WebElement:
        """Wait for a line of the log."""
        return self.see(".window .line", text)

    def last_line(self, text: str) -> None:
        """Wait until the log ends with a line."""
        wait_until(f"last line {text!r}", lambda: (self.lines() or [""])[-1] == text)

    def wait(self, what: str, script: str, *arguments: Any) -> Any:
        """Wait until JavaScript in the page returns something true."""
        return wait_until(what, lambda: self.run(script, *arguments))

    def complaints(self) -> list[str]:
        """Return what the console has: errors, and what the content policy refused."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def focus(self) -> str:
        """Return what has the focus: its label, or else its text."""
        look = "const e = document.activeElement; return e.ariaLabel ?? e.textContent.trim()"
        found: str = self.run(look)
        return found

    def set_width(self, width: int, height: int = 844) -> None:
        """Show it on a screen of this size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def set_theme(self, theme: str) -> None:
        """Have the system prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
