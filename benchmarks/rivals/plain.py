"""Rivals that are libraries: their servers do the same as that of `websockets`."""

from __future__ import annotations

from benchmarks.candidates import Websockets
from benchmarks.homes import BUN, NODE, VENV, Home


class WebsocketsTrio(Websockets):
    """The native server of `websockets` on Trio, and its own `broadcast` there."""

    name = "websockets-trio"
    packages: tuple[str, ...] = ("websockets", "trio")
    module = "websockets_trio_server"
    waits = "its broadcast waits for the slowest viewer"


class TrioWebsocket(Websockets):
    """trio-websocket alone, as one would use it at first."""

    name = "trio-websocket"
    packages: tuple[str, ...] = ("trio-websocket", "trio")
    module = "trio_websocket_server"
    waits = "its nursery waits for the slowest viewer"


class Picows(Websockets):
    """picows, written in Cython, on uvloop."""

    name = "picows"
    packages: tuple[str, ...] = ("picows", "aiofastnet", "uvloop")
    home: Home = VENV
    module = "picows_server"


class Starlette(Websockets):
    """Starlette, on what `uvicorn[standard]` brings."""

    name = "starlette"
    packages: tuple[str, ...] = ("starlette", "uvicorn", "uvloop", "httptools", "websockets")
    home: Home = VENV
    module = "starlette_server"
    waits = "its loop waits for each viewer in turn"


class Ws(Websockets):
    """`ws` on Node, with what it advises for speed."""

    name = "ws"
    packages: tuple[str, ...] = ("ws", "bufferutil", "node")
    home: Home = NODE
    module = "ws_server"


class Bun(Websockets):
    """Bun, whose topics are in its server, written in C++."""

    name = "bun"
    packages: tuple[str, ...] = ("bun",)
    home: Home = BUN
    module = "bun_server"
