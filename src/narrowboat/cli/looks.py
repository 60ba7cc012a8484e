"""One look at a time for any number of readers, kept for an interval. For asyncio; the look itself blocks, in a thread.

So a backend that is slow or away costs one thread, however many browsers ask. Without a reader nothing is looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


class Looks(Generic[T]):
    """What was seen last, and what the looks since then have met. Owned by one event loop.

    Args:
        look: blocks, and raises where it cannot see.
        threads: where it runs.
        interval: seconds from the beginning of a look until another one may begin.
        clock: seconds, only forward.
    """

    def __init__(
        self, look: Callable[[], T], threads: Executor, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._threads, self._interval, self._clock = look, threads, interval, clock
        self._begun: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._seen_at: float | None = None
        self._failing_since: float | None = None
        self.seen: T | None = None
        self.before: T | None = None  #: what was seen before that
        self.error: Exception | None = None  #: of the last look; None when it saw something

    @property
    def age(self) -> float | None:
        """Seconds since `seen` was seen."""
        return None if self._seen_at is None else self._clock() - self._seen_at

    @property
    def failing_for(self) -> float | None:
        """Seconds since the first of the looks in a row that saw nothing began."""
        return None if self._failing_since is None else self._clock() - self._failing_since

    async def refresh(self) -> None:
        """Have a look, unless one is running or the last one is recent; wait for it, up to the interval."""
        now = self._clock()
        if self._running is None and (self._begun is None or now - self._begun >= self._interval):
            self._begun = now
            self._running = asyncio.create_task(self._once(now))
        if self._running is not None:
            await asyncio.wait([self._running], timeout=self._interval)

    def forget(self) -> None:
        """Let the next `refresh` look again, however recent the last look is: something was changed."""
        self._begun = None

    async def _once(self, begun: float) -> None:
        try:
            seen = await asyncio.get_running_loop().run_in_executor(self._threads, self._look)
        except Exception as error:
            self.error = error
            self._failing_since = begun if self._failing_since is None else self._failing_since
        else:
            self.seen, self.before, self._seen_at = seen, self.seen, self._clock()
            self.error = self._failing_since = None
        finally:
            self._running = None
