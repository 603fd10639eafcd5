"""Bytes instead of messages: RFC 6455, and which close code is earned by what is against it."""

from __future__ import annotations

import json

import trio

from triows.conformance.matcher import Mismatch, show
from triows.conformance.raw import CONTINUATION, PING, PONG, TEXT, frame
from triows.conformance.rig import Rig, check
from triows.conformance.talk import Talk

_REQUEST = json.dumps({"type": "ping", "id": "é", "data": "ééé"}, ensure_ascii=False).encode()


@check("Close codes")
async def an_unmasked_frame(rig: Rig) -> None:
    """A client has to mask: 1002."""
    talk = await rig.connect()
    await talk.send(bytes((0x81, len(_REQUEST))) + _REQUEST)
    await talk.closed(1002)


@check("Close codes")
async def a_reserved_bit(rig: Rig) -> None:
    """No extension was agreed on: 1002."""
    await _expect_close(rig, frame(_REQUEST, TEXT | 0x40), 1002)


@check("Close codes")
async def a_reserved_opcode(rig: Rig) -> None:
    """Neither 0x3 nor 0xb means anything: 1002."""
    await _expect_close(rig, frame(b"", 0x3), 1002)
    await _expect_close(rig, frame(b"", 0xB), 1002)


@check("Close codes")
async def a_continuation_without_a_start(rig: Rig) -> None:
    """1002."""
    await _expect_close(rig, frame(_REQUEST, CONTINUATION), 1002)


@check("Close codes")
async def a_message_inside_a_message(rig: Rig) -> None:
    """A new message begins before the last one has ended: 1002."""
    await _expect_close(rig, frame("{", fin=False) + frame(_REQUEST), 1002)


@check("Close codes")
async def a_ping_in_fragments(rig: Rig) -> None:
    """Control frames come in one piece: 1002."""
    await _expect_close(rig, frame(b"1", PING, fin=False), 1002)


@check("Close codes")
async def a_ping_that_is_too_long(rig: Rig) -> None:
    """Control frames have at most 125 bytes: 1002."""
    await _expect_close(rig, frame(b"x" * 126, PING), 1002)


@check("Close codes")
async def bad_UTF_8(rig: Rig) -> None:  # noqa: N802 that is its name
    """Half a character, bytes of none, a surrogate, an overlong form: 1007."""
    for wrong in (b"\xc3", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"):
        await _expect_close(rig, frame(b'{"type": "ping", "id": "' + wrong + b'"}'), 1007)


@check("Close codes")
async def bad_UTF_8_in_fragments(rig: Rig) -> None:  # noqa: N802 that is its name
    """A character whose rest never comes: 1007."""
    start, rest = frame(b'{"type": "\xc3', fin=False), frame(b'"}', CONTINUATION)
    await _expect_close(rig, start + rest, 1007)


@check("The wire protocol, version 1")
async def a_text_in_fragments_with_pings_between(rig: Rig) -> None:
    """Cut anywhere, inside a character too, with a ping in each gap: all are answered."""
    talk = await rig.connect()
    for size in (1, 2, 3, 7):
        pieces = [_REQUEST[at : at + size] for at in range(0, len(_REQUEST), size)]
        data = b""
        for number, piece in enumerate(pieces):
            opcode = TEXT if number == 0 else CONTINUATION
            data += frame(piece, opcode, fin=number == len(pieces) - 1)
            data += frame(str(number).encode(), PING)
        await talk.send(data)
        await _expect_pongs_and_answer(talk, [str(n).encode() for n in range(len(pieces))])


@check("The wire protocol, version 1")
async def bytes_one_by_one(rig: Rig) -> None:
    """Each byte in a write of its own: the message is read all the same."""
    talk = await rig.connect()
    for byte in frame(_REQUEST):
        await talk.send(bytes((byte,)))
        await trio.lowlevel.checkpoint()
    _expect_answer(await talk.hear())


@check("The wire protocol, version 1")
async def many_messages_at_once(rig: Rig) -> None:
    """Ten messages in one write have ten answers, in order."""
    talk = await rig.connect()
    asked = [str(number) for number in range(10)]
    await talk.send(b"".join(frame(json.dumps({"type": "ping", "id": id_})) for id_ in asked))
    got = [(await talk.hear()).get("id") for _ in asked]
    if got != asked:
        raise Mismatch(f"expected the answers {asked}, got {got}")


async def _expect_close(rig: Rig, data: bytes, code: int) -> None:
    talk = await rig.connect()
    await talk.send(data)
    await talk.closed(code)


async def _expect_pongs_and_answer(talk: Talk, wanted: list[bytes]) -> None:
    """The pongs come in order; the last may be the only one, as RFC 6455 section 5.5.3 allows."""
    pongs: list[bytes] = []
    answered = False
    with trio.move_on_after(talk.patience):
        while not answered or pongs[-1:] != wanted[-1:]:
            opcode, payload = await talk.socket.receive()
            if opcode == PONG:
                pongs.append(payload)
            elif opcode == TEXT:
                _expect_answer(json.loads(payload))
                answered = True
            elif opcode != PING:
                raise Mismatch(f"expected pongs and an answer, got opcode {opcode} {payload!r}")
        if pongs == [pong for pong in wanted if pong in pongs]:
            return
    raise Mismatch(f"expected an answer and pongs up to {wanted[-1]!r}, got {answered}, {pongs}")


def _expect_answer(message: object) -> None:
    got = message if isinstance(message, dict) else {}
    if (got.get("type"), got.get("id"), got.get("data")) != ("pong", "é", "ééé"):
        raise Mismatch(f"expected the answer to {_REQUEST.decode()}, got {show(message)}")
