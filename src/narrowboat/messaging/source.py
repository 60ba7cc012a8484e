"""Consuming, for queues, subscriptions and dead letters alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from narrowboat._engine.checks import flag, seconds
from narrowboat._engine.holdable import Uncopied
from narrowboat._engine.runtime import run
from narrowboat._engine.signals import Signals
from narrowboat._messages.checks import MAX_DURATION, check_count, check_wait
from narrowboat._messages.handling import drained
from narrowboat._messages.handling import prefetch as prefetch_of
from narrowboat._messages.source import SourceCore
from narrowboat.contract.messages import Depth
from narrowboat.messaging.consumer import Messages
from narrowboat.messaging.message import Message, Seconds
from narrowboat.messaging.running import Run, check_handler

T = TypeVar("T")


class Readable(Uncopied, Generic[T]):
    """What can be consumed from. Safe to share between threads."""

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
    ) -> Messages[T]:
        """Start consuming: what is published once this returns reaches this source. Use it in a `with`.

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
        make: type[Message[T]] = Message  # itself: through the subscript each message would cost five times as much
        consumer = self._core.consumer(make, prefetch=prefetch, auto_extend=auto_extend, max_extend=max_extend)
        try:
            run(self._core.open(consumer))
            return Messages(consumer, quiet)
        except BaseException:
            consumer.closing.abandon()  # the caller does not have it
            raise

    def run(
        self,
        handle: Callable[[Message[T]], object],
        *,
        concurrency: int = 1,
        grace: Seconds = 30,
        signals: bool = True,
        max_extend: Seconds = 3600,
        prefetch: int | None = None,
    ) -> None:
        """Call `handle` with each message until stopped: by `stop()`, SIGTERM, Ctrl-C, or the broker's close.

        Args:
            handle: a plain function; it acks by returning and nacks by raising. See `narrowboat.messaging.running`.
            concurrency: threads that call it.
            grace: seconds that running handlers are given at the end.
            signals: end on SIGTERM and SIGINT, when a `run` of this process is in the main thread. Handlers that are there are
                called as well, and put back.
            max_extend: no message is kept longer than these seconds for its handler.
            prefetch: how many messages may be unsettled at once; ten for each handler unless given.

        Raises:
            KeyboardInterrupt: it was ended by Ctrl-C in the main thread, after the handlers had finished.
        """
        check_handler(handle, coroutine=False)
        threads = check_count("concurrency", concurrency, 1, 10_000)
        length = seconds("grace", grace, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
        with_signals = flag("signals", signals)
        ahead = prefetch_of(threads) if prefetch is None else prefetch
        messages = self.consume(prefetch=ahead, max_extend=max_extend)
        try:
            with drained(messages):
                work = Run(messages._consumer, handle, threads)
                taken = Signals(work if with_signals else None)
                try:
                    self._core.runs.add(work)
                    with taken:
                        work.wait(length)
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

    def depth(self) -> Depth:
        """How many messages are ready, in flight, delayed, dead, and for how many seconds the oldest ready one has waited.

        None where the backend cannot know, or where none is ready. A source that does not exist yet is empty. With
        `?declare=never` it raises `NotFound`.
        """
        return run(self._core.depth())

    def purge(self) -> int:
        """Drop what is ready or delayed, not what is in flight. How many."""
        return run(self._core.purge())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
