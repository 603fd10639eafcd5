"""Where the tests are run from does not show in them."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says as much of what else the machine does. What has to be fast is
# shown elsewhere, by the processor's time.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell that starts a job in the background, or nohup, has it ignore these, and what we start
# would inherit that: no Ctrl-C would reach a command under test.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many simulations the slow part runs."""
    parser.addoption(
        "--simulations", type=int, default=10_000, help="simulations run by the slow part"
    )
