"""Lines on their way to the server: cut out of bytes, and bounded while they wait."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import triows
from triows.cli.lines import BATCH, MAX_LINE, WAITING, WAITING_BYTES, LineCutter, Waiting


def _texts(messages: list[triows.Message]) -> list[object]:
    return [message.data for message in messages]


async def _drain(waiting: Waiting) -> list[object]:
    taken: list[object] = []
    while True:
        try:
            taken += _texts(await waiting.take())
        except trio.EndOfChannel:
            return taken


async def test_waiting_keeps_the_order() -> None:
    """First in, first out, at most so many at once."""
    waiting = Waiting()
    for number in range(BATCH + 2):
        await waiting.put(triows.log(number))
    waiting.close()
    assert _texts(await waiting.take()) == list(range(BATCH))
    assert await _drain(waiting) == [BATCH, BATCH + 1]


async def test_taker_waits(nursery: trio.Nursery) -> None:
    """Who takes waits for a message, and for the end."""
    waiting = Waiting()
    taken: list[list[object]] = []

    async def take() -> None:
        taken.append(_texts(await waiting.take()))
        with pytest.raises(trio.EndOfChannel):
            await waiting.take()
        taken.append([])

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    assert taken == []
    await waiting.put(triows.log(1))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [[1]]
    waiting.close()
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [[1], []]


@pytest.mark.parametrize(
    ("text", "fits"), [("x", WAITING), ("x" * MAX_LINE, WAITING_BYTES // MAX_LINE)]
)
async def test_waiting_is_bounded(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str], text: str, fits: int
) -> None:
    """In number and in bytes: then its source waits, is told so once, and goes on when there is
    room.
    """
    waiting = Waiting()
    put = 0

    async def fill() -> None:
        nonlocal put
        while True:
            await waiting.put(triows.log(text))
            put += 1

    nursery.start_soon(fill)
    await trio.testing.wait_all_tasks_blocked()
    assert fits - 1 <= put <= fits + 1
    before = put
    taken = await waiting.take()
    await trio.testing.wait_all_tasks_blocked()
    assert before < put <= before + len(taken) + 1
    assert capsys.readouterr().err.count("limits.messages_per_second") == 1
    nursery.cancel_scope.cancel()


async def test_passing_message_gives_way_to_the_next() -> None:
    """Of the states of a line that nobody has taken, the newest is left."""
    waiting = Waiting()
    await waiting.put(triows.log("before"))
    await waiting.put(triows.log("1%"), passing=True)
    await waiting.put(triows.log("2%"), passing=True)
    await waiting.put(triows.event("resized"))
    await waiting.put(triows.log("3%"), passing=True)
    await waiting.put(triows.log("done"))
    await waiting.put(triows.log("after"))
    waiting.close()
    assert await _drain(waiting) == ["before", "2%", "resized", "done", "after"]


async def test_passing_message_that_was_taken_stays() -> None:
    """What is gone cannot give way, and nothing else does instead."""
    waiting = Waiting()
    await waiting.put(triows.log("1%"), passing=True)
    assert _texts(await waiting.take()) == ["1%"]
    await waiting.put(triows.log("a"))
    await waiting.put(triows.log("b"))
    waiting.close()
    assert await _drain(waiting) == ["a", "b"]


@pytest.mark.parametrize(
    ("written", "lines", "rest"),
    [
        ("a\r\nb\r\r\n", ["a", "b"], ""),
        ("10%\r20%\r100%\r\n", ["100%"], ""),
        ("10%\r20%", [], "20%"),
        ("10%\r20%\r", [], "20%"),
        ("working\r       \r\ndone\n", ["       ", "done"], ""),
        ("\r\x1b[K\x1b[32m1\r\x1b[K\x1b[32m2", [], "\x1b[K\x1b[32m2"),
        ("\r\r\n", [""], ""),
        ("é\r€", [], "€"),
        ("\r", [], ""),
    ],
)
def test_carriage_return_begins_the_line_anew(written: str, lines: list[str], rest: str) -> None:
    """Wherever the bytes are split, the last state of a line is what it was."""
    data = written.encode()
    for size in range(1, len(data) + 1):
        cutter = LineCutter(overwriting=True)
        cut = itertools.chain(*(cutter.cut(data[n : n + size]) for n in range(0, len(data), size)))
        assert list(cut) == lines
        assert cutter.unfinished == cutter.finish() == rest


@given(st.lists(st.sampled_from(["a", "\r", "\n", "b" * 5000, "€", "\x1b[K"]), max_size=60))
def test_overwriting_is_bounded(parts: list[str]) -> None:
    """However it is written, no line is too long, and none holds a carriage return."""
    cutter = LineCutter(overwriting=True)
    lines = [line for part in parts for line in cutter.cut(part.encode())]
    assert all(len(line) <= MAX_LINE and "\r" not in line for line in [*lines, cutter.finish()])


@given(
    st.lists(st.sampled_from(["a", "é", "€", "😀", "\r", "\n", "ab" * 20]), max_size=60),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_line_cutter_takes_any_chunks(parts: list[str], sizes: list[int]) -> None:
    """However the bytes come, the lines are the same, none too long, and nothing is lost."""
    text = "".join(parts)
    data, lines = text.encode(), list[str]()
    cutter = LineCutter()
    for size in itertools.cycle(sizes):
        if not data:
            break
        lines += cutter.cut(data[:size])
        data = data[size:]
    *complete, rest = text.split("\n")
    assert lines == [line.removesuffix("\r") for line in complete]
    assert cutter.finish() == rest


@pytest.mark.parametrize("size", [997, 65_536, 1_000_000])
@pytest.mark.parametrize("end", ["", "\n", "\nb"])
@pytest.mark.parametrize("start", [0, 1])
def test_line_cutter_cuts_what_is_too_long(start: int, end: str, size: int) -> None:
    """A long line comes in pieces of bounded size, and together they are the line."""
    text = "a" * start + "é" * (2 * MAX_LINE)
    data, lines = (text + end).encode(), list[str]()
    cutter = LineCutter()
    for at in range(0, len(data), size):
        lines += cutter.cut(data[at : at + size])
    last = cutter.finish()
    assert max(map(len, [*lines, last])) <= MAX_LINE
    assert "".join([*lines, last]) == (text + end).replace("\n", "")
