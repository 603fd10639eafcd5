"""What administrators ask for: connections, revocations, draining, figures."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

import attrs
import msgspec
from starlette.responses import Response

from triows.errors import ErrorCode, RequestError
from triows.http.answers import answer, empty
from triows.http.call import Call
from triows.http.metrics import METRICS_TYPE, expose
from triows.http.openapi import document


class _Revocation(msgspec.Struct, forbid_unknown_fields=True):
    """Whose word is taken back: a token's, or a user's."""

    token_id: str | msgspec.UnsetType = msgspec.UNSET
    user: str | msgspec.UnsetType = msgspec.UNSET


_REVOCATION: Final = msgspec.json.Decoder(_Revocation)


async def connections(call: Call) -> Response:
    """Answer with all connections, and the last ones that were closed."""
    administration = call.rooms.administration
    found: dict[str, list[Any]] = {
        "open": [attrs.asdict(c) for c in await administration.look()],
        "closed": [attrs.asdict(closed) for closed in administration.closed_connections()],
    }
    return answer(found)


async def connection(call: Call) -> Response:
    """Answer how one connection is doing, or why it ended, on whichever server."""
    id_ = unquote(call.path["id"])
    found = await call.rooms.services.bus.known(id_)
    if found is None:
        raise _unknown(id_)
    return answer(found)


async def disconnect(call: Call) -> Response:  # noqa: ASYNC124 awaited like all of its kind
    """End one connection."""
    id_ = unquote(call.path["id"])
    if not call.rooms.administration.disconnect(id_):
        raise _unknown(id_)
    return empty(204)


def _unknown(id_: str) -> RequestError:
    return RequestError(ErrorCode.NOT_FOUND, f"there is no connection {id_[:100]!r}")


async def revoke(call: Call) -> Response:
    """Believe a token no more, or those of a user."""
    try:
        wanted = _REVOCATION.decode(await call.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(ErrorCode.BAD_REQUEST, f"bad revocation: {error}") from None
    token_id, user = wanted.token_id, wanted.user
    if isinstance(token_id, str) == isinstance(user, str):
        raise RequestError(ErrorCode.BAD_REQUEST, "name either a `token_id` or a `user`")
    administration = call.rooms.administration
    if isinstance(token_id, str):
        return answer({"closed": await administration.revoke(token_id=token_id)})
    assert isinstance(user, str)
    return answer({"closed": await administration.revoke(user=user)})


async def drain(call: Call) -> Response:  # noqa: ASYNC124 awaited like all of its kind
    """Begin to let go of everybody."""
    count, window = call.rooms.administration.drain()
    return answer({"connections": count, "window": window}, 202)


async def statistics(call: Call) -> Response:
    """Answer with the server as a whole."""
    administration = call.rooms.administration
    return answer(attrs.asdict(administration.statistics(await administration.look())))


async def metrics(call: Call) -> Response:
    """Answer the same for Prometheus."""
    administration = call.rooms.administration
    text = expose(administration, await administration.look())
    return Response(text, 200, {"Cache-Control": "no-store", "Content-Type": METRICS_TYPE})


async def openapi(call: Call) -> Response:  # noqa: ASYNC124 awaited like all of its kind
    """Answer with what can be asked."""
    return answer(document())
