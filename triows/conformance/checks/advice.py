"""What all errors and close frames of a run have said: the same as the tables do."""

from __future__ import annotations

import trio

from triows.conformance.matcher import Mismatch
from triows.conformance.rig import LeftOut, Rig, check
from triows.errors import RETRYABLE, CloseCode, ErrorCode


@check("Error codes")
async def retry_is_as_the_table_says(rig: Rig) -> None:
    """Each `error` had a code of the table, and its `retry`."""
    await trio.lowlevel.checkpoint()
    if not rig.target.journal.errors:
        raise LeftOut("no error was heard in this run")
    for code, retry in sorted(rig.target.journal.errors):
        if code not in set(ErrorCode):
            raise Mismatch(f"expected an error code of the table, got {code!r}")
        if retry != (code in RETRYABLE):
            raise Mismatch(f"expected retry {not retry} with {code!r}, got {retry}")


@check("Close codes")
async def close_codes_say_whether_to_come_back(rig: Rig) -> None:
    """Each close code was one of the table, or of the range that says it by itself."""
    await trio.lowlevel.checkpoint()
    if not rig.target.journal.closes:
        raise LeftOut("no close frame was heard in this run")
    for code in sorted(rig.target.journal.closes):
        if code not in set(CloseCode) and not 4000 <= code <= 4999:
            raise Mismatch(f"expected a close code of the table, or 4000 to 4999, got {code}")
