"""The load generator at a fixed rate, over socket pairs whose bytes are there already."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks.load import LoadError
from benchmarks.pacing import PacedReader

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Give a publisher and two viewers, each with the server's end."""
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        ours.setblocking(False)
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()


def test_every_message_is_timed_at_every_viewer(pairs: list[Pair]) -> None:
    """Three messages to two viewers: six latencies, and as many sent as asked for."""
    publisher, *viewers = pairs
    for _, server in viewers:
        server.sendall(b"0123456789" * 3)
    publisher[1].setblocking(False)
    reader = PacedReader([ours for ours, _ in viewers])

    paced = reader.pace(publisher[0], b"message", 1000, [10, 20, 30])

    assert publisher[1].recv(100) == b"message" * 3
    assert len(paced.latencies) == 6
    assert min(paced.late) >= 0
    assert paced.figures()["p50"] <= paced.figures()["p99.9"]


def test_messages_are_sent_when_due_and_not_before(pairs: list[Pair]) -> None:
    """The first is due after a second: before, a viewer is found to be gone."""
    publisher, viewer, _ = pairs
    viewer[1].shutdown(socket.SHUT_WR)
    reader = PacedReader([viewer[0]])

    with pytest.raises(LoadError, match="a connection was closed"):
        reader.pace(publisher[0], b"message", 1, [10])

    publisher[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        publisher[1].recv(100)


def test_more_bytes_than_were_due_are_an_error(pairs: list[Pair]) -> None:
    """Deliveries are told apart by their lengths: one byte too many and all are wrong."""
    publisher, viewer, _ = pairs
    viewer[1].sendall(b"0123456789!")
    reader = PacedReader([viewer[0]])

    with pytest.raises(LoadError, match="1 bytes too many"):
        reader.pace(publisher[0], b"message", 1000, [10])
