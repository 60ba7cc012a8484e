"""How a request waits for its reply while a worker is tested: it calls the handlers itself, because nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from narrowboat._engine.inside import INSIDE
from narrowboat._engine.runtime import Blocking, BlockingSignal
from narrowboat.clock import Clock


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
