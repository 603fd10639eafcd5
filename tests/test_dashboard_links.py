"""The links that the command line prints: one click from a command to its log."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from selenium.webdriver import Chrome, Keys

from tests.support_browser import DEADLINE, browser, shared_browser
from tests.support_dashboard import Dashboard

__all__ = ["browser", "shared_browser"]
pytestmark = pytest.mark.slow

TRIOWS = [sys.executable, "-c", "import triows.cli; triows.cli.main()"]
PROGRESS = r"""
printf 'a \033[1;34mblue\033[0m line\n'
for n in 10 50 90; do printf "\r$n%% done"; sleep 0.3; done; printf '\r100%% done\n'
read answer; echo "got $answer"; exec sleep 100
"""


@contextmanager
def printing(*arguments: str) -> Iterator[IO[str]]:
    """Run `triows`; all it prints, as it comes."""
    process = subprocess.Popen(
        [*TRIOWS, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait(DEADLINE)
        process.stdout.close()


def next_link(printed: IO[str]) -> str:
    """Return the next link with a token."""
    for line in printed:
        if found := re.search(r"http://\S+#token=\S+", line):
            return found[0]
    pytest.fail("no link was printed")


def follow(driver: Chrome, link: str) -> Dashboard:
    """Open a link as it was printed."""
    driver.get("about:blank")
    driver.get(link)
    opened = Dashboard(driver, link.split("/#")[0])
    opened.set_width(1280, 800)
    return opened


def test_link_of_serve_dev_administers(browser: Chrome) -> None:
    """The link of a first look opens all views."""
    with printing("serve", "--dev", "--server.port", "0") as printed:
        dashboard = follow(browser, next_link(printed))
        dashboard.see("a.channel", "system:connections")  # that we are here
        dashboard.see(".empty", "Nothing is streamed yet")
        command = dashboard.see(".command", "triows run")
        dashboard.see("#filter").send_keys("another")
        dashboard.see(".empty", "No channel matches")
        dashboard.see("#filter").send_keys(Keys.BACKSPACE * 7)
        assert dashboard.see(".command") == command  # as it was, with what was selected in it
        assert [link.text for link in dashboard.all("nav a")] == [
            "Sessions",
            "Connections",
            "Server",
        ]


def test_links_of_run_watch_and_steer(browser: Chrome) -> None:
    """One link opens the session to watch it, the other one may steer it as well."""
    run = "run", "--id", "linked", "--pty", "--allow-commands", "--", "bash", "-c", PROGRESS
    with printing(*run) as printed:
        watch, steer = next_link(printed), next_link(printed)

        dashboard = follow(browser, watch)
        dashboard.see("h1", "session:linked")
        dashboard.see_line("a blue line")
        dashboard.see_line("100% done")
        assert dashboard.all(".steering") == []
        shown = [line for line in dashboard.lines() if line.endswith("% done")]
        assert shown == ["100% done"]  # of a progress bar, how it ended

        dashboard = follow(browser, steer)
        dashboard.see_line("100% done")
        dashboard.see(".input-line").send_keys("<i>42</i>\n")
        dashboard.see(".told", "Input sent")
        dashboard.see_line("got <i>42</i>")
        dashboard.press("Interrupt")
        dashboard.see_line("Ended with exit code 130: killed by SIGINT")
        dashboard.gone(".steering")
