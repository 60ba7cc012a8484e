"""How a request waits for its reply, and a lock for its turn, while a worker is tested: nobody else moves its clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from narrowboat._engine.inside import INSIDE
from narrowboat._engine.runtime import Blocking, BlockingSignal
from narrowboat.clock import Clock, ManualClock

#: Waits for locks in one test. More come of a handler that waits for ever for a lock that the test holds.
MOST = 10_000


class Waiting(Blocking):
    """The runtime of such a wait. `move` calls handlers, or moves the clock to a deadline when nothing is left for them."""

    def __init__(self, clock: Clock, move: Callable[[float], object]) -> None:
        super().__init__(clock)
        self._move = move

    async def wait(self, signal: BlockingSignal, deadline: float) -> bool:
        """Until `signal` is set, or no longer than `deadline` of the test's clock."""
        me = threading.get_ident()
        while not signal.take(0):
            if self.clock() >= deadline:
                return False
            INSIDE.pop(me, None)  # as in every wait: handlers may make calls of their own
            try:
                self._move(deadline)
            finally:
                INSIDE[me] = None
        return True


class Passing:
    """Moves the clock, and calls no handler: what holds the lock may be the handler that stands still meanwhile."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._left = MOST

    def __call__(self, until: float) -> None:
        """To `until`."""
        self._left -= 1
        if self._left < 0:
            raise RuntimeError(f"{MOST} waits for locks in this test: does a handler wait for one that the test holds?")
        self._clock.advance(max(0.0, until - self._clock()))
