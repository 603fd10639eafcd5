"""Inputs by chance: those of the corpus, changed a little. One seed gives always the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_MOST = 4096  # bytes of an input
_ODD = (
    0x00,
    0x01,
    0x09,
    0x0A,
    0x0D,
    0x20,
    0x22,
    0x5C,
    0x7D,
    0x7E,
    0x7F,
    0x80,
    0x81,
    0x88,
    0xFE,
    0xFF,
)


class Mutator:
    """Makes inputs out of others.

    Args:
        seed: of all chance.
        words: what is worth inserting.
    """

    def __init__(self, seed: int, words: Sequence[bytes]) -> None:
        self._random = random.Random(seed)
        self._words = words
        self._ways: tuple[Callable[[bytearray, bytes], None], ...] = (
            self._flip, self._set, self._insert, self._delete, self._repeat, self._word,
            self._word, self._splice,
        )  # fmt: skip

    def make(self, corpus: Sequence[bytes]) -> bytes:
        """Return a new input."""
        data = bytearray(self._random.choice(corpus))
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 5, 9))):
            self._random.choice(self._ways)(data, self._random.choice(corpus))
        return bytes(data[:_MOST])

    def _at(self, data: bytearray) -> int:
        return self._random.randrange(len(data) + 1)

    def _span(self, data: bytearray) -> slice:
        start = self._at(data)
        return slice(start, start + self._random.choice((1, 2, 4, 8, 40, 400)))

    def _flip(self, data: bytearray, other: bytes) -> None:
        if data:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _set(self, data: bytearray, other: bytes) -> None:
        if data:
            data[self._random.randrange(len(data))] = self._random.choice(_ODD)

    def _insert(self, data: bytearray, other: bytes) -> None:
        at = self._at(data)
        data[at:at] = self._random.randbytes(self._random.choice((1, 2, 4, 8, 100)))

    def _delete(self, data: bytearray, other: bytes) -> None:
        del data[self._span(data)]

    def _repeat(self, data: bytearray, other: bytes) -> None:
        part, at = data[self._span(data)], self._at(data)
        data[at:at] = part * self._random.choice((1, 2, 3, 30))

    def _word(self, data: bytearray, other: bytes) -> None:
        at = self._at(data)
        data[at : at + self._random.choice((0, 0, 1, 8))] = self._random.choice(self._words)

    def _splice(self, data: bytearray, other: bytes) -> None:
        data[self._at(data) :] = other[self._random.randrange(len(other) + 1) :]
