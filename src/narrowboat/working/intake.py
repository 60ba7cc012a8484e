"""A source in threads: how a worker of the sync face consumes, calls a handler, and tells one that takes too long."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from narrowboat._engine.runtime import Blocking, run, spawn, straight
from narrowboat._messages.handling import check_result, telling
from narrowboat.errors import NarrowboatError
from narrowboat.messaging.message import Batch
from narrowboat.working.handlers import Around, Handler, Handling, Skip
from narrowboat.working.intake_base import BaseIntake
from narrowboat.working.watch import Watch

T = TypeVar("T")
#: What a handler gives: it is not looked at.
Result = TypeVar("Result")


class Intake(BaseIntake):
    """See `BaseIntake`."""

    COROUTINES = False
    RUNTIME = Blocking
    MANAGER = ("__enter__", "__exit__", "contextmanager")

    def __init__(self, handler: Handler, source: Any, around: Sequence[Around], runtime: Blocking, grace: float) -> None:
        super().__init__(handler, source, around, runtime, grace)
        self._watch = None if handler.timeout is None else Watch(runtime, handler.timeout, handler.source)

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """In a daemon thread: a handler that never returns ends with the process."""

        def finished(error: BaseException | None) -> None:
            if self._watch is not None:
                self._watch.close()
            ended(error)

        spawn(work, name, finished)

    async def declare(self) -> None:
        """Once, before the first message."""
        self._source.declare()

    async def consume(self, consuming: Any, places: int, *, probing: bool) -> None:
        """By `run`, or batch after batch in this thread."""
        handler = self._handler
        if handler.batch is not None:
            self._batches(consuming, 1 if probing else handler.batch)
            return
        self._source.run(
            telling(lambda message: straight(consuming.one(message))),
            concurrency=places,
            prefetch=1 if probing else handler.prefetch,
            grace=self._grace,
            signals=False,  # the supervisor hears them
            max_extend=handler.max_extend,
        )

    def _batches(self, consuming: Any, most: int) -> None:
        prefetch = 1 if most == 1 else self._handler.prefetch
        with self._source.consume(prefetch=prefetch, max_extend=self._handler.max_extend) as messages:
            self._messages = messages
            for batch in messages.batches(most):
                straight(consuming.many(batch))

    async def call(self, handling: Handling, argument: Any, late: Callable[[Exception], Any]) -> bool:
        """In the thread that asks. One that takes too long is told by the watch's thread, and cannot be ended."""
        watch = self._watch
        if watch is None:
            self._enter(handling, argument)
            return True
        text = f"no end within {self._handler.timeout:g} s; its thread cannot be ended, and keeps its place until it ends"
        entry = watch.begin(lambda: straight(late(TimeoutError(text))))
        try:
            self._enter(handling, argument)
        except Exception:
            if not watch.end(entry):
                raise
        finally:
            watch.end(entry)
        return not entry.expired  # otherwise it was told already

    @property
    def hung(self) -> int:
        """How many threads are in a handler whose time is up."""
        return 0 if self._watch is None else self._watch.hung

    def _enter(self, handling: Handling, argument: Any) -> None:
        with contextlib.ExitStack() as stack:
            try:
                for each in self._around:
                    stack.enter_context(self._managed(each, each(handling)))
            except Skip:
                return
            found = self._handler.function(argument)
            if found is not None:
                check_result(self._handler.function, found)

    async def settle(self, messages: Sequence[Any], outcome: Any) -> Sequence[NarrowboatError | None]:
        """In one exchange."""
        return Batch(list(messages))._settle(outcome)

    async def open(self) -> None:
        """For tests. They move the clock within a call, so no call is timed."""
        self._watch = None
        prefetch = self._handler.batch or 1
        self._messages = self._source.consume(prefetch=prefetch, max_extend=self._handler.max_extend)

    async def take(self) -> Sequence[Any]:
        """For tests: it looks, and waits for nothing."""
        got: list[Any] = []
        while self._messages is not None and len(got) < (self._handler.batch or 1):
            message = self._messages.receive(timeout=0)
            if message is None:
                break
            got.append(message)
        return Batch(got)

    async def leave(self) -> None:
        """For tests."""
        if self._messages is not None:
            self._messages.close()

    async def wait(self, until: float) -> None:
        """Blocks."""
        run(self._runtime.wait(self._signal, until))

    def hurry(self) -> bool:
        """A `run` leaves its threads behind; a batch goes back by the end of its consumer, and its thread is the source's."""
        for work in tuple(self._source._core.runs):
            work.stop()
            work.hurry()
        messages = self._messages
        if messages is None:
            return False
        with contextlib.suppress(NarrowboatError):
            messages.close()
        return True
