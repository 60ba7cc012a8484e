"""A candidate in a task: how the asyncio face waits for a term, and calls a coroutine function in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from narrowboat._locks.election import Candidacy
from narrowboat.aio._runtime import Asyncio, cancel, spawn
from narrowboat.errors import NarrowboatError


class Seat:
    """See `narrowboat.electing.candidate.Seat`. The function's task is cancelled when its term is lost."""

    COROUTINES = True  #: what functions are

    def __init__(self, runtime: Asyncio) -> None:
        self._runtime = runtime
        self._signal = runtime.signal()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """In a task of its own."""
        self._task = spawn(work, name, ended)

    async def elect(self, candidacy: Candidacy[Any]) -> Any:
        """Suspends this task."""
        try:
            return await candidacy.run()
        except BaseException:  # cancelled as well: nobody shall hold, or wait for, what was not handed over
            candidacy.abandon()
            raise

    async def call(self, function: Callable[[Any], Any], term: Any) -> None:
        """In a task of its own, which is cancelled when the term is lost or this task is cancelled."""
        task = asyncio.ensure_future(function(term))

        def watcher(over: Any) -> None:
            if over.lost:
                cancel(task)

        if not term._watch(watcher):
            watcher(term)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            term._unwatch(watcher)
        if not task.cancelled():
            task.result()
        elif not term.lost:
            raise RuntimeError("what it awaited was cancelled, and not the function")

    async def release(self, term: Any) -> None:
        """It is free after its ttl at the latest."""
        try:
            await term.release()
        except NarrowboatError:
            pass  # it was lost before, or is tried again by the core

    async def wait(self, until: float) -> bool:
        """Suspends this task. Whether it was woken."""
        return await self._runtime.wait(self._signal, until)

    def wake(self) -> None:
        """From any thread."""
        self._signal.set()

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """On the loop."""
        return self._loop.call_later(seconds, call).cancel

    def hurry(self) -> None:
        """The function is cancelled: once, as a second one would strike the wait for its cleanup."""
        task, self._task = self._task, None
        if task is not None:
            cancel(task)
