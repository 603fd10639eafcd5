"""The house keeps its own law: who may import whom, and how large a room may grow.

The law is the table in docs/design.md; this file only reads it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "triows"
MAX_LINES = 350
MAX_FUNCTION = 30  # lines of body, without its docstring
ROOMS = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room a file belongs to: `hub`, `bus`, `http`, `cli` …"""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def law() -> dict[str, set[str]]:
    """Return for each room the rooms it may import, as docs/design.md says."""
    text = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)(?:\.py|/)` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    return {room: {w.strip(" `") for w in allowed.split(",")} - {"—"} for room, allowed in rows}


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports, those inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_room_imports_only_what_it_may(path: Path) -> None:
    """A file imports no room that the table does not allow."""
    room = room_of(path)
    if room == "__init__":
        return
    allowed = law()[room] | {room}
    rooms = {room_of(other) for other in ROOMS}
    used = {m.split(".")[1] for m in imports_of(path) if m.startswith("triows.")} & rooms

    assert used <= allowed


def test_table_names_every_room() -> None:
    """No room is missing from the table, and none in it is gone."""
    assert set(law()) == {room_of(path) for path in ROOMS} - {"__init__"}


def test_imports_have_no_circle() -> None:
    """The rooms can be put in an order in which each imports earlier ones only."""
    left = law()
    while left:
        ready = {room for room, needs in left.items() if not needs & set(left) - {room}}

        assert ready, f"a circle among {sorted(left)}"
        left = {room: needs for room, needs in left.items() if room not in ready}


def test_trio_websocket_is_known_in_two_rooms_only() -> None:
    """Only `wire` (a server's end) and `dial` (a client's) import trio_websocket."""
    users = {room_of(p) for p in ROOMS if any("trio_websocket" in m for m in imports_of(p))}

    assert users == {"wire", "dial"}


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("hypercorn", {"http/serving.py"}),
        ("prometheus_client", {"http/metrics.py"}),
        ("coredis", {"bus/connecting.py", "bus/link.py"}),
        ("anyio", set()),
        ("asyncio", set()),
    ],
)
def test_library_is_known_in_one_file(library: str, users: set[str]) -> None:
    """What is undocumented, optional or foreign to Trio is kept in one place, or out."""
    found = {
        p.relative_to(PACKAGE).as_posix()
        for p in ROOMS
        if any(m.split(".")[0] == library for m in imports_of(p))
    }

    assert found == users


def test_core_needs_no_extra() -> None:
    """Starlette is known in http/ only, and there not to the front."""
    users = {p for p in ROOMS if any(m.startswith("starlette") for m in imports_of(p))}

    assert {room_of(p) for p in users} == {"http"}
    assert not {p.name for p in users} & {"__init__.py", "front.py", "head.py"}


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_room_is_small(path: Path) -> None:
    """A module has at most 350 lines, and a function at most 30 beside its docstring."""
    text = path.read_text()
    long = [
        f"{node.name}: {size}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := body_lines(node)) > MAX_FUNCTION
    ]

    assert len(text.splitlines()) <= MAX_LINES
    assert not long


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines the body of a function has, without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 0
    end = body[-1].end_lineno
    assert end is not None
    return end - body[0].lineno + 1
