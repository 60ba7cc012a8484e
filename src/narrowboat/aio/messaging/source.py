"""Consuming, for queues, subscriptions and dead letters alike, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from narrowboat._engine.checks import flag, seconds
from narrowboat._engine.holdable import Uncopied
from narrowboat._engine.signals import Signals
from narrowboat._messages.checks import MAX_DURATION, check_count, check_wait
from narrowboat._messages.handling import drained
from narrowboat._messages.handling import prefetch as prefetch_of
from narrowboat._messages.source import SourceCore
from narrowboat.aio.messaging.consumer import Messages, Opening
from narrowboat.aio.messaging.message import Message, Seconds
from narrowboat.aio.messaging.running import Run
from narrowboat.contract.messages import Depth
from narrowboat.messaging.running import check_handler

T = TypeVar("T")


class Readable(Uncopied, Generic[T]):
    """What can be consumed from. Safe to share between tasks."""

    def __init__(self, core: SourceCore[T]) -> None:
        self._core = core

    @property
    def name(self) -> str:
        """Its name; a subscription's is that of its topic, a dot, and its group."""
        return self._core.address.path

    def consume(
        self,
        *,
        prefetch: int = 100,
        auto_extend: bool = True,
        max_extend: Seconds = 3600,
        idle: Seconds | None = None,
    ) -> Opening[T]:
        """Start consuming: what is published once this is open reaches this source. Use it in an `async with`, or await it.

        Args:
            prefetch: how many messages may be unsettled at once, fetched ahead and handed out together.
            auto_extend: keep the leases of what is fetched and not settled, where the backend has them.
            max_extend: no delivery is kept longer than these seconds that way.
            idle: iterating ends after these seconds without a message; None: never.

        Raises:
            Conflict: it exists in another order, or with other priorities.
            NotFound: it does not exist, and the URL says `?declare=never`.
        """
        quiet = check_wait("idle", idle)

        async def start() -> Messages[T]:
            make: type[Message[T]] = Message  # itself: through the subscript each message would cost five times as much
            consumer = self._core.consumer(make, prefetch=prefetch, auto_extend=auto_extend, max_extend=max_extend)
            try:
                await self._core.open(consumer)
                return Messages(consumer, quiet)
            except BaseException:
                consumer.closing.abandon()  # the caller does not have it
                raise

        return Opening(start)

    async def run(
        self,
        handle: Callable[[Message[T]], Awaitable[object]],
        *,
        concurrency: int = 1,
        grace: Seconds = 30,
        signals: bool = True,
        max_extend: Seconds = 3600,
        prefetch: int | None = None,
    ) -> None:
        """Call `handle` with each message until stopped: by `stop()`, SIGTERM, Ctrl-C, or the broker's close.

        Args:
            handle: a coroutine function; it acks by returning and nacks by raising. See `narrowboat.aio.messaging.running`.
            concurrency: tasks that call it.
            grace: seconds that running handlers are given at the end.
            signals: end on SIGTERM and SIGINT, when a `run` of this process is in the main thread. Handlers that are there are
                called as well, and put back.
            max_extend: no message is kept longer than these seconds for its handler.
            prefetch: how many messages may be unsettled at once; ten for each handler unless given.

        Raises:
            asyncio.CancelledError: it was ended by Ctrl-C, after the handlers had finished; `asyncio.run` cancels its main task
                then, and raises KeyboardInterrupt. On a loop of your own it is KeyboardInterrupt.
        """
        check_handler(handle, coroutine=True)
        tasks = check_count("concurrency", concurrency, 1, 10_000)
        length = seconds("grace", grace, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
        with_signals = flag("signals", signals)
        ahead = prefetch_of(tasks) if prefetch is None else prefetch
        messages = await self.consume(prefetch=ahead, max_extend=max_extend)
        try:
            async with drained(messages):
                work = Run(messages._consumer, handle, tasks)
                taken = Signals(work if with_signals else None)
                try:
                    self._core.runs.add(work)
                    with taken:
                        await work.wait(length)
                    await asyncio.sleep(0)  # Ctrl-C may have cancelled this very task: here, and not while the consumer closes
                finally:
                    self._core.runs.discard(work)
                    taken.leave()  # where an interrupt came in the very moment of leaving
        except BaseException:
            messages._consumer.closing.abandon()
            raise

    def stop(self) -> None:
        """End every `run` of this object, as SIGTERM does: nothing more is fetched, running handlers finish."""
        for work in tuple(self._core.runs):
            work.stop()

    async def depth(self) -> Depth:
        """How many messages are ready, in flight, delayed, dead, and for how many seconds the oldest ready one has waited.

        None where the backend cannot know, or where none is ready. A source that does not exist yet is empty. With
        `?declare=never` it raises `NotFound`.
        """
        return await self._core.depth()

    async def purge(self) -> int:
        """Drop what is ready or delayed, not what is in flight. How many."""
        return await self._core.purge()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
