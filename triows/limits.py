"""Rates: token buckets, for one peer and for each network address."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from ipaddress import IPv6Address, IPv6Network
from typing import Final, final

from triows.config import Limits
from triows.errors import ErrorCode, RequestError

_ERROR_RATE: Final = 10  # refused messages a second that a connection may go on sending
_ERROR_BURST: Final = 100
MAX_ADDRESSES: Final = 10_000
"""Addresses remembered at once; the one unseen for longest is forgotten first."""


class TokenBucket:
    """Lets `rate` units a second through, and up to `burst` at once.

    A single large amount may take more than is there: the debt is paid before the next one,
    so that no amount is too large to ever pass.

    Args:
        rate: units a second; 0 lets everything through.
        burst: units at once.
        now: monotonic time in seconds.
    """

    __slots__ = ("_at", "_burst", "_rate", "_units")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1)
        self._units = self._burst
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take `amount` and return 0, or take nothing and return the seconds to wait."""
        if not self._rate:
            return 0
        units = min(self._burst, self._units + (now - self._at) * self._rate)
        self._at = now
        if units < min(amount, 1):
            self._units = units
            return (1 - units) / self._rate
        self._units = units - amount
        return 0

    def available(self, now: float) -> float:
        """Return how much there is to take without a debt."""
        if not self._rate:
            return math.inf
        return min(self._burst, self._units + (now - self._at) * self._rate)


@final
class Budget:
    """What one connection may send: messages, bytes, and messages that are refused."""

    __slots__ = ("_bytes", "_errors", "_limits", "_messages")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        burst = limits.messages_burst or math.inf
        self._messages = TokenBucket(limits.messages_per_second, burst, now)
        self._bytes = TokenBucket(limits.bytes_per_second, limits.bytes_per_second, now)
        self._errors = TokenBucket(_ERROR_RATE, _ERROR_BURST, now)

    def take(self, size: int, now: float, messages: int = 1) -> None:
        """Count one message of `size` bytes, or several together.

        Raises:
            RequestError: `rate_limited`, with the seconds to wait.
        """
        wait = self._messages.take(messages, now) or self._bytes.take(size, now)
        if wait:
            limits = self._limits
            raise RequestError(
                ErrorCode.RATE_LIMITED,
                f"more than {limits.messages_per_second:g} messages or "
                f"{limits.bytes_per_second:g} bytes a second; wait {wait:.3f} s",
                retry_after=wait,
            )

    def room(self, now: float) -> tuple[int, float]:
        """Return how many messages, and bytes, there are without a debt."""
        messages = self._messages.available(now)
        return int(min(messages, sys.maxsize)), self._bytes.available(now)

    def is_spent(self, now: float) -> bool:
        """Count one refused message; return whether that was one too many."""
        return self._errors.take(1, now) > 0


def neighbourhood(address: str) -> str:
    """Return what of a network address somebody has to own: all of IPv4, 64 bits of IPv6, where
    every household has a billion addresses to come from.
    """
    if ":" not in address:
        return address
    try:
        ip = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((ip, 64), strict=False))


class AddressRates:
    """One bucket for each network address (see `neighbourhood`), boundedly many.

    Args:
        rate: openings a second from one address; 0 is no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Count one opening from `address`; return 0, or the seconds to wait."""
        if not self._rate:
            return 0
        address = neighbourhood(address)
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._rate * 10, now)
            self._buckets[address] = bucket
            if len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket.take(1, now)
