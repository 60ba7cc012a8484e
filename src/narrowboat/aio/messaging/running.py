"""`run` for asyncio: a handler in tasks, from the first message to a clean end.

As in the sync face (`narrowboat.messaging.running`), with two differences. What has not finished within the grace time is
cancelled, after its messages have gone back. Cancelling the task that waits for `run` is no drain: the handlers are cancelled,
and what was not settled goes back at once. A handler that ends with CancelledError of its own settles nothing, and the run goes
on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from narrowboat._messages.consumer import Consumer
from narrowboat._messages.delivery import HELD
from narrowboat.aio.messaging.message import Message
from narrowboat.errors import Closed
from narrowboat.messaging.running import LOOK, outcome, tell

T = TypeVar("T")

#: Seconds that cancelled handlers are given to end. More delays the end of a program whose handlers swallow cancellation.
CANCELLED_GRACE = 1.0


class Run(Generic[T]):
    """One call of `run`."""

    def __init__(
        self, consumer: Consumer[Message[T]], handle: Callable[[Message[T]], Awaitable[object]], concurrency: int
    ) -> None:
        self._consumer = consumer
        self._core = consumer.core
        self._handle = handle
        self._concurrency = concurrency
        self._signal = consumer.core.runtime.signal()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._patient = False  # handlers that run may take as long as they do
        self._hurried = False

    def stop(self) -> None:
        """End it gracefully, from any thread or signal handler."""
        self._patient = False
        self._consumer.closing.stop()
        self._signal.set()

    def finish(self) -> None:
        """As `stop`, but the handlers that run finish however long that takes; a `stop` later on gives them the grace time."""
        self._patient = self._patient or not self._consumer.life.stopped
        self._consumer.closing.stop()
        self._signal.set()

    async def wait(self, grace: float) -> None:
        """Work until stopped; then drain."""
        runtime, clock = self._core.runtime, self._core.clock
        for number in range(self._concurrency):
            task = asyncio.create_task(self._work(), name=f"narrowboat-run-{self._consumer.path}-{number}")
            self._tasks.add(task)
            task.add_done_callback(self._done)
        try:
            while self._tasks and not self._consumer.life.stopped:
                await runtime.wait(self._signal, clock() + LOOK)
            self._consumer.closing.stop()
            if not self._core.closed:
                await self._consumer.closing.give_back()
            ends = math.inf
            while self._tasks and clock() < ends and self._error is None and not self._hurried:
                if not self._patient:
                    ends = min(ends, clock() + grace)
                await runtime.wait(self._signal, min(ends, clock() + LOOK))
            if self._tasks:
                await self._consumer.closing.close()  # first, so that peers have the messages whatever the handlers still do
        finally:
            await self._cancel()
        if self._error is not None:
            raise self._error

    async def _cancel(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCELLED_GRACE)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
            self._consumer.closing.stop()
        self._signal.set()

    async def _work(self) -> None:
        consumer = self._consumer
        try:
            while True:
                got: list[Message[T]] = []
                await consumer.receive(1, math.inf, got)
                if not got:
                    break
                await self._do(got[0])
        except Closed:
            pass

    async def _do(self, message: Message[T]) -> None:
        raised: Exception | None = None
        begun = self._core.clock()
        try:
            await self._handle(message)
        except Exception as error:
            raised = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return  # the handler's own; it settles nothing
        made = outcome(message, raised) if message._state is HELD else None
        tell(self._handle, message, self._core.clock() - begun, raised, made)
        if made is not None:
            # Listeners hear the outcome. Stale and unknown both mean only that the message may be redelivered.
            await self._consumer.settlement.settle((message,), made)

    def hurry(self) -> None:
        """A second signal: the handlers are cancelled now."""
        self._hurried = True
        self._signal.set()
