"""The files that a browser gets: the client and the dashboard, read once when the server opens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Self, final

import attrs
from starlette.responses import Response

from triows.http.head import Head

FOLDER: Final = Path(__file__).parent.parent / "web"
_KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


@attrs.frozen
class File:
    """One file, as it is answered."""

    body: bytes
    media_type: str
    etag: str


@final
@attrs.frozen
class Files:
    """Every file there is, by path: what is not among them cannot be asked for."""

    by_path: dict[str, File]

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Self:
        """Read all files of a folder whose kind is known."""
        found = {
            f"/{path.relative_to(folder).as_posix()}": _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in _KINDS and path.is_file()
        }
        for path in list(found):
            if path.endswith("/index.html"):
                found[path.removesuffix("index.html")] = found[path]
        return cls(found)

    def find(self, head: Head) -> Response | None:
        """Return the answer to a request for a file; None if there is none at its path."""
        path = head.path
        if path in ("/", "/dashboard"):
            return Response(None, 307, {**HEADERS, "Location": "/dashboard/"})
        file = self.by_path.get(path)
        if file is None:
            return None
        headers = {**HEADERS, "ETag": file.etag}
        if has_etag(head, file.etag):
            return Response(None, 304, headers)
        return Response(file.body, 200, {**headers, "Content-Type": file.media_type})


def has_etag(head: Head, etag: str) -> bool:
    """Whether the asker says that it has this version (RFC 9110 section 13.1.2)."""
    offered = [tag.removeprefix("W/") for tag in head.tokens("if-none-match")]
    return etag in offered or offered == ["*"]


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, _KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
