"""What the requests of a client carry in their `data`.

Structs of msgspec, not attrs classes: a member named `from` needs renaming. The bounds of numbers
are told to the JSON Schema here and checked by hand, for errors that name the value.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from triows.errors import ErrorCode, RequestError
from triows.logs import Log
from triows.messages import Position
from triows.topics import OnLag, encode_gap

MAX_PAGE: Final = 1000  # messages in one answer to `history`

_FromZero = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
_Start = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["start"]})]
_Count = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": MAX_PAGE})]


class AuthData(msgspec.Struct):
    """`auth`: a token, new or renewed."""

    token: str


class Since(msgspec.Struct):
    """A position, as a client writes it."""

    epoch: str
    offset: _FromZero


class SubscribeData(msgspec.Struct, rename={"from_": "from"}):
    """`subscribe`: where to begin (nothing: with what comes next), and what to do about lag."""

    since: Since | None = None
    tail: _FromZero | None = None
    from_: _Start | None = None
    on_lag: OnLag = OnLag.GAP

    def check(self) -> None:
        """Raises RequestError if it says nonsense."""
        if sum(start is not None for start in (self.since, self.tail, self.from_)) > 1:
            raise RequestError(
                ErrorCode.BAD_REQUEST, "`since`, `tail` and `from` exclude one another"
            )
        if self.from_ not in (None, "start"):
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"`from` is {self.from_[:20]!r}; only 'start' is known"
            )
        if self.tail is not None and self.tail < 0:
            raise RequestError(ErrorCode.BAD_REQUEST, f"`tail` is {self.tail}, below 0")
        if self.since is not None and self.since.offset < 0:
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"`since.offset` is {self.since.offset}, below 0"
            )

    @property
    def position(self) -> Position | None:
        """Where to go on from, if that is said."""
        return Position(self.since.epoch, self.since.offset) if self.since is not None else None

    def start(self, log: Log) -> tuple[int, bytes | None]:
        """Return the cursor to begin at in `log`, and the `gap` to tell first, if any.

        Raises:
            RequestError: the position is past the head of the log.
        """
        oldest = log.earliest - 1
        if self.from_ is not None:
            return oldest, encode_gap(log, 1, oldest, "retention") if oldest else None
        if self.tail is not None:
            return max(oldest, log.head - self.tail), None
        since = self.since
        if since is None:
            return log.head, None
        if since.epoch != log.epoch:
            return oldest, encode_gap(log, 1, oldest, "epoch")
        if since.offset > log.head:
            raise RequestError(
                ErrorCode.BAD_POSITION,
                f"`since.offset` is {since.offset}, past the log's head at {log.head}",
            )
        if since.offset < oldest:
            return oldest, encode_gap(log, since.offset + 1, oldest, "retention")
        return since.offset, None


class HistoryData(msgspec.Struct, rename={"from_": "from"}):
    """`history`: a range of offsets, both inclusive, or the newest `limit`."""

    epoch: str | None = None
    from_: int | None = None
    to: int | None = None
    limit: _Count = 100

    @property
    def position(self) -> Position | None:
        """A position in the epoch that is meant, if that is said."""
        return Position(self.epoch, 0) if self.epoch is not None else None

    def bounds(self, log: Log) -> tuple[int, int, int]:
        """Return the first and the last offset of one answer, and the last asked for at all.

        Raises:
            RequestError: the range says nonsense, or is of another epoch.
        """
        if self.epoch is not None and self.epoch != log.epoch:
            raise RequestError(
                ErrorCode.BAD_POSITION,
                f"epoch {self.epoch[:40]!r} is over; the log's is {log.epoch!r}",
            )
        if not 1 <= self.limit <= MAX_PAGE:
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"`limit` is {self.limit}; it goes from 1 to {MAX_PAGE}"
            )
        end = log.head if self.to is None else min(self.to, log.head)
        if self.from_ is None:
            return max(end - self.limit + 1, log.earliest), end, end
        first = max(self.from_, log.earliest)
        return first, min(end, first + self.limit - 1), end


class EndData(msgspec.Struct):
    """`end`: how the stream ended; members of the publisher's own are kept with it."""

    exit_code: int | None = None
    reason: str | None = None


AUTH: Final = msgspec.json.Decoder(AuthData)
SUBSCRIBE: Final = msgspec.json.Decoder(SubscribeData)
HISTORY: Final = msgspec.json.Decoder(HistoryData)
END: Final = msgspec.json.Decoder(EndData)
