"""The dashboard, used as a person would: logging in, the list, connections, charts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys

import triows
from tests.support import SECRET
from tests.support_browser import browser, shared_browser, wait_until
from tests.support_dashboard import ADMIN, Dashboard, DashboardServer, serving
from tests.support_ports import hold_port

__all__ = ["browser", "shared_browser"]
pytestmark = pytest.mark.slow

VIEWER = triows.make_token(SECRET, "vic", subscribe=["session:*"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardServer]:
    """A server with a few sessions."""
    with serving(tmp_path_factory.mktemp("server")) as opened:
        opened.log("session:good", "all is well")
        opened.end("session:good", exit_code=0)
        opened.log("session:bad/1", "oh no", "oh no", "oh no")
        opened.end("session:bad/1", exit_code=2, reason="as expected")
        opened.log("workspace:w1", "hello")
        yield opened


@pytest.fixture
def dashboard(browser: Chrome, server: DashboardServer) -> Iterator[Dashboard]:
    """The dashboard, not logged in; what the console complains about fails the test."""
    opened = Dashboard(browser, server.url)
    opened.set_width(1280, 800)
    browser.get(f"{server.url}/dashboard/")
    opened.run("sessionStorage.clear(); localStorage.clear()")
    browser.get("about:blank")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    yield opened
    allowed = ("401 (", "403 (", "404 (")  # the browser reports every answer that is an error
    complaints = [each for each in opened.complaints() if not any(a in each for a in allowed)]
    assert complaints == []


def test_link_logs_in_and_leaves_no_token_behind(dashboard: Dashboard) -> None:
    """The token of a link is taken out of the address, and kept for this tab alone."""
    dashboard.open()

    dashboard.see(".connection", "live")
    dashboard.see(".who", "ann")
    assert dashboard.driver.current_url == f"{dashboard.url}/dashboard/#/"
    assert dashboard.run("return sessionStorage['triows.token']") == ADMIN
    assert ADMIN not in dashboard.run("return JSON.stringify(localStorage) + document.cookie")
    assert ADMIN not in dashboard.run(
        "return performance.getEntriesByType('resource').map(e => e.name).join()"
    )
    dashboard.driver.refresh()
    dashboard.see(".who", "ann")


def test_link_opens_its_session(dashboard: Dashboard) -> None:
    """A link may name the session to watch, with a name that holds a slash."""
    dashboard.open("log/session:bad/1")

    dashboard.see("h1", "session:bad/1")
    dashboard.last_line("Ended with exit code 2: as expected")
    assert dashboard.driver.current_url.endswith("/dashboard/#/log/session:bad/1")


def test_form_logs_in_and_out(dashboard: Dashboard) -> None:
    """A token can be pasted; a wrong one is refused with the reason; logging out forgets it."""
    dashboard.driver.get(dashboard.url)
    dashboard.see("h1", "Watch live sessions")
    assert dashboard.run("return document.activeElement.id") == "token"

    dashboard.keys("nonsense", Keys.ENTER)
    dashboard.see(".error", "The server refused it")
    assert dashboard.run("return document.querySelector('#token').ariaInvalid") == "true"
    dashboard.keys(ADMIN, Keys.ENTER)
    dashboard.see(".who", "ann")

    dashboard.press("Log out")
    dashboard.see("h1", "Watch live sessions")
    assert dashboard.run("return sessionStorage.length") == 0


def test_wrong_token_in_a_link(dashboard: Dashboard) -> None:
    """A link whose token has expired says so, and asks for another."""
    dashboard.driver.get(f"{dashboard.url}/#token={triows.make_token(SECRET, 'old', ttl=-5)}")

    dashboard.see(".login .error", "expired")
    dashboard.see("#token")
    assert "token=" not in dashboard.driver.current_url


def test_list_shows_states(dashboard: Dashboard, server: DashboardServer) -> None:
    """Running sessions are first; what has ended says how."""
    server.log("session:now", "on it")
    dashboard.open()

    dashboard.see("tr", "session:now")
    rows = {row.text.split()[0]: row.text for row in dashboard.all("tbody tr")}
    assert "running" in rows["session:now"]
    assert "✓" not in rows["session:now"]
    assert "exit 0" in rows["session:good"]
    assert "exit 2" in rows["session:bad/1"]
    assert next(iter(rows)) == "session:now"


def test_list_is_filtered_and_sorted_by_keyboard(dashboard: Dashboard) -> None:
    """The list can be cut down to a state and to words, and sorted, without a mouse."""
    dashboard.open()
    dashboard.see("tr", "session:good")

    dashboard.keys("/")
    dashboard.keys("bad")
    wait_until("one row", lambda: len(dashboard.all("tbody tr")) == 1)
    dashboard.keys("zzz")
    dashboard.see(".empty", "No channel matches")
    dashboard.keys(*[Keys.BACKSPACE] * 6)
    dashboard.press("Ended", ".chip")
    wait_until("two rows", lambda: len(dashboard.all("tbody tr")) == 2)

    button = dashboard.see("thead button", "Messages")
    dashboard.run("arguments[0].focus()", button)
    dashboard.keys(Keys.ENTER)
    assert dashboard.see("[aria-sort=descending]").text.startswith("Messages")
    assert [row.text.split()[0] for row in dashboard.all("tbody tr")] == [
        "session:bad/1",
        "session:good",
    ]
    dashboard.keys(Keys.ENTER)
    dashboard.see("[aria-sort=ascending]", "Messages")
    assert dashboard.all("tbody tr")[0].text.startswith("session:good")


def test_viewer_sees_no_views_for_administrators(dashboard: Dashboard) -> None:
    """A token without `admin` sees its channels, and nothing it would be refused."""
    dashboard.open(token=VIEWER)

    dashboard.see("tr", "session:good")
    assert [link.text for link in dashboard.all("nav a")] == ["Sessions"]
    assert not dashboard.run("return document.body.textContent.includes('workspace:w1')")
    dashboard.run("location.hash = '#/log/session:now'")
    dashboard.see("h1", "session:now")
    assert dashboard.all(".steering") == []
    dashboard.run("location.hash = '#/log/workspace:w1'")
    dashboard.see(".log-note", "cannot be watched")


def test_connections_and_why_others_are_gone(dashboard: Dashboard) -> None:
    """Who is connected is seen, and can be disconnected, after a question."""
    dashboard.open("connections")

    dashboard.see("tbody th", "ann")
    dashboard.press("Disconnect ann")
    dashboard.see("dialog", "Disconnect it?")
    assert dashboard.focus() == "Cancel"
    dashboard.keys(Keys.ENTER)
    dashboard.gone("dialog")
    dashboard.see(".connection", "live")

    dashboard.press("Disconnect ann")
    dashboard.press("Disconnect", "dialog .danger")
    dashboard.see(".told", "Disconnected")
    dashboard.see(".connection", "disconnected")
    dashboard.see("td.reason", "4503")
    dashboard.press("Connect again")
    dashboard.see(".connection", "live")


def test_charts_are_drawn_and_told_in_words(dashboard: Dashboard, server: DashboardServer) -> None:
    """Each chart has a canvas, and says its figures as text."""
    dashboard.open("server")

    dashboard.see("figcaption", "open 1")
    wait_until("four charts", lambda: len(dashboard.all(".chart canvas")) == 4)
    server.log("session:flow", *["x"] * 500)
    dashboard.wait(
        "a rate above nothing",
        "return /published [1-9]/.test(document.querySelector('figcaption').textContent)",
    )
    dashboard.see(".figures", "Channels")
    assert dashboard.run(
        """const canvas = document.querySelector('.chart canvas')
        return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
            .data.some((value) => value > 0)"""
    )


def test_lost_server_is_told_and_found_again(
    browser: Chrome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """While the server is away, words say so; when it is back, the view goes on by itself."""
    with hold_port() as held:
        port = held.getsockname()[1]
        with serving(tmp_path_factory.mktemp("first"), port=port) as first:
            first.log("session:old", "before")
            page = Dashboard(browser, first.url)
            page.set_width(1280, 800)
            page.open("log/session:old")
            page.see_line("before")
        page.see(".connection", "reconnecting")
        page.see("#trouble", "cannot be reached")

        with serving(tmp_path_factory.mktemp("second"), port=port) as second:
            second.log("session:old", "after")
            page.see(".connection", "live")
            page.see_line("The server was restarted: a new log begins")
            page.see_line("after")
            page.gone("#trouble")


def test_expired_token_is_asked_for_without_losing_the_view(
    dashboard: Dashboard, server: DashboardServer
) -> None:
    """When the token expires another is asked for, over the page, and all goes on."""
    server.log("session:long", "first")
    short = triows.make_token(SECRET, "vic", ttl=12, subscribe=["session:*"])
    dashboard.open("log/session:long", token=short)
    dashboard.see_line("first")

    dashboard.see("dialog", "A new token is needed")
    dashboard.see_line("first")
    server.log("session:long", "meanwhile")
    dashboard.keys(VIEWER, Keys.ENTER)
    dashboard.gone("dialog")
    dashboard.see_line("meanwhile")
    assert dashboard.lines() == ["first", "meanwhile"]


def test_log_says_when_it_is_not_watched_any_more(
    dashboard: Dashboard, server: DashboardServer
) -> None:
    """What was there stays, also when the connection is ended for good; then it goes on."""
    channel = "session:cut"
    server.log(channel, "first")
    dashboard.open(f"log/{channel}", token=triows.make_token(SECRET, "eve", admin=True))
    dashboard.see_line("first")

    server.revoke("eve")
    dashboard.see("dialog", "A new token is needed")
    dashboard.see(".follow-state", "Not watched any more")
    server.log(channel, "second")
    dashboard.keys(triows.make_token(SECRET, "bob", admin=True), Keys.ENTER)
    dashboard.gone("dialog")
    dashboard.see_line("second")
    dashboard.see(".follow-state", "Following · 2 lines")
    assert dashboard.lines() == ["first", "second"]


def test_empty_server_says_what_to_do_next(browser: Chrome, tmp_path: Path) -> None:
    """Where nothing is streamed yet, the command to try is shown."""
    with serving(tmp_path) as empty:
        page = Dashboard(browser, empty.url)
        page.open(token=VIEWER)
        page.see(".empty", "Nothing is streamed yet")
        page.see(".command", "triows run --url ws://")


@pytest.mark.parametrize("view", ["", "connections", "server", "log/session:bad/1"])
@pytest.mark.parametrize("width", [390, 760])
def test_phone_scrolls_in_one_direction(dashboard: Dashboard, view: str, width: int) -> None:
    """Nothing is wider than a phone."""
    dashboard.set_width(width)
    dashboard.open(view)
    dashboard.see("h1")
    dashboard.wait(
        "something to see", "return document.querySelectorAll('td, dd, .line').length > 1"
    )

    root = "document.scrollingElement"
    assert dashboard.run(f"return {root}.scrollWidth") <= width
    assert dashboard.run("return document.querySelector('main').scrollWidth") <= width


def test_theme_is_chosen_and_kept(dashboard: Dashboard) -> None:
    """The theme follows the system until one is chosen."""
    paper = "return getComputedStyle(document.body).backgroundColor"
    dashboard.set_theme("dark")
    dashboard.open()
    dark = dashboard.run(paper)

    dashboard.press("Theme: auto")
    light = dashboard.run(paper)
    assert light != dark
    dashboard.driver.refresh()
    dashboard.see("nav a")
    assert dashboard.run(paper) == light
    dashboard.press("Theme: light")
    assert dashboard.run(paper) == dark
    dashboard.set_theme("light")


def test_sessions_after_a_restart(browser: Chrome, tmp_path: Path) -> None:
    """With a store on disk, sessions of before are listed, each in its state."""
    flags = ("--store", f"sqlite:///{tmp_path / 'store.db'}")
    with serving(tmp_path, *flags) as first:
        first.log("session:over", "one", "two")
        first.end("session:over", exit_code=2)
        first.log("session:quiet", "one")
    with serving(tmp_path, *flags) as second:
        opened = Dashboard(browser, second.url)
        opened.open()
        opened.see(".summary", "3 channels")
        opened.see("tr", "session:over")
        opened.see("tr:has([href='#/log/session:over']) .badge", "exit 2")
        opened.see("tr:has([href='#/log/session:over'])", "3")
        opened.see("tr:has([href='#/log/session:quiet']) .badge", "quiet")
