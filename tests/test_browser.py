"""triows.js in a real browser, over a network that fails: nothing is lost, nothing doubled."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.support import ALL, token
from tests.support_browser import (
    DEADLINE,
    LiveServer,
    Page,
    Proxy,
    browser,
    live_server,
    page,
    proxy,
    set_offline,
    shared_browser,
    wait_until,
)

__all__ = ["browser", "live_server", "page", "proxy", "shared_browser"]
pytestmark = pytest.mark.slow

CHANNEL = "session:42"
FOREVER = 600  # seconds: longer than any test
LONG = 8  # seconds of a wait, in which a test has the time to end it
Seen = list[list[Any]]


class Watcher:
    """The page, as the tests use it."""

    def __init__(self, driver: Chrome, page: Page, url: str) -> None:
        self._driver = driver
        self._url = url
        driver.get(page.url)
        driver.execute_script("sessionStorage.clear()")
        self.connect()

    def connect(self) -> None:
        """Wait for the page and have it connect."""
        wait_until("the page", lambda: self.run("return window.ready"))
        self.run("open(arguments[0])", self._url)

    def reload(self) -> None:
        """Load the page again; it connects anew."""
        self._driver.refresh()
        self.connect()

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self._driver.execute_script(script, *arguments)

    def watch(self, **how: Any) -> None:
        """Subscribe."""
        self.run("watch(...arguments)", CHANNEL, how)

    @property
    def seen(self) -> Seen:
        """What was handed out, in short; without `lag`, which tells of no message."""
        found: Seen = self.run("return seen")
        return [entry for entry in found if entry[0] != "lag"]

    @property
    def states(self) -> list[str]:
        """The states of the client so far."""
        return [state for state, *_ in self.run("return states")]

    @property
    def ended_early(self) -> list[float]:
        """How long each wait would have been that was over before its time."""
        return [
            delay
            for (state, _, _, delay, since), (*_, until) in pairwise(self.run("return states"))
            # Its timer counts whole milliseconds, and starts a moment earlier than the state.
            if state == "waiting" and until - since < delay * 1000 - 100
        ]

    def wait_for_state(self, state: str) -> None:
        """Wait until the client is in a state."""
        wait_until(f"state {state}", lambda: self.run("return client.state") == state)

    def wait_for(self, last: int) -> Seen:
        """Wait until the message of that number was handed out; return all there were."""
        wait_until(
            f"message {last}",
            lambda: self.run("return seen.some((e) => e[2] === arguments[0])", last),
        )
        return self.seen


def messages(first: int, last: int, *, offset: int = 0) -> Seen:
    """Return what is seen of messages first to last, each once, in order."""
    return [["log", number - offset, number] for number in range(first, last + 1)]


def test_reload_goes_on_where_it_was(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """A page that keeps its position gets the rest after each reload, and only the rest."""
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(save=True, **{"from": "start"})
    live_server.publish(CHANNEL, 1500, every=0.002)
    for number in (100, 300, 500):
        watcher.wait_for(number)
        watcher.reload()
        watcher.watch(save=True)
    assert watcher.wait_for(1500) == messages(1, 1500)


def test_offline_and_online(
    browser: Chrome, page: Page, live_server: LiveServer, proxy: Proxy
) -> None:
    """Back online it looks whether the connection is dead, and gets what it missed."""
    live_server.kill()  # and start it such that nothing else would have the page look
    live_server.start(limits={"ping_interval": FOREVER, "idle_timeout": FOREVER})
    watcher = Watcher(browser, page, f"ws://127.0.0.1:{proxy.port}/ws")
    watcher.watch(**{"from": "start"})
    live_server.publish(CHANNEL, 10)
    watcher.wait_for(10)
    set_offline(browser, offline=True)
    proxy.silent = True
    live_server.publish(CHANNEL, 10, first=11)
    wait_until("offline", lambda: not watcher.run("return navigator.onLine"))
    set_offline(browser, offline=False)
    watcher.wait_for_state("waiting")  # the old connection stays silent: 5 s to see that
    proxy.silent = False
    assert watcher.wait_for(20) == messages(1, 20)
    assert watcher.run("return states.find((s) => s[0] === 'waiting')[1]") == 4002


def test_offline_while_it_waits(
    browser: Chrome, page: Page, live_server: LiveServer, proxy: Proxy
) -> None:
    """`online` ends the wait for the next attempt."""
    watcher = Watcher(browser, page, f"ws://127.0.0.1:{proxy.port}/ws")
    watcher.watch(**{"from": "start"})
    live_server.publish(CHANNEL, 10)
    watcher.wait_for(10)
    set_offline(browser, offline=True)
    watcher.run("Math.random = () => 0.99")  # the longest waits there are, soon enough
    proxy.cut()
    wait_until(
        "a long wait",
        lambda: watcher.run(
            "const s = states.at(-1); return s[0] === 'waiting' && s[3] > arguments[0]", LONG
        ),
    )
    live_server.publish(CHANNEL, 10, first=11)
    set_offline(browser, offline=False)
    assert watcher.wait_for(20) == messages(1, 20)
    assert any(delay > LONG for delay in watcher.ended_early)


def test_cut_again_and_again(
    browser: Chrome, page: Page, live_server: LiveServer, proxy: Proxy
) -> None:
    """Cut in the middle of a stream, several times: each message once, in order."""
    watcher = Watcher(browser, page, f"ws://127.0.0.1:{proxy.port}/ws")
    watcher.watch(**{"from": "start"})
    for first in (1, 1001, 2001):
        live_server.publish(CHANNEL, 900, first=first, every=0.001)
        watcher.wait_for(first + 200)
        proxy.cut()
        live_server.publish(CHANNEL, 100, first=first + 900)  # so the stream outlives the cut
        watcher.wait_for(first + 999)  # on another connection
    assert watcher.seen == messages(1, 3000)
    assert watcher.states.count("open") == 4


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_server_restart(browser: Chrome, page: Page, live_server: LiveServer, end: str) -> None:
    """Drained or killed, and started again: the page comes back by itself and is told that the
    log began anew; nothing of the new one is missing.
    """
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(**{"from": "start"})
    live_server.publish(CHANNEL, 100)
    watcher.wait_for(100)
    getattr(live_server, end)()
    watcher.wait_for_state("waiting")
    live_server.start()
    live_server.publish(CHANNEL, 100, first=101)
    began_anew = [["gap", 1, 0, "epoch"]]
    assert watcher.wait_for(200) == messages(1, 100) + began_anew + messages(101, 200, offset=100)
    assert (
        watcher.run("return states.find((s) => s[0] === 'waiting')[1]")
        == {
            "stop": 1012,
            "kill": 1006,
        }[end]
    )


def test_publishing_while_the_network_fails(
    browser: Chrome, page: Page, live_server: LiveServer, proxy: Proxy
) -> None:
    """What the page publishes arrives once, in order, over connections that are cut."""
    watcher = Watcher(browser, page, f"ws://127.0.0.1:{proxy.port}/ws")
    watcher.watch(**{"from": "start"})
    watcher.run(
        "window.published = (async (channel) => {"
        "  for (let n = 1; n <= 600; n += 20) await Promise.all(Array.from({ length: 20 },"
        "    (_, i) => client.publish(channel, 'log', { n: n + i })));"
        "  return 'published';"
        "})(arguments[0])",
        CHANNEL,
    )
    for number in (100, 300):
        watcher.wait_for(number)
        proxy.cut()
    assert watcher.wait_for(600) == messages(1, 600)
    assert watcher.run("return published") == "published"


def test_command_is_answered(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """A command comes back with what the application's handler says."""
    watcher = Watcher(browser, page, live_server.url)
    answer = watcher.run("return client.command(arguments[0], { action: 'stop' })", CHANNEL)
    assert answer == {"user": "me", "asked": {"action": "stop"}}


def test_token_is_renewed_before_it_expires(
    browser: Chrome, page: Page, live_server: LiveServer
) -> None:
    """One connection outlives its token."""
    ends: list[float] = []

    def get_token() -> str:
        ends.append(time.time() + 15)
        return token(ttl=15, **ALL)

    page.get_token = get_token
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(**{"from": "start"})
    wait_until("the end of the first token", lambda: ends and time.time() > ends[0])
    assert page.asked >= 2
    live_server.publish(CHANNEL, 10)
    assert watcher.wait_for(10) == messages(1, 10)
    assert watcher.states == ["connecting", "open"]


def test_expired_token(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """Without a fresh token the connection ends with 4000; with one, all that was missed comes."""
    page.get_token = lambda: token(ttl=6, **ALL)
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(**{"from": "start"})
    live_server.publish(CHANNEL, 10)
    watcher.wait_for(10)
    page.get_token = lambda: None
    watcher.wait_for_state("waiting")
    live_server.publish(CHANNEL, 10, first=11)
    page.get_token = token
    assert watcher.wait_for(20) == messages(1, 20)
    assert watcher.run("return states.find((s) => s[0] === 'waiting')[1]") == 4000
    assert any("no token" in error for error in watcher.run("return errors"))


def test_refused_token(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """A stale token is tried again with a fresh one; three refused in a row are the end."""
    stale = token(ttl=-60, **ALL)
    tokens = [stale, stale, token()]
    page.get_token = lambda: tokens.pop(0)
    watcher = Watcher(browser, page, live_server.url)
    watcher.wait_for_state("open")
    tokens += [stale] * 3
    watcher.reload()
    watcher.wait_for_state("closed")
    assert watcher.run("return states.at(-1)[1]") == 4500
    assert tokens == []


def test_origin_that_may_not(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """A page of a foreign origin never gets in, and keeps trying, ever more slowly."""
    live_server.kill()
    live_server.start(server={"allowed_origins": ["http://other.test"]})
    watcher = Watcher(browser, page, live_server.url)
    wait_until("three attempts", lambda: watcher.states.count("waiting") >= 3)
    assert "open" not in watcher.states


def test_slow_reader_is_told_of_the_gap(
    browser: Chrome, page: Page, live_server: LiveServer
) -> None:
    """A page that is stuck while more comes than is kept is told exactly what it missed."""
    live_server.kill()
    # However long it is stuck, it is not taken for dead.
    patient = dict.fromkeys(("ping_interval", "idle_timeout", "write_timeout"), FOREVER)
    live_server.start(log={"max_messages": 500}, limits=patient)
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(freeze=10, **{"from": "start"})
    live_server.publish(CHANNEL, 10)
    assert page.frozen.wait(DEADLINE)
    live_server.publish(CHANNEL, 20_000, first=11, pad=1000)
    page.thaw.set()
    seen = watcher.wait_for(20_010)
    gaps = [entry for entry in seen if entry[0] == "gap"]
    assert gaps
    assert {reason for *_, reason in gaps} == {"lag"}
    expected = 1
    for kind, first, last, *_ in seen:
        assert first == expected
        expected = last + 1 if kind == "gap" else first + 1
    assert expected == 20_011


def test_slow_handler_loses_nothing(browser: Chrome, page: Page, live_server: LiveServer) -> None:
    """A handler that takes its time: the rest waits at the server, and comes."""
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(pause=0.1, **{"from": "start"})
    live_server.publish(CHANNEL, 1500)
    assert watcher.wait_for(1500) == messages(1, 1500)
    assert watcher.states == ["connecting", "open"]


def test_page_that_was_stuck_stays_connected(
    browser: Chrome, page: Page, live_server: LiveServer
) -> None:
    """Stuck for longer than the pong timeout, it does not take the server for dead."""
    live_server.kill()
    live_server.start(limits={"ping_interval": 1, "pong_timeout": 2})
    watcher = Watcher(browser, page, live_server.url)
    watcher.watch(**{"from": "start"})
    watcher.wait_for_state("open")
    watcher.run("setTimeout(block, 0, 5000)")
    live_server.publish(CHANNEL, 10)
    assert watcher.wait_for(10) == messages(1, 10)
    assert watcher.states == ["connecting", "open"]
