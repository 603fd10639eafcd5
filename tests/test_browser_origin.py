"""What a page of another origin can do with a server: nothing, even with somebody's token."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.support import token
from tests.support_browser import LiveServer, Page, browser, live_server, page, shared_browser

__all__ = ["browser", "live_server", "page", "shared_browser"]
pytestmark = pytest.mark.slow

ADMIN = token("root", admin=True)
_FETCH = """
    const [url, options, done] = arguments;
    fetch(url, options).then(
        async (answer) => done([answer.type, answer.status, await answer.text()]),
        (error) => done([error.name, 0, ""]),
    );
"""
_OPEN = """
    const [url, protocols, done] = arguments;
    const socket = new WebSocket(url, protocols);
    socket.onopen = () => done("open");
    socket.onclose = (event) => done(event.code);
"""
_FRAME = """
    const [url, done] = arguments;
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.onload = () => setTimeout(() => {
        try {
            done(frame.contentWindow.document.title);
        } catch (error) {
            done(error.name);
        }
    });
    frame.src = url;
"""


def _fetch(driver: Chrome, url: str, **options: Any) -> list[Any]:
    found: list[Any] = driver.execute_async_script(_FETCH, url, options)
    return found


@pytest.fixture
def http(browser: Chrome, page: Page, live_server: LiveServer) -> str:
    """The address of a server that takes no page of another origin; one of those is open."""
    live_server.kill()
    live_server.start(server={"allowed_origins": []})
    live_server.publish("session:42", 3)
    browser.get(page.url)
    return f"http://127.0.0.1:{live_server.port}"


@pytest.mark.parametrize(
    "path",
    ["/api/connections", "/api/channels/session:42/messages", "/metrics", "/openapi.json"],
)
def test_foreign_page_cannot_read(browser: Chrome, http: str, path: str) -> None:
    """Neither with the token of somebody it robbed, nor without."""
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    assert _fetch(browser, http + path, headers=bearer) == ["TypeError", 0, ""]
    assert _fetch(browser, http + path) == ["TypeError", 0, ""]
    # Without CORS a page may ask, but is not told.
    assert _fetch(browser, http + path, mode="no-cors")[1:] == [0, ""]


def test_foreign_page_cannot_publish(browser: Chrome, http: str, live_server: LiveServer) -> None:
    """Nor can it write, in any of the ways that need no permission."""
    messages = f"{http}/api/channels/session:42/messages"
    text = '{"type": "log", "data": 1}'
    for mode in ("cors", "no-cors"):
        answer = _fetch(browser, messages, method="POST", body=text, mode=mode)
        assert answer[1:] == [0, ""]
    own = f"{http}/dashboard/"
    browser.get(own)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    kind, status, body = _fetch(browser, messages, headers=headers)
    assert (kind, status) == ("basic", 200)
    assert '"offset":3,' in body
    assert '"offset":4,' not in body


def test_foreign_page_cannot_connect(browser: Chrome, http: str) -> None:
    """Neither with a token as a subprotocol, nor to send one afterwards."""
    url = http.replace("http", "ws") + "/ws"
    for protocols in (["triows.v1"], ["triows.v1", f"bearer.{ADMIN}"]):
        assert browser.execute_async_script(_OPEN, url, protocols) == 1006


def test_foreign_page_cannot_frame_the_dashboard(browser: Chrome, http: str) -> None:
    """A page of ours inside a page of theirs could be clicked unseen: it stays empty."""
    assert browser.execute_async_script(_FRAME, f"{http}/dashboard/") == "SecurityError"
    browser.switch_to.frame(0)
    assert browser.execute_script("return document.querySelector('#app, main, nav')") is None
