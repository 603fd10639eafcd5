"""What a client is told at once, instead of waiting for an answer that cannot come."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import triows
from triows.cli.connect import token_source
from triows.client import _position
from triows.codec import MAX_NESTING, decode
from triows.outbox import Outbox


@pytest.mark.parametrize(
    "raw", [b"{nonsense", b'"\\ud800"', b"[" * MAX_NESTING + b"]" * MAX_NESTING]
)
async def test_data_that_no_server_would_read_is_refused_at_once(raw: bytes) -> None:
    """A server could not say to which request its refusal belongs: so it is not asked."""
    await trio.lowlevel.checkpoint()
    outbox = Outbox()
    with pytest.raises(triows.RequestError) as caught:
        outbox.put(triows.Message("log", raw, channel="session:1"))
    assert caught.value.code == triows.ErrorCode.BAD_JSON
    assert not outbox


@pytest.mark.parametrize("answer", [None, {}, [], {"epoch": "e"}, 7])
def test_ack_without_a_position_is_a_broken_protocol(answer: object) -> None:
    """What is missing in an `ack` does not reach the application as a TypeError."""
    with pytest.raises(triows.ConnectionClosed) as caught:
        _position(answer)
    assert caught.value.code == triows.CloseCode.PROTOCOL_ERROR


def test_answer_may_nest_deeper_than_a_request() -> None:
    """A page of history wraps messages that are as deep as they may be."""
    text = b'{"type":"ack","data":%b}' % (b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    with pytest.raises(triows.RequestError):
        decode(text)
    assert decode(text, MAX_NESTING + 10).type == "ack"


def test_token_file_must_be_a_file(tmp_path: Path) -> None:
    """A directory is refused by name, and not tried again and again."""
    with pytest.raises(triows.ConfigError, match="token file"):
        token_source(None, tmp_path)
