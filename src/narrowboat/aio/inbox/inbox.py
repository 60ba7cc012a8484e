"""The face of an inbox for asyncio: what a consumer asks in its transaction, and what does that for a whole handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import Any

from narrowboat.inbox.base import InboxBase, only
from narrowboat.messaging.message import Seconds
from narrowboat.working.handlers import Handling, Skip

#: What gives a connection in a transaction, which it commits at the end and rolls back where that is an error: `engine.begin`.
Begin = Callable[[], AbstractAsyncContextManager[Any]]
Handle = Callable[[Any, Any], Awaitable[object]]


class Inbox(InboxBase):
    """Which messages one consumer has done. Safe to share between tasks."""

    async def first(self, connection: Any, message: Any) -> bool:
        """Whether this message is new to this consumer, and mark it as done, in the transaction of `connection`.

        False: it was done before, in a transaction that was committed. While another transaction has it under way, the
        database lets this one wait for how that ends.

        Raises as `outbox.publish`, and changes nothing then.
        """
        return await self._mark(connection, message)

    async def clean(self, connection: Any, age: Seconds | None = None) -> int:
        """Delete marks that are older than `age` seconds (None: than the horizon), in the transaction of `connection`.

        Returns how many. An age within the horizon is refused with `InvalidArgument`.
        """
        return await self._clean(connection, age)

    def once(self, begin: Begin) -> Callable[[Handle], Callable[[Any], Awaitable[None]]]:
        """Decorate `handle(message, connection)`: it is called in a transaction of `begin()`, once for each message."""

        def decorate(function: Handle) -> Callable[[Any], Awaitable[None]]:
            @wraps(function)
            async def handle(message: Any) -> None:
                async with begin() as connection:
                    if await self.first(connection, message):
                        await function(message, connection)

            return handle

        return decorate

    def around(self, begin: Begin) -> Callable[[Handling], AbstractAsyncContextManager[None]]:
        """The same for all handlers of a worker: `Worker(around=[inbox.around(engine.begin)])`.

        A handler finds its connection as `inbox.connection`, and is not called for what was done before.
        """

        @asynccontextmanager
        async def once(handling: Handling) -> AsyncIterator[None]:
            async with begin() as connection:
                if not await self.first(connection, only(handling)):
                    raise Skip
                token = self._connection.set(connection)
                try:
                    yield
                finally:
                    self._connection.reset(token)

        return once
