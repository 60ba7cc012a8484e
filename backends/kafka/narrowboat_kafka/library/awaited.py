"""What coroutines of the loop wait for, and what a turn of it runs. Settled on its thread, but for `Wakeup.notify`."""

from __future__ import annotations

import contextlib
import inspect
import time
from typing import Any, Protocol

from kafka.future import Future as _Future


class Future(_Future):  # type: ignore[misc]  # the base class has no annotations
    """What coroutines of the loop await."""

    __slots__ = ()

    def __await__(self) -> Any:
        if not self.is_done:
            yield self
        if self.exception is not None:
            raise self.exception
        return self.value

    def settle(self, error: BaseException | None) -> None:
        """With nothing, or with that error, unless it is settled."""
        if not self.is_done:
            self.success(None) if error is None else self.failure(error)


class Handle:
    """Something that runs in a turn of the loop, and what it has become: a coroutine under way, over, or cancelled."""

    __slots__ = ("coroutine", "over", "work")

    def __init__(self, work: Any) -> None:
        self.work = work
        self.coroutine: Any = work if inspect.iscoroutine(work) else None
        self.over = False

    def step(self) -> Any:
        """Run on; what it waits for. `StopIteration` when it is over."""
        if self.coroutine is None:
            made = self.work()
            if not inspect.iscoroutine(made):
                raise StopIteration
            self.coroutine = made
        return self.coroutine.send(None)

    def end(self) -> None:
        """Run no further."""
        self.over = True
        if self.coroutine is not None:
            with contextlib.suppress(ValueError, RuntimeError):  # it is what runs just now, or does not end by that
                self.coroutine.close()


class Waits(Protocol):
    """What a `Wakeup` needs of its loop."""

    def call_soon(self, work: Any) -> object:
        """Run it in the next turn."""

    async def until(self, when: float | None, future: Future) -> Any:
        """Await `future`, which is settled then (monotonic) with nothing."""


class Wakeup:
    """A coroutine awaits it for some seconds, or until `notify` or `now` is called, which may have been before."""

    def __init__(self, loop: Waits) -> None:
        self._loop = loop
        self._news = self._coming = False
        self._waiter: Future | None = None

    async def __call__(self, seconds: float) -> None:
        """Wait so long, or until there is news."""
        if not self._news:
            waiter = self._waiter = Future()
            try:
                await self._loop.until(time.monotonic() + seconds, waiter)
            finally:
                self._waiter = None
        self._news = False

    def now(self) -> None:
        """There is news. On the loop's thread: without a turn of the loop in between."""
        self._coming, self._news = False, True
        if self._waiter is not None:
            self._waiter.settle(None)

    def notify(self) -> None:
        """There is news. From any thread."""
        if not self._coming:
            self._coming = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon(self.now)


async def outcome(work: Any, arguments: tuple[Any, ...]) -> Any:
    """What a function, a coroutine function or something that can be awaited comes to."""
    found = work(*arguments) if callable(work) else work
    while hasattr(found, "__await__"):
        found = await found
    return found
