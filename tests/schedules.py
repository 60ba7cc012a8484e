"""An event loop whose order and time come from a seed, for tests that look for races of tasks.

It runs one ready callback at a time, chosen by the seed, and cancels tasks at steps that the seed chooses as well. Time is its
own: when nothing is ready it jumps to the next timer. With a `LoopClock` on it, `narrowboat.aio` on memory starts no thread, so
a seed is the whole schedule, and a failure is repeated by its number. asyncio promises an order of ready callbacks; this loop
keeps none, as answers of a lane's thread come in no order either. It knows no sockets, no signals and no threads.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Steps after which a schedule is taken to go round in a circle.
ENDLESS = 100_000


class SeededLoop(asyncio.BaseEventLoop):
    """See the module's text. `random` is for the test as well: whatever it draws is part of the schedule."""

    _ready: deque[asyncio.Handle]  # asyncio's own, as in every release since 3.4
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)  # a schedule is no secret
        self.steps = 0
        self.doomed: list[tuple[int, asyncio.Task[Any]]] = []  #: at which step to cancel which task
        self.hunted: list[tuple[Callable[[], object], asyncio.Task[Any]]] = []  #: and at some step at which that is true
        self.errors: list[dict[str, Any]] = []
        self._now = 1000.0
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def cancel_at(self, step: int, task: asyncio.Task[Any]) -> None:
        """Cancel `task` before that many further steps, if it is not done by then."""
        self.doomed.append((self.steps + step, task))

    def cancel_while(self, when: Callable[[], object], task: asyncio.Task[Any]) -> None:
        """Cancel `task` at one of the steps at which `when()` is true."""
        self.hunted.append((when, task))

    def spare(self) -> None:
        """Cancel nobody any more."""
        self.doomed.clear()
        self.hunted.clear()

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _run_once(self) -> None:
        self.steps += 1
        if self.steps > ENDLESS:
            raise AssertionError("the schedule does not end")
        for due, task in [each for each in self.doomed if each[0] <= self.steps]:
            self.doomed.remove((due, task))
            task.cancel()
        for when, task in list(self.hunted):
            if self.random.random() < 0.2 and when():
                self.hunted.remove((when, task))
                task.cancel()
        ready, scheduled = self._ready, self._scheduled
        timers = sorted((each for each in scheduled if not each.cancelled()), key=lambda each: each.when())
        if not ready and not timers and self.doomed:
            self.steps = min(due for due, _ in self.doomed)  # everybody waits: nothing else can happen before
            return
        if not ready:
            if not timers:
                raise AssertionError("everybody waits, and nothing will happen")
            self._now = max(self._now, timers[0].when())
        due_now = [each for each in timers if each.when() <= self._now]
        for each in due_now:
            each._scheduled = False  # type: ignore[attr-defined]  # asyncio counts cancelled timers by it
        scheduled[:] = [each for each in timers if each not in due_now]
        ready.extend(due_now)
        index = self.random.randrange(len(ready))
        handle = ready[index]
        del ready[index]
        if not handle.cancelled():
            handle._run()


def explore(seed: int, main: Callable[[SeededLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main` under one schedule. Fails on errors that reached the loop, and on tasks that are left."""
    loop = SeededLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(main(loop))
        assert loop.errors == []
        assert asyncio.all_tasks(loop) == set()
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def seeds(few: int) -> range:
    """The seeds to try: `few`, or as many as NARROWBOAT_SCHEDULES says."""
    return range(int(os.environ.get("NARROWBOAT_SCHEDULES", few)))
