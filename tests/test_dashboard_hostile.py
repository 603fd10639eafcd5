"""Whatever publishers send, the dashboard shows it as text, runs none of it, and does not choke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome

import triows
from tests.support import SECRET
from tests.support_browser import browser, shared_browser
from tests.support_dashboard import Dashboard, DashboardServer, serving

__all__ = ["browser", "shared_browser"]
pytestmark = pytest.mark.slow

ESC = "\x1b"
MARKUP = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload=window.pwned=1><style>*{display:none}</style>",
    "</div></body><iframe src=javascript:parent.pwned=1>",
    "{{constructor.constructor('pwned=1')()}} ${window.pwned=1} javascript:pwned=1",
    f"{ESC}[31m<b onmouseover=window.pwned=1>{ESC}[0m&lt;&amp;",
    "<a href='http://evil.example/'>click</a> <base href=//evil.example/>",
]
SHOWN_AS = {
    f"a{ESC}]0;title\x07b": "ab",
    f"{ESC}]8;;javascript:window.pwned=1{ESC}\\link{ESC}]8;;{ESC}\\": "link",
    f"{ESC}]52;c;cHduZWQ={ESC}\\clip": "clip",
    f"up{ESC}[2J{ESC}[H{ESC}[10A{ESC}c": "up",
    f"open{ESC}]0;never ended": "open␛]0;never ended",
    "nul\x00bel\x07": "nul␀bel␇",
    "a\u202egnp.exe": "aU+202Egnp.exe",
    "isolate\u2066x\u2069 mark\u200f": "isolateU+2066xU+2069 markU+200F",
    "hidden\u200b\ufeff\u2028": "hiddenU+200BU+FEFFU+2028",
    "safe\rEVIL": "EVIL",
    "שלום abc": "שלום abc",
    "Z\u0351\u036b\u0343" * 20: "Z\u0351\u036b\u0343" * 20,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardServer]:
    """A server that takes what comes."""
    with serving(tmp_path_factory.mktemp("server")) as opened:
        yield opened


@pytest.fixture
def dashboard(browser: Chrome, server: DashboardServer) -> Iterator[Dashboard]:
    """The dashboard; afterwards nothing of what was sent may have run or been asked for."""
    opened = Dashboard(browser, server.url)
    opened.set_width(1280, 800)
    yield opened
    assert opened.run("return window.pwned ?? null") is None
    assert opened.run("return document.querySelectorAll('.log img, .log b, iframe').length") == 0
    asked = opened.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [address for address in asked if not address.startswith(server.url)] == []
    assert opened.complaints() == []  # the content policy had nothing to refuse either


def test_markup_is_text(dashboard: Dashboard, server: DashboardServer) -> None:
    """Markup is shown as it was written, in all kinds of messages."""
    channel = "session:markup"
    server.log(channel, *MARKUP)
    for kind in ("event", "status", "command"):
        server.publish(channel, [{"type": kind, "data": MARKUP[0]}])
    server.publish(channel, [{"type": "status", "data": {"state": MARKUP[1], "command": "<b>"}}])
    server.end(channel, exit_code=1, reason=MARKUP[1])
    dashboard.open(f"log/{channel}")
    dashboard.last_line(f"Ended with exit code 1: {MARKUP[1]}")

    assert dashboard.lines() == [
        *MARKUP[:5],
        "<b onmouseover=window.pwned=1>&lt;&amp;",
        MARKUP[6],
        *[f'"{MARKUP[0]}"'] * 3,
        f"{MARKUP[1]}: <b>",
        f"Ended with exit code 1: {MARKUP[1]}",
    ]
    dashboard.keys("/")
    dashboard.keys("<script>")
    dashboard.see(".found", "4 lines")
    dashboard.run("location.hash = '#/'")
    dashboard.see("tr", "exit 1")


def test_controls_and_what_turns_text_are_harmless(
    dashboard: Dashboard, server: DashboardServer
) -> None:
    """Sequences do nothing but colour, and hidden characters are seen."""
    server.log("session:controls", *SHOWN_AS, "the last")
    dashboard.open("log/session:controls")
    dashboard.last_line("the last")

    assert dashboard.lines() == [*SHOWN_AS.values(), "the last"]
    assert dashboard.driver.title == "session:controls · triows"
    assert dashboard.run(
        """return [...document.querySelectorAll('.line .text')].every((each) =>
            getComputedStyle(each).unicodeBidi === 'isolate')"""
    )


def test_large_and_deep_messages(dashboard: Dashboard, server: DashboardServer) -> None:
    """A line of a megabyte, nesting and a flood of lines are cut in what is shown."""
    channel = "session:large"
    deep: Any = "x"
    for _ in range(45):
        deep = {"deeper": [deep]}
    server.log(channel, "m" * 1_000_000)
    server.publish(channel, [{"type": "log", "data": deep}, {"type": "log", "data": None}])
    server.publish(channel, [{"type": "log"}, {"type": "log", "data": {"text": {"no": "text"}}}])
    server.log(channel, "\n" * 500_000, f"{ESC}[1;31m" * 50_000 + "styled", "\u0300" * 10_000)
    server.log(channel, f"{ESC}[999999999Cfar", "the last")
    dashboard.open(f"log/{channel}")
    dashboard.last_line("the last")

    dashboard.press("Wrap")
    dashboard.last_line("the last")
    dashboard.run("document.querySelector('.log').scrollTop = 0")
    dashboard.see_line("995,000 more characters")
    dashboard.keys("/")
    dashboard.keys("deeper")
    dashboard.see(".found", "1 line")
    assert dashboard.run("return document.querySelectorAll('*').length") < 3000
    assert dashboard.run("return document.querySelector('.log').scrollHeight") < 10_000_000


def test_hostile_names(dashboard: Dashboard, server: DashboardServer) -> None:
    """The name of a user is nothing but text either."""
    name = "<img src=x onerror=window.pwned=1>\u202egnp"
    dashboard.open("connections", token=triows.make_token(SECRET, name, admin=True))

    dashboard.see("tbody th", "<img src=x onerror=window.pwned=1>U+202Egnp")
    dashboard.see(".who", "<img src=x")
