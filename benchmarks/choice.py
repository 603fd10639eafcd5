"""Who is measured: triows, and those of its rivals that are installed and wanted."""

from __future__ import annotations

from benchmarks.candidates import Candidate, Triows, Websockets
from benchmarks.rivals.brokers import Nats, Nchan
from benchmarks.rivals.plain import Bun, Picows, Starlette, TrioWebsocket, WebsocketsTrio, Ws
from benchmarks.rivals.socketio import PythonSocketIo, SocketIoOnNode

RIVALS: list[Candidate] = [
    Websockets(),
    WebsocketsTrio(),
    TrioWebsocket(),
    Picows(),
    Starlette(),
    PythonSocketIo(),
    SocketIoOnNode(),
    Ws(),
    Bun(),
    Nchan(),
    Nats(),
]
"""In the order of the report."""

NAMES = [rival.name for rival in RIVALS]

LEADERS = ("triows", "websockets", "bun")
"""Who does all work, the others not unless they are named: else a run would take hours."""

LONG = (
    "fanout-10",
    "fanout-10000",
    "idle-10000",
    "latency",
    "latency-common",
    "latency-stalled",
    "recovery",
)
"""The work of the leaders alone."""


def among(work: str, candidates: list[Candidate], names: list[str]) -> list[Candidate]:
    """Return those of the candidates who do the work of that name.

    Args:
        names: the rivals that are wanted; none means all.
    """
    if names or work not in LONG:
        return candidates
    return [candidate for candidate in candidates if candidate.name in LEADERS]


def choose(names: list[str]) -> tuple[list[Candidate], list[str]]:
    """Return who can take part, triows first, and a line on each one who cannot.

    Args:
        names: the rivals that are wanted; none means all.
    """
    wanted: list[Candidate] = [rival for rival in RIVALS if not names or rival.name in names]
    there: list[Candidate] = [Triows()]
    left_out = []
    for rival in wanted:
        missing = rival.missing()
        if missing:
            left_out.append(f"{rival.name} is left out: {missing}")
        else:
            there.append(rival)
    return there, left_out
