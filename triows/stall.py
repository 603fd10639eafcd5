"""Whether the event loop stalls: a timer that notes how late it wakes."""

from __future__ import annotations

from typing import Final, final

import trio

from triows.counters import Histogram

INTERVAL: Final = 0.25  # seconds; a stall that ends before the timer is due is not seen


@final
class StallClock:
    """Measures how late timers are.

    Attributes:
        lateness: of each timer, in seconds.
    """

    def __init__(self) -> None:
        self.lateness = Histogram()

    async def run(self) -> None:
        """Measure, until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self.lateness.observe(trio.current_time() - due)
