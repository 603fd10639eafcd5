"""A session's log in the dashboard: live, long, searched, and taken along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys

import triows
from tests.support import SECRET
from tests.support_browser import browser, shared_browser, wait_until
from tests.support_dashboard import Dashboard, DashboardServer, serving

__all__ = ["browser", "shared_browser"]
pytestmark = pytest.mark.slow

MANY = 50_000
FRAME = 100  # ms that drawing may take, wherever one scrolls to
DRAW = """
    const log = document.querySelector('.log')
    log.scrollTop = arguments[0] * log.scrollHeight
    const done = arguments[1]
    log.dispatchEvent(new Event('scroll'))
    requestAnimationFrame((began) => { // after the log's own, in the same frame
        const shown = [...log.querySelectorAll('.window .line')].filter((line) => {
            const {top, bottom} = line.getBoundingClientRect()
            return bottom > 100 && top < 700
        })
        done([performance.now() - began, shown.length, document.querySelectorAll('*').length])
    })
"""
ESC = "\x1b"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardServer]:
    """A server that keeps long logs."""
    keep = "--log.max-messages", "60000", "--log.max-bytes", "100000000"
    with serving(tmp_path_factory.mktemp("server"), *keep) as opened:
        yield opened


@pytest.fixture
def dashboard(browser: Chrome, server: DashboardServer) -> Iterator[Dashboard]:
    """The dashboard; what the console complains about fails the test."""
    opened = Dashboard(browser, server.url)
    opened.set_width(1280, 800)
    opened.set_theme("light")
    yield opened
    assert opened.complaints() == []


def numbered(first: int, last: int) -> list[str]:
    """Return lines with these numbers."""
    return [f"line {number}" for number in range(first, last + 1)]


def scroll(dashboard: Dashboard, top: str) -> None:
    """Scroll the log, as a person does, to an expression of `log`."""
    dashboard.run(f"const log = document.querySelector('.log'); log.scrollTop = {top}")


def draw_near(dashboard: Dashboard, place: float) -> float:
    """Scroll to three places near a part of the log; return the least time that one took, in ms.

    What else the machine does makes some take longer, none shorter. Each shows other lines: nothing
    that is kept of those seen before makes it easier.
    """
    tries: list[float] = []
    for near in (place, place - 0.003, place - 0.006):
        took, shown, elements = dashboard.driver.execute_async_script(DRAW, near)
        assert shown >= 5
        assert elements < 1000
        tries.append(took)
    return min(tries)


def at_end(dashboard: Dashboard) -> bool:
    """Whether the end of the log is in view."""
    found: bool = dashboard.run(
        """const log = document.querySelector('.log')
        return log.scrollHeight - log.clientHeight - log.scrollTop < 2"""
    )
    return found


def test_log_is_live_and_in_colour(dashboard: Dashboard, server: DashboardServer) -> None:
    """What is published appears at once, with its colours, and how it ended."""
    channel = "session:colours"
    server.publish(channel, [{"type": "status", "data": {"state": "started", "command": "make"}}])
    dashboard.open(f"log/{channel}")
    dashboard.see_line("started: make")
    dashboard.see(".badge", "running")

    server.log(channel, f"{ESC}[1;32mok{ESC}[0m and {ESC}[38;2;0;0;200mblue", stream="stdout")
    server.log(channel, "careful", stream="stderr")
    line = dashboard.see_line("ok and blue")
    spans = dashboard.run(
        "return [...arguments[0].querySelectorAll('.text > *')].map(e => [e.textContent, "
        "e.className, getComputedStyle(e).color])",
        line,
    )
    assert spans[0][:2] == ["ok", "bold fg-2"]
    assert spans[1] == ["blue", "", "rgb(0, 0, 200)"]
    error = dashboard.see_line("careful")
    assert error.text.split() == ["err", "careful"]  # said in a word, not by colour alone

    server.end(channel, exit_code=3)
    dashboard.last_line("Ended with exit code 3")
    dashboard.see(".badge.failed", "exit 3")
    dashboard.see(".follow-state", "Ended · 4 lines")


def test_follow_pause_and_jump_to_live(dashboard: Dashboard, server: DashboardServer) -> None:
    """Scrolling up pauses, and what is read stays in place; the end follows again."""
    channel = "session:follow"
    server.log(channel, *numbered(1, 300))
    dashboard.open(f"log/{channel}")
    dashboard.last_line("line 300")
    assert at_end(dashboard)

    scroll(dashboard, "log.scrollTop - 1000")
    dashboard.see(".jump", "Jump to live")
    seen = dashboard.lines()
    server.log(channel, *numbered(301, 340))
    dashboard.see(".jump", "Jump to live (40 new)")
    assert dashboard.lines() == seen
    dashboard.see(".follow-state", "Paused · 340 lines")

    dashboard.press("Jump to live")
    dashboard.last_line("line 340")
    dashboard.gone(".jump")
    server.log(channel, "line 341")
    dashboard.last_line("line 341")
    assert at_end(dashboard)

    dashboard.press("Pause")
    server.log(channel, "line 342")
    dashboard.see(".jump", "(1 new)")
    dashboard.run("document.querySelector('.log').focus()")
    dashboard.keys(Keys.END)
    dashboard.last_line("line 342")
    dashboard.keys(Keys.PAGE_UP)
    dashboard.see(".jump")
    dashboard.keys(*[Keys.PAGE_DOWN] * 3)
    dashboard.gone(".jump")


def test_scrolling_back_loads_what_is_older(dashboard: Dashboard, server: DashboardServer) -> None:
    """The first 500 messages are only the newest; older ones come as one scrolls up."""
    channel = "session:older"
    server.log(channel, *numbered(1, 1800))
    dashboard.open(f"log/{channel}")
    dashboard.last_line("line 1800")
    dashboard.see(".follow-state", "500 lines")

    scroll(dashboard, "0")
    dashboard.see(".follow-state", "1,000 lines")
    dashboard.see_line("line 1301")  # what was read is still in view
    for lines in ("1,500 lines", "1,800 lines"):
        scroll(dashboard, "0")
        dashboard.see(".follow-state", lines)
    scroll(dashboard, "0")
    wait_until("the first line", lambda: dashboard.lines()[0] == "line 1")
    assert dashboard.lines()[:30] == numbered(1, 30)


def test_what_is_no_longer_kept_is_told(browser: Chrome, tmp_path: Path) -> None:
    """At the top of what is kept stands how much is not."""
    with serving(tmp_path, "--log.max-messages", "100") as short:
        short.log("session:short", *numbered(1, 250))
        page = Dashboard(browser, short.url)
        page.set_width(1280, 800)
        page.open("log/session:short")
        page.last_line("line 250")
        scroll(page, "0")
        page.see_line("150 messages (1 to 150) are no longer kept")


def test_search_goes_on_in_older_lines(dashboard: Dashboard, server: DashboardServer) -> None:
    """What is not in the lines of the page is looked for in older ones, when that is wanted."""
    channel = "session:older"
    lines = numbered(1, 3000)
    lines[99] = lines[1099] = "a needle"
    server.log(channel, *lines)
    dashboard.open(f"log/{channel}")
    dashboard.last_line("line 3000")
    dashboard.keys("/", *"needle")
    dashboard.see(".found", "Enter searches older ones")
    dashboard.keys(Keys.ENTER)
    dashboard.see(".found", "1 of 1")
    dashboard.see_line("a needle")
    dashboard.press("Match before")
    dashboard.see(".found", "1 of 2")
    dashboard.see_line("line 99")
    dashboard.press("Match before")
    dashboard.see(".found", "2 of 2")
    field = dashboard.see(".find input")
    field.send_keys("s in a haystack", Keys.ENTER)
    dashboard.see(".found", "not found")


def test_search(dashboard: Dashboard, server: DashboardServer) -> None:
    """Searching counts, goes from match to match, and marks; it goes on while lines come."""
    channel = "session:search"
    lines = numbered(1, 400)
    for number in (20, 200, 390):
        lines[number] = f"{ESC}[31mEr{ESC}[32mror{ESC}[0m number {number}"
    server.log(channel, *lines)
    dashboard.open(f"log/{channel}")
    dashboard.last_line("line 400")

    dashboard.keys("/")
    dashboard.keys("error")
    dashboard.see(".found", "3 lines")
    assert dashboard.see(".line mark").text == "Er"
    dashboard.keys(Keys.ENTER)
    dashboard.see(".found", "3 of 3")
    dashboard.keys(Keys.ENTER)
    dashboard.see(".found", "1 of 3")
    dashboard.see(".line.current", "Error number 20")
    dashboard.with_key(Keys.SHIFT, Keys.ENTER)
    dashboard.see(".line.current", "Error number 390")
    dashboard.press("Match before")
    dashboard.see(".line.current", "Error number 200")

    server.log(channel, "another ERROR")
    dashboard.see(".found", "2 of 4")
    dashboard.run("document.querySelector('.find input').focus()")
    dashboard.keys("x")
    dashboard.see(".found", "not found")
    dashboard.keys(Keys.ESCAPE)
    assert dashboard.all("mark") == []


def test_copy_and_download(dashboard: Dashboard, server: DashboardServer, tmp_path: Path) -> None:
    """Lines can be copied, and all that is kept downloaded, as text and as messages."""
    channel = "session:take/along"
    server.log(channel, *numbered(1, 1200), f"{ESC}[31mred{ESC}[0m", "a\tb")
    server.end(channel, exit_code=0)
    browser = dashboard.driver
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    dashboard.open(f"log/{channel}")
    dashboard.last_line("Ended with exit code 0")

    dashboard.press("Download")
    dashboard.press("As text")
    text = tmp_path / "session_take_along.txt"
    wait_until("the file", text.exists)
    assert text.read_text().splitlines() == [
        *numbered(1, 1200),
        "red",
        "a       b",
        "-- Ended with exit code 0",
    ]
    dashboard.press("Download")
    dashboard.press("As messages")
    messages = tmp_path / "session_take_along.ndjson"
    wait_until("the file", messages.exists)
    kept = [json.loads(line) for line in messages.read_text().splitlines()]
    assert [each["offset"] for each in kept] == list(range(1, 1204))
    assert kept[1200]["data"]["text"] == f"{ESC}[31mred{ESC}[0m"

    dashboard.press("Copy")
    dashboard.press("Copy all lines")
    dashboard.see(".told", "Copied 500 lines")
    click = """[...document.querySelectorAll('.window .gutter')].at(arguments[0])
        .dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: arguments[1]}))"""
    dashboard.run(click, -4, False)
    dashboard.see(".line.selected", "line 1200")
    dashboard.run(click, -3, True)
    dashboard.see(".line.selected", "red")
    dashboard.press("Copy")
    dashboard.press("Copy what is selected")
    dashboard.see(".told", "Copied 2 lines")
    assert dashboard.run("return navigator.clipboard.readText()") == "line 1200\nred"


def test_fifty_thousand_lines_stay_smooth(dashboard: Dashboard, server: DashboardServer) -> None:
    """Of any number of lines only those in view have elements, and drawing them is quick."""
    channel = "session:many"
    server.log(channel, "the first")
    dashboard.open(f"log/{channel}")
    dashboard.last_line("the first")
    text = "a line as long as those of a build are, more or less: /usr/bin/cc -O2 -o x.o x.c"
    lines = [f"{ESC}[3{n % 8}m{n}{ESC}[0m {text * (1 + n % 4)}" for n in range(1, MANY)]
    server.log(channel, *lines, "the last")
    wait_until("all lines", lambda: (dashboard.lines() or [""])[-1] == "the last")
    dashboard.see(".follow-state", "50,001 lines")

    for wrap in (False, True):
        if wrap:
            dashboard.press("Wrap")
        for place in (0.5, 0.1, 0.9, 0.3, 0.7, 0.999):
            took = draw_near(dashboard, place)
            assert took < FRAME, f"{took} ms at {place}"
    dashboard.press("Jump to live")
    dashboard.last_line("the last")

    dashboard.keys("/")
    dashboard.keys("25000")
    dashboard.see(".found", "1 line")
    dashboard.keys(Keys.ENTER)
    dashboard.see(".line.current", "25000 a line")


def test_wrapped_lines_have_their_true_heights(
    dashboard: Dashboard, server: DashboardServer
) -> None:
    """However long or wide the lines, rows neither overlap nor leave holes."""
    channel = "session:wrap"
    lines = [("漢字" if n % 3 else "word ") * (n % 90) for n in range(1, 400)]
    server.log(channel, *lines, "the last")
    dashboard.set_width(500)
    dashboard.open(f"log/{channel}")
    dashboard.last_line("the last")
    dashboard.see("[aria-pressed=true]", "Wrap")  # where there is little room, it is on at first

    check = """
        const lines = [...document.querySelectorAll('.window .line')]
        const edges = lines.map((line) => line.getBoundingClientRect())
        return edges.every((edge, i) => !i || Math.abs(edge.top - edges[i - 1].bottom) < 1)
    """
    for place in (0.2, 0.8, 0.5):
        scroll(dashboard, f"log.scrollHeight * {place}")
        dashboard.wait("rows without holes", check)
    dashboard.press("Jump to live")
    dashboard.last_line("the last")
    assert at_end(dashboard)
    assert dashboard.run("return document.querySelector('.log').scrollWidth") <= 500


def test_menus_fit_on_a_phone(dashboard: Dashboard, server: DashboardServer) -> None:
    """What a button at the edge opens is inside of the screen, and so is what is told."""
    server.log("session:menus", "a line")
    dashboard.set_width(390)
    dashboard.open("log/session:menus")
    dashboard.see_line("a line")
    for menu, choice in (("Copy", "Copy what is selected"), ("Download", "As messages")):
        dashboard.press(menu)
        edges = "const { left, right } = arguments[0].getBoundingClientRect(); return [left, right]"
        left, right = dashboard.run(edges, dashboard.see(".menu-items button", choice))
        assert 0 <= left < right <= 390
        dashboard.press(choice)
    told = dashboard.see(".told p", "Downloaded 1 message")
    left, right = dashboard.run(edges, told)
    assert abs(left - (390 - right)) <= 1
    assert dashboard.run("return document.scrollingElement.scrollWidth") <= 390


def test_steering_needs_the_grant_and_asks(dashboard: Dashboard, server: DashboardServer) -> None:
    """Who may send commands can interrupt, give input, and terminate after a question."""
    channel = "session:steered"
    server.log(channel, "working")
    token = triows.make_token(SECRET, "op", subscribe=["session:*"], command=[channel])
    dashboard.open(f"log/{channel}", token=token)
    dashboard.see_line("working")

    dashboard.press("Interrupt")
    dashboard.see_line('{"action":"interrupt"}')
    dashboard.see(".told", "Sent: interrupt. Whether it is obeyed, the log tells")
    field = dashboard.see(".input-line")
    field.send_keys("yes <b>", Keys.ENTER)
    dashboard.see_line('{"action":"input","text":"yes <b>\\n"}')
    wait_until("an empty field", lambda: field.get_property("value") == "")
    dashboard.press("Terminate")
    dashboard.see("dialog", "Terminate it?")
    dashboard.keys(Keys.ESCAPE)
    dashboard.gone("dialog")
    dashboard.press("Terminate")
    dashboard.press("Terminate", "dialog .danger")
    dashboard.see_line('{"action":"terminate"}')
    assert len(dashboard.lines()) == 4
    server.end(channel, exit_code=143)
    dashboard.gone(".steering")


def test_keyboard_reaches_everything(dashboard: Dashboard, server: DashboardServer) -> None:
    """Tab goes through all that can be done, each has a name, and the focus is seen."""
    channel = "session:keys"
    server.log(channel, "hello")
    dashboard.open(f"log/{channel}")
    dashboard.see_line("hello")

    reached = []
    for _ in range(24):
        dashboard.keys(Keys.TAB)
        reached.append(dashboard.focus())
        assert dashboard.run(
            """const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement)
            return document.activeElement === document.body
                || outlineStyle !== 'none' && outlineWidth !== '0px'"""
        ), reached[-1]
    names = "|".join(reached)
    for name in ("All sessions", "Search in", "Next match", "Pause", "Wrap", "Time", "Copy"):
        assert name in names
    for name in ("Download", "Log of session:keys", "Interrupt", "Terminate", "Log out"):
        assert name in names


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_named_and_can_be_read(
    dashboard: Dashboard, server: DashboardServer, theme: str
) -> None:
    """Every control has a name, and every text the contrast of WCAG AA."""
    server.log("session:read", "text", *(f"{ESC}[{n}mcolour" for n in range(30, 38)))
    server.log("session:read", *(f"{ESC}[{n}mbright" for n in range(90, 98)))
    server.log("session:read", "err", stream="stderr")
    dashboard.set_theme(theme)
    for view in ("", "connections", "server", "log/session:read"):
        dashboard.open(view)
        dashboard.wait("text", "return document.querySelectorAll('td, dd, .line').length > 2")
        nameless = dashboard.run(
            """return [...document.querySelectorAll('button, a, input, summary')].filter((each) =>
                !(each.ariaLabel || each.textContent.trim() || each.labels?.length))
                .map((each) => each.outerHTML)"""
        )
        assert nameless == []
        assert dashboard.run(CONTRASTS) == []


CONTRASTS = """
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1)
        canvas.fillStyle = colour
        canvas.fillRect(0, 0, 1, 1)
        return [...canvas.getImageData(0, 0, 1, 1).data]
    }
    const over = (top, below) => top.slice(0, 3).map((v, i) =>
        v * top[3] / 255 + below[i] * (1 - top[3] / 255))
    const paper = (each) => {
        if (!each) return [255, 255, 255]
        const own = rgba(getComputedStyle(each).backgroundColor)
        return own[3] === 255 ? own : over(own, paper(each.parentElement))
    }
    const light = (colour) => {
        const [r, g, b] = colour.map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const bad = []
    for (const each of document.querySelectorAll('body *')) {
        const own = [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
        if (!own || !each.checkVisibility() || each.closest('.unseen, .skip')) continue
        const below = paper(each)
        const ink = over(rgba(getComputedStyle(each).color), below)
        const [a, b] = [light(ink), light(below)].sort((x, y) => y - x)
        const ratio = (a + 0.05) / (b + 0.05)
        if (ratio < 4.5) bad.push(`${each.className}: ${each.textContent.slice(0, 30)} ${ratio}`)
    }
    return bad
"""
