"""A candidate in a thread: how the sync face waits for a term, and calls a function in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

from narrowboat._engine.later import unrun
from narrowboat._engine.runtime import Blocking, run, spawn
from narrowboat._locks.election import Candidacy
from narrowboat.errors import NarrowboatError


class Seat:
    """See `narrowboat.electing.candidate.Seat`. A thread cannot be cancelled: its function is told by the term."""

    COROUTINES = False  #: what functions are

    def __init__(self, runtime: Blocking) -> None:
        self._runtime = runtime
        self._signal = runtime.signal()

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """In a daemon thread: a function that never returns ends with the process."""
        spawn(work, name, ended)

    async def elect(self, candidacy: Candidacy[Any]) -> Any:
        """Blocks."""
        try:
            return run(candidacy.run())
        except BaseException:  # an interrupt as well: nobody shall hold, or wait for, what was not handed over
            candidacy.abandon()
            raise

    async def call(self, function: Callable[[Any], Any], term: Any) -> None:
        """In this thread."""
        if unrun(function(term)):
            raise TypeError(f"{function!r} gave a coroutine or generator, which has run none of its body")

    async def release(self, term: Any) -> None:
        """It is free after its ttl at the latest."""
        try:
            term.release()
        except NarrowboatError:
            pass  # it was lost before, or is tried again by the core

    async def wait(self, until: float) -> bool:
        """Blocks. Whether it was woken."""
        return run(self._runtime.wait(self._signal, until))

    def wake(self) -> None:
        """From any thread."""
        self._signal.set()

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """On a thread of its own."""
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer.cancel

    def hurry(self) -> None:
        """Nothing can be cancelled."""
