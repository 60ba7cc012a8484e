"""The clocks: the machine's, and two that tests own.

Everything that decides by time is given a `Clock` and asks nobody else. The system clock never goes back and goes on
while the machine sleeps (Linux's boot clock), so that a lease that ended during a suspend is known to have ended. The
wall clock decides nothing: setting it does nothing.

Hand a `ManualClock` to `narrowboat.locks(url, clock=...)` or `narrowboat.broker(url, clock=...)` on an embedded backend
to test a week's delay in a millisecond. It drives leases, timeouts and delays; it does not drive a server's own time.
"""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Protocol

from narrowboat.errors import InvalidArgument

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """Seconds as float that never go back; `clock()` is now."""

    def __call__(self) -> float:
        """Now."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` (held weakly where it is a bound method) whenever the clock is moved by hand."""
        ...

    def real(self, seconds: float) -> float | None:
        """How long to really wait for `seconds` of this clock at most; None: until `watch` calls."""
        ...


class SystemClock:
    """The machine's clock that counts sleep where there is one (CLOCK_BOOTTIME), the monotonic clock elsewhere."""

    # Seconds since the machine started, or since some fixed moment. No function of Python's own: that would cost twice as much
    # as what it calls, and every acquire asks six times.
    if hasattr(time, "CLOCK_BOOTTIME"):
        __call__ = staticmethod(functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME))
    else:
        __call__ = staticmethod(time.monotonic)

    def watch(self, callback: Callable[[], None]) -> None:
        """Nobody moves this clock by hand."""

    def real(self, seconds: float) -> float | None:
        """The same."""
        return seconds


class ManualClock:
    """A clock that stands still until it is moved.

    >>> clock = ManualClock()
    >>> clock.advance(7 * 86400)
    >>> clock()
    605800.0
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], Callable[[], None] | None]] = []

    def __call__(self) -> float:
        """Now."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds` (0 or more) and let everything that waits look again."""
        if not 0 <= seconds < float("inf"):  # also false for NaN
            raise InvalidArgument(f"advance({seconds!r}): a clock never goes back; allowed are 0 seconds or more")
        with self._lock:
            self._now += seconds
            self._watchers = [reference for reference in self._watchers if reference() is not None]
            watchers = [reference() for reference in self._watchers]
        for callback in watchers:
            if callback is not None:
                callback()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each `advance`, for as long as its object lives."""
        reference: Callable[[], Callable[[], None] | None]
        if isinstance(callback, MethodType):
            reference = weakref.WeakMethod(callback)
        else:
            reference = lambda: callback  # noqa: E731  # a strong reference in the shape of a weak one
        with self._lock:
            self._watchers.append(reference)

    def real(self, seconds: float) -> float | None:
        """Until it is moved."""
        return None


class LoopClock:
    """The time of one event loop, for tests that choose the order of its callbacks, and whose loop may have a time of its own.

    What is given one starts no thread: what threads would do is done by further callbacks of that loop. So `narrowboat.aio`
    takes it, for the memory backend, whose calls never block; everything else refuses it with `InvalidArgument`.

    `exchange` gives the seconds that the next exchange with the driver takes, in which its callers may go; 0 unless given.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, exchange: Callable[[], float] = float) -> None:
        self.loop = loop
        self.exchange = exchange

    def __call__(self) -> float:
        """Now."""
        return self.loop.time()

    def watch(self, callback: Callable[[], None]) -> None:
        """The loop's own timers follow its time."""

    def real(self, seconds: float) -> float | None:
        """The same: the loop waits."""
        return seconds
