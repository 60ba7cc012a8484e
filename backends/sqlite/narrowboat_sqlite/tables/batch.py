"""New messages on their way into the tables: collected, then stored with few statements.

It runs inside a transaction of its caller's. What becomes of the rows afterwards is `message_rows`'s business.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from narrowboat.contract import Outgoing
from narrowboat.driver.sources import levels, rank
from narrowboat_sqlite.clocks.schedule import Moment
from narrowboat_sqlite.tables.message_rows import BLOCKED, DELAYED, READY, in_sequence, insert
from narrowboat_sqlite.tables.sources import SourceRow


class Batch:
    """New messages on their way into the tables: collected, then stored with few statements.

    Most messages are plain: for one queue, available at once, in no order by key. Runs of them get their rows of `delivery`
    by one statement, which is what makes a large send cheap.
    """

    def __init__(self, connection: sqlite3.Connection, moment: Moment) -> None:
        self._connection = connection
        self._moment = moment
        self._messages: list[tuple[object, ...]] = []
        self._deliveries: list[tuple[object, ...]] = []
        self._pending: list[tuple[object, ...]] = []
        self._runs: list[tuple[SourceRow, int, int]] = []
        self._keys: set[tuple[int, str]] = set()
        self._next: int = connection.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()[0]

    def message(self, message: Outgoing, copies: int) -> int:
        """Add a body; its id."""
        self._next += 1
        _, name, body, headers, key, published, _, priority, _, correlation, content_type, reply_to, *_ = message
        details = None
        if correlation is not None or content_type is not None or reply_to is not None:
            address = None if reply_to is None else (reply_to.kind.value, reply_to.name, reply_to.group)
            details = json.dumps((correlation, content_type, address))
        text = json.dumps(dict(headers)) if headers else None
        self._messages.append((self._next, name, body, text, key, published, priority, details, copies))
        return self._next

    def plain(self, source: SourceRow, messages: Sequence[Outgoing]) -> None:
        """Add plain messages for `source`."""
        first = self._next + 1
        for message in messages:
            self.message(message, 1)
        self._runs.append((source, first, self._next))

    def delivery(self, source: SourceRow, number: int, message: Outgoing, delay: float, expires: float | None) -> None:
        """Add a copy of message `number` for `source`. An ordered source must have been ticked."""
        moment = self._moment
        origin = None if expires is None else moment.clock
        sorts = rank(source.path, source.properties, source.declared, message.priority)
        if delay > 0:
            until = moment.now + delay
            place = moment.base + until
            self._deliveries.append((source.id, number, DELAYED, sorts, place, until, moment.clock, None, expires, origin))
            return
        key = message.key if source.properties.ordered else None
        state = READY if key is None or self._takes_turn(source.id, key) else BLOCKED
        self._deliveries.append((source.id, number, state, sorts, moment.place, None, None, key, expires, origin))

    def pending(self, topic: SourceRow, number: int, message: Outgoing, expires: float | None, retention: float) -> None:
        """Add message `number` for whatever groups `topic` will have after its delay."""
        moment = self._moment
        until, origin = moment.now + message.delay, None if expires is None else moment.clock
        self._pending.append((topic.id, number, DELAYED, moment.base + until, until, moment.clock, expires, origin, retention))

    def store(self) -> None:
        """Write everything."""
        if self._messages:
            self._connection.executemany(
                "INSERT INTO message (id, name, body, headers, key, published, priority, details, copies)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._messages,
            )
        for source, first, last in self._runs:
            most = levels(source.path, source.properties, source.declared)
            self._connection.execute(
                "INSERT INTO delivery (source, message, state, rank, place)"
                " SELECT ?, id, 0, -min(priority, ?), ? FROM message WHERE id BETWEEN ? AND ?",
                (source.id, most, self._moment.place, first, last),
            )
        if self._deliveries:
            insert(self._connection, self._deliveries)
        if self._pending:
            self._connection.executemany(
                "INSERT INTO delivery (source, message, state, rank, place, until, clock, expires, origin, span)"
                " VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
                self._pending,
            )

    def _takes_turn(self, source: int, key: str) -> bool:
        if (source, key) in self._keys:
            return False
        self._keys.add((source, key))
        return not in_sequence(self._connection, source, key)


def plain_until(messages: Sequence[Outgoing], index: int) -> int:
    """Where the run of messages for one address ends that are available at once and need no second look."""
    to = messages[index].to
    for message in messages[index:]:
        if message.dedup or message.delay > 0 or message.ttl is not None or (message.to is not to and message.to != to):
            break
        index += 1
    return index
