"""What cannot be said by a vector: races, cut connections, bytes instead of messages.

Each check names the section of docs/protocol.md that it checks. They are made in this order.
"""

from triows.conformance.checks import (  # noqa: I001 the last one looks back at the others
    opening as opening,
    framing as framing,
    bounds as bounds,
    order as order,
    resume as resume,
    once as once,
    advice as advice,
)
from triows.conformance.rig import CHECKS as CHECKS
