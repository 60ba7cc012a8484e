"""The face of an outbox: what a program publishes by, in its own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from narrowboat._engine.runtime import straight
from narrowboat._messages.envelope import Outbound
from narrowboat.messaging.message import Seconds
from narrowboat.outbox.base import OutboxBase
from narrowboat.transactions import blocking

T = TypeVar("T")


class Outbox(OutboxBase[T]):
    """Messages that wait in a table of the program's own database. Safe to share between threads."""

    def publish(
        self,
        connection: Any,
        name: str,
        data: T,
        *,
        topic: bool = False,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: Seconds = 0,
        id: str | None = None,
        type: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
    ) -> str:
        """Store one message in the transaction of `connection`: it is published if and when that is committed.

        Args:
            connection: yours, in a transaction: of sqlite3, psycopg 3, SQLAlchemy 2 (a connection or a session) or Django.
            name: the queue's, or the topic's.
            data: bytes, or what the codec takes.
            topic: it goes to a topic.
            key: messages of one key are published in their order, and keep it in an ordered source.
            headers: a mapping of text to text.
            delay: seconds from now before the message is delivered.
            id: the idempotency key; drawn unless given. A second message of an id that still waits is dropped.
            type: the kind of event, for those who read the table. Consumers see it as the header `type`.
            correlation_id: kept as it is.
            content_type: the codec's unless given.

        Returns:
            The id, under which it is published however often that is tried.

        Raises:
            InvalidArgument: what no message can be, such as a body that is too large; nothing was done.
            NoTransaction: the connection commits by itself; nothing was done.
            TransactionAborted: an earlier statement had failed; nothing was done.
            TableMissing: it says the DDL.
            Unsupported: a connection of another client, or to another database; nothing was done.
        """
        item = Outbound(data, key, headers, delay, 0, None, id, correlation_id, content_type)
        return straight(self._store(blocking(connection), self._sealed(name, topic, item), type))
