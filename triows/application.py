"""The application's own code inside the server: authorizer and handlers, bounded and contained.

Whatever they do, it ends here: an exception or a missing answer is a refusal to the client that
asked, a line in the log, and nothing to anybody else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, final

import attrs
import msgspec
import trio

from triows.auth import Action, Authorizer, Identity
from triows.codec import encode_json
from triows.errors import ErrorCode, RequestError
from triows.messages import Message, Position

logger = logging.getLogger("triows.application")


@attrs.frozen
class Request:
    """What an application's handler is given.

    Attributes:
        message: what the client sent.
        identity: who it is.
        connection: the id of its connection.
        position: where a `command` was published; None for an application's own types.
    """

    message: Message
    identity: Identity
    connection: str
    position: Position | None


Handler = Callable[[Request], Awaitable[Any]]
"""An application's handler.

For a `command` the grants were checked; who may send messages of the application's own types,
and on which channel, is for the handler to decide.

What it returns (anything with a JSON form) is the `data` of the `ack`, for a `command` its
`result`. A RequestError it raises is sent as it is, anything else as `handler_failed`.
"""


@final
@attrs.frozen
class Application:
    """What the application brought along.

    Attributes:
        handlers: by message type: `command`, and types of its own.
        authorizer: asked instead of the grants, or None.
        timeout: seconds each of them may take for one message.
    """

    handlers: Mapping[str, Handler]
    authorizer: Authorizer | None
    timeout: float

    async def authorize(self, identity: Identity, action: Action, channel: str) -> None:
        """Return if `identity` may; waits only for an authorizer of the application.

        Raises:
            RequestError: `forbidden`, also when the authorizer fails or gives no answer.
        """
        if self.authorizer is None:
            allowed = identity.grants.allow(action, channel)
        else:
            allowed = await self._ask(self.authorizer, identity, action, channel)
        if not allowed:
            raise RequestError(
                ErrorCode.FORBIDDEN, f"{identity.user} may not {action} on {channel}"
            )

    async def _ask(
        self, authorizer: Authorizer, identity: Identity, action: Action, channel: str
    ) -> bool:
        try:
            with trio.fail_after(self.timeout):
                return await authorizer(identity, action, channel) is True
        except trio.TooSlowError:
            logger.warning("the authorizer gave no answer in %g s: refused", self.timeout)
        except Exception:
            logger.exception("the authorizer failed: refused")
        return False

    async def run(self, request: Request) -> msgspec.Raw:
        """Run the handler for `request` and return what it answers, as JSON.

        Raises:
            RequestError: the handler's own, or `handler_failed`.
        """
        type_ = request.message.type
        try:
            with trio.fail_after(self.timeout):
                result = await self.handlers[type_](request)
            return msgspec.Raw(encode_json(result))
        except RequestError:
            raise
        except trio.TooSlowError:
            logger.warning("the handler for %r gave no answer in %g s", type_, self.timeout)
            message = f"the application gave no answer within {self.timeout:g} s"
        except Exception:
            logger.exception("the handler for %r failed", type_)
            message = "the application's handler failed"
        raise RequestError(ErrorCode.HANDLER_FAILED, message)
