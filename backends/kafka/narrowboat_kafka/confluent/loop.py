"""The loop of this client: asyncio's, on a thread of its own. See `client.Loop`.

The library calls back on threads of its own or of ours; what they have to say goes to the loop with `call_soon_threadsafe`.
It has no connection and no message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from narrowboat_kafka.client import Code, KafkaError

log = logging.getLogger("narrowboat.kafka")


class Future(asyncio.Future[Any]):
    """What coroutines of the loop await. Settled once; what comes later is not heard."""

    def success(self, value: Any) -> None:
        """Settle it with that."""
        if not self.done():
            self.set_result(value)

    def failure(self, error: BaseException) -> None:
        """Raise that in who awaits it."""
        if not self.done():
            self.set_exception(error)
            self.exception()  # asyncio would log each that nobody awaits


class Wakeup:
    """What wakes one coroutine that waits for news, or for time to pass."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._news = False
        self._waiter: Future | None = None

    async def __call__(self, seconds: float) -> None:
        """Wait so long, or until there is news, which may have come before."""
        if not self._news:
            waiter = self._waiter = self._loop.future()
            timer = self._loop.call_later(seconds, lambda: waiter.success(None))
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._news = False

    def now(self) -> None:
        """There is news. On the loop's thread."""
        self._news = True
        if self._waiter is not None:
            self._waiter.success(None)

    def notify(self) -> None:
        """There is news. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.now)


class Loop:
    """See the module's text. It runs from the beginning, until `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._mutex = threading.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio keeps no task alive by itself
        self._thread = threading.Thread(target=self._run, name="narrowboat-kafka", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        finally:
            loop.close()

    # -- on the loop's thread -------------------------------------------------------------------------------------

    def future(self) -> Future:
        """One that is not settled yet."""
        return Future(loop=self._loop)

    def new_wakeup(self) -> Wakeup:
        """One that nobody has notified yet."""
        return Wakeup(self)

    def call_soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Run a function, or a coroutine function, in the next turn."""
        self._loop.call_soon(self._begin, work, *arguments)

    def call_later(self, seconds: float, work: Callable[..., object]) -> asyncio.TimerHandle:
        """Run a function once so many seconds are over."""
        return self._loop.call_later(seconds, self._begin, work)

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long; 0: for one turn."""
        await asyncio.sleep(seconds)

    async def answer(self, asked: concurrent.futures.Future[Any], seconds: float) -> Any:
        """What another thread answers, within so long."""
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(asked)

    def _begin(self, work: Callable[..., object], *arguments: object) -> None:
        try:
            found = work(*arguments)
        except Exception:
            log.exception("what reads from Kafka met a mistake of its own")
            return
        if inspect.iscoroutine(found):
            task = self._loop.create_task(found)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("what reads from Kafka met a mistake of its own", exc_info=task.exception())

    # -- from any thread ------------------------------------------------------------------------------------------

    def call_soon_threadsafe(self, work: Callable[..., object], *arguments: object) -> None:
        """As `call_soon`. `RuntimeError` once it is closed."""
        with self._mutex:
            if self._closed:
                raise RuntimeError("the loop was closed")
            self._loop.call_soon_threadsafe(self._begin, work, *arguments)

    def begin(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> concurrent.futures.Future[Any]:
        """Run a coroutine function there; what it returns comes in a future for any thread."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()

        async def run() -> None:
            try:
                found = await work(*arguments)
            except asyncio.CancelledError:
                done.set_exception(RuntimeError("the loop was closed"))
                raise
            except BaseException as error:  # whoever waits for it raises it
                done.set_exception(error)
            else:
                done.set_result(found)

        self.call_soon_threadsafe(run)
        return done

    def call(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Run it there and wait for what it returns. `RuntimeError` once it is closed."""
        return self.begin(work, *arguments).result()

    def call_until(self, until: float, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """The same, until then (monotonic) at most."""
        done = self.begin(work, *arguments)
        try:
            return done.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            if done.done():
                raise  # its own
            raise KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True) from None

    def close(self, seconds: float) -> None:
        """End it, and what runs on it. Idempotent."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)

    def disown(self) -> None:
        """In a forked child: there is no such thread, and its selector is the parent's."""
        self._mutex = threading.Lock()  # who held the old one is not here
        self._closed = True
