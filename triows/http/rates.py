"""What each publisher may send over HTTP, whatever number of connections it opens."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from triows.config import Limits
from triows.limits import Budget

MAX_PUBLISHERS: Final = 10_000
"""Publishers remembered at once; the one unseen for longest is forgotten first."""


@final
class Rates:
    """One budget for each user at each address, boundedly many."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budgets: OrderedDict[tuple[str, str], Budget] = OrderedDict()

    def take(self, user: str, address: str, messages: int, size: int, now: float) -> None:
        """Count messages of `size` bytes together.

        Raises:
            RequestError: `rate_limited`, with the seconds to wait; then none was counted.
        """
        key = (user, address)
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = Budget(self._limits, now)
            if len(self._budgets) > MAX_PUBLISHERS:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(key)
        budget.take(size, now, messages)
