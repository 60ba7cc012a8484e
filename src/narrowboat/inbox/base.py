"""What both faces of an inbox do alike: its table, its marks, and for how long a mark is needed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from narrowboat._engine.checks import seconds, text
from narrowboat._messages.checks import MAX_DURATION, check_count
from narrowboat.errors import InvalidArgument
from narrowboat.messaging.message import Seconds
from narrowboat.transactions import check_dialect, check_table, joined

if TYPE_CHECKING:
    from narrowboat.working import Retry

_ANY = "0 or more seconds, as a number or a timedelta"


def horizon(
    *,
    max_deliveries: int = 5,
    lease: Seconds = 30,
    max_extend: Seconds = 3600,
    retry: Retry | None = None,
    outage: Seconds = 86400,
    dead_letters: Seconds = 0,
) -> float:
    """Seconds after which a message that was done cannot come again: for so long its mark is kept at least.

    Args:
        max_deliveries: the source's.
        lease: the source's.
        max_extend: for how long a delivery is kept for its handler.
        retry: the handler's; its longest delay counts.
        outage: for how long the publisher may be cut off, and repeat itself afterwards: a relay does so without end.
        dead_letters: for how long you keep dead letters that may be redriven.

    Raises:
        InvalidArgument: a message that is delivered any number of times comes again for ever.

    >>> horizon(max_deliveries=2, lease=30, max_extend=600, outage=3600)
    5460.0
    """
    if check_count("max_deliveries", max_deliveries, 0, 1000) == 0:
        raise InvalidArgument("max_deliveries=0: such a message may come again for ever, so give a horizon in seconds")

    def each(name: str, value: object) -> float:
        return seconds(name, value, low=0.0, high=MAX_DURATION, allowed=_ANY)

    pause = 300.0 if retry is None else max(rule.most for rule in (retry, *retry.when.values()))
    once = each("lease", lease) + each("max_extend", max_extend) + pause
    return max_deliveries * once + each("outage", outage) + each("dead_letters", dead_letters)


class InboxBase:
    """The marks of one consumer. It holds no connection.

    Args:
        consumer: who does the work, such as the handler's name. Two tasks with one message each need two.
        table: its name, perhaps with a schema; inboxes may share it.
        horizon: seconds for which a mark is kept at least; see the function of that name, whose defaults it takes.
        now: for tests; seconds since the epoch.
    """

    def __init__(
        self,
        consumer: str,
        table: str = "inbox",
        *,
        horizon: Seconds | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.consumer = text("consumer", consumer)
        self._table = check_table(table)
        self.horizon = _default() if horizon is None else seconds("horizon", horizon, low=0.0, high=MAX_DURATION, allowed=_ANY)
        self._now = now
        self._connection: ContextVar[Any] = ContextVar(f"narrowboat-inbox-{consumer}")

    @property
    def connection(self) -> Any:
        """Within `around`: the connection of this message's transaction."""
        try:
            return self._connection.get()
        except LookupError:
            raise InvalidArgument(f"inbox {self.consumer!r}: only a handler within its `around` has a connection") from None

    def ddl(self, dialect: str) -> str:
        """The statement that makes the table on "sqlite" or "postgresql", for a migration."""
        check_dialect(dialect)  # each column's type is one on both
        return (
            f"CREATE TABLE {self._table} (\n    consumer text NOT NULL,\n    id text NOT NULL,\n"
            "    at double precision NOT NULL,\n    PRIMARY KEY (consumer, id)\n)"
        )

    async def _mark(self, connection: Any, message: Any) -> bool:
        transaction = await joined(connection, self.ddl)
        transaction.check_key("the consumer and the message's id", self.consumer, message.id)
        statement = f"INSERT INTO {self._table} VALUES (?, ?, ?) ON CONFLICT (consumer, id) DO NOTHING"  # noqa: S608  # checked
        return (await transaction.execute(statement, (self.consumer, message.id, self._now()))).changed == 1

    async def _clean(self, connection: Any, age: Any) -> int:
        length = self.horizon if age is None else seconds("age", age, low=0.0, high=math.inf, allowed=_ANY)
        if length < self.horizon:
            raise InvalidArgument(
                f"age={length:g}: a message of inbox {self.consumer!r} may come again for {self.horizon:g} s, and would be "
                "done again. Nothing was deleted. If your retries are shorter, say so: Inbox(horizon=horizon(...))"
            )
        transaction = await joined(connection, self.ddl)
        statement = f"DELETE FROM {self._table} WHERE consumer = ? AND at < ?"  # noqa: S608  # checked
        return (await transaction.execute(statement, (self.consumer, self._now() - length))).changed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.consumer!r} in {self._table}>"


def _default() -> float:
    return horizon()


def only(handling: Any) -> Any:
    """The message of a handler that gets one."""
    if len(handling.messages) != 1:
        raise InvalidArgument(
            f"around {handling.handler}: it gets batches, whose messages an inbox tells apart one by one: call "
            "inbox.first(...) for each, in the transaction of the batch"
        )
    return handling.messages[0]
