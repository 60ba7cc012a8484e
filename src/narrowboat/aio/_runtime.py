"""The asyncio runtime: one tick's calls of a loop go to the lane together, and their answers come back together.

They go a tick later, and without those that were cancelled meanwhile: what a task calls in a scope that is cancelled already
is never sent. No driver call ever runs on an event loop, and no waiter parks a thread: a lane has one thread, whatever the
number of tasks. What is delivered into a loop that has been closed meanwhile is dropped, and undone if it was a possession.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from narrowboat._engine.exchange import Call, Op
from narrowboat._engine.lane import Lane
from narrowboat.clock import Clock


def spawn(work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> asyncio.Task[None]:
    """Run it in a task of its own, and tell with which error it ended: None also for one that was cancelled."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(lambda task: ended(None if task.cancelled() else task.exception()))
    return task


def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel it, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the task
        task.get_loop().call_soon_threadsafe(task.cancel)


class AsyncSignal:
    """One task's signal. `set` may come from any thread."""

    __slots__ = ("__weakref__", "_future", "_loop", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the task, or let its next wait return at once."""
        try:
            self._loop.call_soon_threadsafe(self._fire)
        except RuntimeError:
            pass  # the loop is closed, and with it whoever waited

    def _fire(self) -> None:
        self._set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def take(self, timeout: float | None) -> bool:
        """Wait for it for `timeout` real seconds (None: for as long as it takes), and take it back."""
        if not self._set and (timeout is None or timeout > 0):
            self._future = self._loop.create_future()
            timer = None if timeout is None else self._loop.call_later(timeout, _finish, self._future)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        was, self._set = self._set, False
        return was


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _LoopBridge:
    """Between one loop and the lanes: gathers a tick's calls on the way in and a batch's answers on the way out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._leaving: dict[Lane, list[Call]] = {}
        self._arrived: deque[Call] = deque()
        self._called = False

    def send(self, lane: Lane, call: Call) -> asyncio.Future[list[Any]]:
        call.sink = self._arrive
        call.future = future = self.loop.create_future()
        calls = self._leaving.get(lane)
        if calls is None:
            self._leaving[lane] = [call]
            self.loop.call_soon(self._flush, lane)
        else:
            calls.append(call)
        return future

    def _flush(self, lane: Lane) -> None:
        calls = [call for call in self._leaving.pop(lane) if not call.future.done()]
        if calls:
            lane.submit(calls)

    def _arrive(self, call: Call) -> None:  # on a lane's thread, or on the loop's where the lane is closed
        self._arrived.append(call)
        if self._called:
            return  # set before the loop drains, so that what was appended before this look is drained
        self._called = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed: nobody will ever look
            while self._arrived:
                orphan = self._arrived.popleft()
                if orphan.late is not None:
                    orphan.late(orphan)

    def _deliver(self) -> None:
        self._called = False
        while self._arrived:
            call = self._arrived.popleft()
            future, call.future = call.future, None  # an error leads to frames that know this call: it knows the error no more
            if not future.done():  # it is when its task was cancelled
                future.set_result(call.results)


class Asyncio:
    """The runtime of the asyncio face, for any number of loops."""

    unclosed: object = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._bridges: dict[asyncio.AbstractEventLoop, _LoopBridge] = {}
        self._bridge: _LoopBridge | None = None  # the last one used: nearly always the only one

    async def call(self, lane: Lane, call: Call) -> list[Any]:
        """Together with what this loop sends in the same tick; suspends the task that awaits it."""
        loop = asyncio.get_running_loop()
        bridge = self._bridge
        if bridge is None or bridge.loop is not loop:
            bridge = self._bridge = self._bridges.get(loop) or self._enter(loop)
        try:
            return await bridge.send(lane, call)
        except BaseException:
            lane.abandon(call)
            raise

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _LoopBridge:
        """The first call from `loop`. Loops that have ended are forgotten, or a program that runs many would keep them all."""
        for other in list(self._bridges):
            if other.is_closed():
                self._bridges.pop(other, None)
        return self._bridges.setdefault(loop, _LoopBridge(loop))

    async def wait(self, signal: AsyncSignal, deadline: float) -> bool:
        """Suspends the task."""
        while True:
            left = deadline - self.clock()
            if left <= 0:
                return await signal.take(0)
            if await signal.take(self.clock.real(min(left, 86400.0))):
                return True

    def signal(self) -> AsyncSignal:
        """A new signal for this task."""
        signal = AsyncSignal(asyncio.get_running_loop())
        self.clock.watch(signal.set)
        return signal

    def undo(self, lane: Lane, op: Op, items: Sequence[Any]) -> None:
        """Posted: a task that is being cancelled must not wait, or a second cancellation would stop it."""
        lane.post(op, items)

    def caller(self) -> object:
        """The task."""
        return asyncio.current_task()
