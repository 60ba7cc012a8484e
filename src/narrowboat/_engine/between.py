"""Lanes and timers that live between two callbacks of an event loop, where a `LoopClock` asks for no threads.

For tests that choose the order of an asyncio program's callbacks: what a thread would do meanwhile is a callback like the
others, so a schedule is repeated from its seed. A driver call then runs on the event loop, so this is for the memory backend
alone, which never blocks. It is no faster than threads, and no second copy of what a lane or a timer decides.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from narrowboat._engine import lane as lanes
from narrowboat._engine.exchange import Call
from narrowboat._engine.inside import INSIDE
from narrowboat._engine.lane import Lane
from narrowboat._engine.timer import Timer
from narrowboat.capabilities import Concurrency
from narrowboat.clock import Clock, LoopClock

if TYPE_CHECKING:
    import asyncio


def lane(clock: Clock, name: str, concurrency: Concurrency, *, remote: bool = False) -> Lane:
    """The lane that suits how a driver wants to be called, and how its clock's owner wants work to be done."""
    if isinstance(clock, LoopClock):
        return LoopLane(name, clock)
    return lanes.lane(name, concurrency, remote=remote)


def timer(clock: Clock, name: str, tick: Callable[[float], float]) -> Timer:
    """The timer of that clock."""
    return LoopTimer(name, clock, tick) if isinstance(clock, LoopClock) else Timer(name, clock, tick)


class _Bell:
    """What a lane rings to have its next step made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
        self._loop = loop
        self._step = step

    def put(self, item: None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it whoever waited
            self._loop.call_soon(self._step)


class LoopLane(Lane):
    """A lane whose exchanges are callbacks of one loop; see the module's text."""

    def __init__(self, name: str, clock: LoopClock) -> None:
        super().__init__(name)
        self._clock = clock
        self._under_way: list[Call] = []
        self._bell = cast("queue.SimpleQueue[None]", _Bell(clock.loop, self._step))

    def _carried(self) -> None:
        """The loop carries what is queued."""

    def _step(self) -> None:
        """Begin an exchange. It is made by a later callback, so that its callers may go while it is under way."""
        if self._under_way or not (batch := self._next()):
            return  # the end of the one that is under way rings
        self._under_way = batch
        self._clock.loop.call_later(self._clock.exchange(), self._carry)

    def _carry(self) -> None:
        batch, self._under_way = self._under_way, []
        me = threading.get_ident()
        INSIDE[me] = None  # a finaliser that strikes here must not wait for this thread
        try:
            if batch:
                self._execute(batch)
        finally:
            INSIDE.pop(me, None)

    def close(self, timeout: float) -> bool:
        """Refuse what comes now, and finish what is queued."""
        while self._waiting or self._under_way:
            self._step()
            self._carry()
        self._closed = True
        return True


class LoopTimer(Timer):
    """A timer whose ticks are callbacks of one loop; see the module's text."""

    def __init__(self, name: str, clock: LoopClock, tick: Callable[[float], float]) -> None:
        super().__init__(name, clock, tick)
        self._loop = clock.loop
        self._handle: asyncio.Handle | None = None

    def ring(self) -> None:
        """Tick soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._again(0.0)

    def poke(self) -> None:
        """Tick soon."""
        self.ring()

    def close(self) -> None:
        """Tick no more."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()

    def _again(self, left: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if not self._closed and left < math.inf:
            self._handle = self._loop.call_later(left, self._step) if left > 0 else self._loop.call_soon(self._step)

    def _step(self) -> None:
        me = threading.get_ident()
        INSIDE[me] = None
        try:
            self._look()
        finally:
            INSIDE.pop(me, None)
        self._again(self.due - self._clock())
