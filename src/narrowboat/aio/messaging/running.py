"""`run` for asyncio: a handler in tasks, from the first message to a clean end.

As in the sync face (`narrowboat.messaging.running`), with three differences. Signals are taken through the event loop and
only in the main thread. What has not finished within the grace time is cancelled, after its messages have gone back.
Cancelling the task that waits for `run` is no drain: the handlers are cancelled, and what was not settled goes back at
once. A handler that ends with CancelledError of its own settles nothing, and the run goes on.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from narrowboat._consume import Consumer
from narrowboat._entry import HELD
from narrowboat.aio.messaging.message import Message
from narrowboat.errors import Closed
from narrowboat.messaging.running import log, outcome

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
        self._interrupted = False

    def stop(self) -> None:
        """End it gracefully, from any thread or signal handler."""
        self._consumer.stop()
        self._signal.set()

    async def wait(self, grace: float) -> None:
        """Work until stopped; then drain."""
        runtime, clock = self._core.runtime, self._core.clock
        for number in range(self._concurrency):
            task = asyncio.create_task(self._work(), name=f"narrowboat-run-{self._consumer.path}-{number}")
            self._tasks.add(task)
            task.add_done_callback(self._done)
        try:
            while self._tasks and not self._consumer.stopped:
                await runtime.wait(self._signal, math.inf)
            self._consumer.stop()
            if not self._core.closed:
                await self._consumer.give_back()
            ends = clock() + grace
            while self._tasks and clock() < ends and self._error is None:
                await runtime.wait(self._signal, ends)
            if self._tasks:
                await self._consumer.close()  # first, so that peers have the messages whatever the handlers still do
        finally:
            await self._cancel()
        if self._error is not None:
            raise self._error
        if self._interrupted:
            raise KeyboardInterrupt

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
            self._consumer.stop()
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
        try:
            await self._handle(message)
        except Exception as error:
            raised = error
            log(message, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return  # the handler's own; it settles nothing
        if message._state is HELD:
            # What comes of it is told to listeners: stale and unknown both mean that it may come back, nothing else.
            await self._consumer.settle((message,), outcome(message, raised))

    def on_signal(self, number: int) -> None:
        """What SIGTERM and SIGINT do, as a callback of the loop."""
        if number == signal.SIGINT:
            if self._interrupted:
                self._error = KeyboardInterrupt()
            self._interrupted = True
        self.stop()


class Signals:
    """SIGTERM and SIGINT go to a run meanwhile; put back afterwards. Only in the main thread; what is ignored stays so."""

    def __init__(self, handler: Callable[[int], None] | None) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if self._handler is not None and threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    loop.add_signal_handler(number, self._handler, number)
                    self._before[number] = before
        return self

    def __exit__(self, *error: object) -> None:
        loop = asyncio.get_running_loop()
        for number, before in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)
