"""The face of an inbox: what a consumer asks in its transaction, and what does that for a whole handler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from narrowboat._engine.runtime import straight
from narrowboat._messages.handling import check_result
from narrowboat.inbox.base import InboxBase, only
from narrowboat.messaging.message import Seconds
from narrowboat.transactions import blocking
from narrowboat.working.handlers import Handling, Skip

#: What gives a connection in a transaction, which it commits at the end and rolls back where that is an error: `engine.begin`.
Begin = Callable[[], AbstractContextManager[Any]]


class Inbox(InboxBase):
    """Which messages one consumer has done. Safe to share between threads."""

    def first(self, connection: Any, message: Any) -> bool:
        """Whether this message is new to this consumer, and mark it as done, in the transaction of `connection`.

        False: it was done before, in a transaction that was committed. While another transaction has it under way, the
        database lets this one wait for how that ends.

        Raises as `outbox.publish`, and changes nothing then.
        """
        return straight(self._mark(blocking(connection), message))

    def clean(self, connection: Any, age: Seconds | None = None) -> int:
        """Delete marks that are older than `age` seconds (None: than the horizon), in the transaction of `connection`.

        Returns how many. An age within the horizon is refused with `InvalidArgument`.
        """
        return straight(self._clean(blocking(connection), age))

    def once(self, begin: Begin) -> Callable[[Callable[[Any, Any], object]], Callable[[Any], None]]:
        """Decorate `handle(message, connection)`: it is called in a transaction of `begin()`, once for each message."""

        def decorate(function: Callable[[Any, Any], object]) -> Callable[[Any], None]:
            @wraps(function)
            def handle(message: Any) -> None:
                with begin() as connection:
                    if self.first(connection, message):
                        check_result(function, function(message, connection))  # here, so that its mark is rolled back

            return handle

        return decorate

    def around(self, begin: Begin) -> Callable[[Handling], AbstractContextManager[None]]:
        """The same for all handlers of a worker: `Worker(around=[inbox.around(engine.begin)])`.

        A handler finds its connection as `inbox.connection`, and is not called for what was done before.
        """

        @contextmanager
        def once(handling: Handling) -> Iterator[None]:
            with begin() as connection:
                if not self.first(connection, only(handling)):
                    raise Skip
                token = self._connection.set(connection)
                try:
                    yield
                finally:
                    self._connection.reset(token)

        return once
