"""What all tests take for granted: signals as a terminal gives them, and generated cases that are not timed.

A shell that starts the tests in the background has signals ignored, and so all they start: `Ctrl-C` of the tests that press
it would reach nobody. And how long one case takes says more about the machine than about the code.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

try:
    from hypothesis import settings
except ModuleNotFoundError:
    pass  # the kit is run from this folder, in an environment that has no need of it
else:
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """What is there before the tests of a file stays: the garbage collector, which many of them call, no longer looks at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is kept in a circle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
