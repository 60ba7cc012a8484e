"""How a request waits for its reply, and a lock for its turn, while a worker is tested: nobody else moves its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from narrowboat.aio._runtime import Asyncio, AsyncSignal
from narrowboat.clock import Clock, ManualClock
from narrowboat.working import waiting


class Waiting(Asyncio):
    """The runtime of such a wait. `move` calls handlers, or moves the clock to a deadline when nothing is left for them."""

    def __init__(self, clock: Clock, move: Callable[[float], Awaitable[object]]) -> None:
        super().__init__(clock)
        self._move = move

    async def wait(self, signal: AsyncSignal, deadline: float) -> bool:
        """Until `signal` is set, or no longer than `deadline` of the test's clock."""
        while not await signal.take(0):
            if self.clock() >= deadline:
                return False
            await self._move(deadline)
            await asyncio.sleep(0)  # signals are set by the loop
        return True


class Passing:
    """Moves the clock, and calls no handler: what holds the lock may be the handler that stands still meanwhile."""

    def __init__(self, clock: ManualClock) -> None:
        self._pass = waiting.Passing(clock)

    async def __call__(self, until: float) -> None:
        """To `until`."""
        self._pass(until)
