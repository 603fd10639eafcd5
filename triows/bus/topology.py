"""Which node of a cluster has which slots: what its nodes say of each other."""

from __future__ import annotations

from typing import Final, final

import attrs

from triows.bus.address import Place
from triows.bus.keys import BUCKETS, SLOTS

OUR_SLOTS: Final = range(0, SLOTS, SLOTS // BUCKETS)
"""The slots that have anything of ours."""


@final
@attrs.frozen
class Master:
    """A node that has slots.

    Attributes:
        place: where it is.
        epoch: of two that say they have a slot, the one with the higher number has it.
        slots: those of ours that it has.
    """

    place: Place
    epoch: int
    slots: list[int]


@final
@attrs.frozen
class Topology:
    """What one node says of the cluster.

    Attributes:
        places: of all nodes that it knows, itself included.
        masters: those that have slots.
    """

    places: list[Place]
    masters: list[Master]

    @classmethod
    def read(cls, text: bytes, asked: Place, *, tls: bool) -> Topology:
        """Read the reply to `CLUSTER NODES`.

        Args:
            text: a line for each node.
            asked: where the node is that says so; it may not know its own host.
            tls: whether its certificate is checked, so that a name is better than a number.

        Raises:
            ValueError: it is nothing of the kind.
        """
        places, masters = [], []
        for line in text.decode().splitlines():
            _, address, flags, _, _, _, epoch, _, *slots = line.split(" ")
            if {"noaddr", "handshake"} & set(flags.split(",")):
                continue
            place = _place(address, asked, tls=tls)
            places.append(place)
            if "master" in flags:
                masters.append(Master(place, int(epoch), _ours(slots)))
        return cls(places, masters)


def _place(address: str, asked: Place, *, tls: bool) -> Place:
    """Read `host:port@port,name`, as far as it is there."""
    place, _, names = address.partition("@")
    host, _, port = place.rpartition(":")
    _, _, name = names.partition(",")
    name, _, _ = name.partition(",")
    return (tls and name) or host or asked[0], int(port)


def _ours(slots: list[str]) -> list[int]:
    """Return those of ours among slots that are written `1`, `1-5`, or, on their way, `[…]`."""
    found: list[int] = []
    for text in slots:
        if not text.startswith("["):
            first, _, last = text.partition("-")
            found += [s for s in OUR_SLOTS if int(first) <= s <= int(last or first)]
    return found
