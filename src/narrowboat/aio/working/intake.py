"""A source in tasks: how a worker of the asyncio face consumes, calls a handler, and cancels one that takes too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from narrowboat.aio._runtime import Asyncio, cancel, spawn
from narrowboat.aio.messaging.message import Batch
from narrowboat.errors import NarrowboatError
from narrowboat.working.handlers import Handling, Skip
from narrowboat.working.intake_base import BaseIntake

#: What a handler gives: it is awaited, and not looked at.
Result = TypeVar("Result", bound=Awaitable[object])


class Intake(BaseIntake):
    """See `BaseIntake`."""

    COROUTINES = True
    RUNTIME = Asyncio
    MANAGER = ("__aenter__", "__aexit__", "asynccontextmanager")

    _task: asyncio.Task[None] | None = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """In a task of its own."""
        self._task = spawn(work, name, ended)

    async def declare(self) -> None:
        """Once, before the first message."""
        await self._source.declare()

    async def consume(self, consuming: Any, places: int, *, probing: bool) -> None:
        """By `run`, or batch after batch in this task."""
        handler = self._handler
        if handler.batch is not None:
            await self._batches(consuming, 1 if probing else handler.batch)
            return
        await self._source.run(
            consuming.one,
            concurrency=places,
            prefetch=1 if probing else handler.prefetch,
            grace=self._grace,
            signals=False,  # the supervisor hears them
            max_extend=handler.max_extend,
        )

    async def _batches(self, consuming: Any, most: int) -> None:
        prefetch = 1 if most == 1 else self._handler.prefetch
        async with self._source.consume(prefetch=prefetch, max_extend=self._handler.max_extend) as messages:
            self._messages = messages
            async for batch in messages.batches(most):
                try:
                    await consuming.many(batch)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    await batch.nack()  # the handler's own: as in `run`, it ends nothing

    async def call(self, handling: Handling, argument: Any, late: Callable[[Exception], Any]) -> bool:
        """In the task that asks. One that takes too long is cancelled, and fails with TimeoutError."""
        timeout = self._handler.timeout
        async with contextlib.AsyncExitStack() as stack:
            try:
                for each in self._around:
                    await stack.enter_async_context(self._managed(each, each(handling)))
            except Skip:
                return True
            try:
                async with asyncio.timeout(timeout) as scope:
                    await self._handler.function(argument)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise TimeoutError(f"no end within {timeout:g} s; it was cancelled") from None
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise RuntimeError("what it awaited was cancelled, and not the handler") from error
        return True

    async def settle(self, messages: Sequence[Any], outcome: Any) -> Sequence[NarrowboatError | None]:
        """In one exchange."""
        return await Batch(list(messages))._settle(outcome)

    async def open(self) -> None:
        """For tests."""
        prefetch = self._handler.batch or 1
        self._messages = await self._source.consume(prefetch=prefetch, max_extend=self._handler.max_extend)

    async def take(self) -> Sequence[Any]:
        """For tests: it looks, and waits for nothing."""
        got: list[Any] = []
        while self._messages is not None and len(got) < (self._handler.batch or 1):
            message = await self._messages.receive(timeout=0)
            if message is None:
                break
            got.append(message)
        return Batch(got)

    async def leave(self) -> None:
        """For tests."""
        if self._messages is not None:
            await self._messages.close()

    async def wait(self, until: float) -> None:
        """Suspends this task."""
        await self._runtime.wait(self._signal, until)

    def hurry(self) -> bool:
        """The handlers are cancelled, and what they had goes back."""
        if self._task is not None:
            cancel(self._task)
        return False
