"""What each user may ask over HTTP, whatever number of connections it opens."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

from triows.config import Limits
from triows.errors import ErrorCode, RequestError
from triows.limits import Budget, neighbourhood

MAX_PUBLISHERS: Final = 10_000
"""Publishers remembered at once; the one unseen for longest is forgotten first."""


_RETRY_AFTER: Final = 1  # seconds until a user with too many requests may ask again


@final
class Turns:
    """The requests of each user that are under way: those that wait for something, too.

    Args:
        limit: of one user; 0 is none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def take(self, user: str) -> Iterator[None]:
        """Count a request for as long as it is looked after.

        Raises:
            RequestError: `rate_limited`, if there are too many.
        """
        count = self._under_way[user]
        if self._limit and count >= self._limit:
            raise RequestError(
                ErrorCode.RATE_LIMITED,
                f"{count} requests of this user are under way; the limit is {self._limit} "
                "(limits.max_connections_per_user)",
                retry_after=_RETRY_AFTER,
            )
        self._under_way[user] += 1
        try:
            yield
        finally:
            self._under_way[user] -= 1
            if not self._under_way[user]:
                del self._under_way[user]


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
        key = (user, neighbourhood(address))
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = Budget(self._limits, now)
            if len(self._budgets) > MAX_PUBLISHERS:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(key)
        budget.take(size, now, messages)
