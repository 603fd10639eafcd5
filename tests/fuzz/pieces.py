"""The ways in which bytes can arrive."""

from __future__ import annotations

import binascii
import random
from collections.abc import Iterator


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Yield some ways in which bytes can arrive: at once, one by one, by chance."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    chance = random.Random(binascii.crc32(data))
    for most in (3, 40, 700):
        pieces, at = [], 0
        while at < len(data):
            size = chance.randint(1, most)
            pieces.append(data[at : at + size])
            at += size
        yield pieces
