"""The rows of messages: what is stored, what is due, what is handed out, what leaves. `messages.sql` says what they mean.

Every function runs inside a transaction of its caller's and decides by the moment that it is given. Batches go to SQLite
as one statement each; single rows only where an order by key has to be kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from narrowboat._queueing import rules
from narrowboat.contract import Address, Outgoing, Properties
from narrowboat_sqlite.schedule import Foreign, Moment, foreign

READY, DELAYED, CLAIMED, HELD, BLOCKED = range(5)

#: Expired rows that are dropped with one statement: a bound on its length, not on how many are dropped.
_SWEEP = 500


class SourceRow(NamedTuple):
    """A row of `source`."""

    id: int
    address: Address
    topic: int | None  #: of a subscription: the topic's id
    declared: bool  #: its properties were given by a consumer, not made up by a publish
    properties: Properties

    @property
    def path(self) -> str:
        """Its name."""
        return self.address.path


class Stored(NamedTuple):
    """What is needed of a delivery's row to take it away."""

    id: int
    source: int
    message: int
    key: str | None
    state: int


#: For each source and foreign clock: what the leases there looked like, and since when by ours: row to (token, until), since.
Observed = dict[tuple[int, int], dict[int, tuple[tuple[int, float], float]]]


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
        _, name, body, headers, key, published, _, priority, _, correlation, content_type, reply_to, _ = message
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
        sorts = rules.rank(source.path, source.properties, source.declared, message.priority)
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
            levels = rules.levels(source.path, source.properties, source.declared)
            self._connection.execute(
                "INSERT INTO delivery (source, message, state, rank, place)"
                " SELECT ?, id, 0, -min(priority, ?), ? FROM message WHERE id BETWEEN ? AND ?",
                (source.id, levels, self._moment.place, first, last),
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


def insert(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Store rows of `delivery`."""
    connection.executemany(
        "INSERT INTO delivery (source, message, state, rank, place, until, clock, key, expires, origin)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def in_sequence(connection: sqlite3.Connection, source: int, key: str) -> bool:
    """Whether an available message of `key` is unsettled in an ordered source."""
    row = connection.execute("SELECT 1 FROM delivery WHERE source = ? AND key = ? LIMIT 1", (source, key)).fetchone()
    return row is not None


def arrive(
    connection: sqlite3.Connection,
    source: SourceRow,
    message: tuple[int, str | None, int],
    place: float,
    expires: tuple[float | None, int | None],
) -> None:
    """Store one available copy of a message (id, key, priority) that is in the tables already."""
    number, key, priority = message
    key = key if source.properties.ordered else None
    state = BLOCKED if key is not None and in_sequence(connection, source.id, key) else READY
    sorts = rules.rank(source.path, source.properties, source.declared, priority)
    insert(connection, [(source.id, number, state, sorts, place, None, None, key, *expires)])


def tick(connection: sqlite3.Connection, source: SourceRow, moment: Moment, observed: Observed) -> None:
    """Do what is due in a source: end leases and delays, drop what has expired. Its topic comes first, see `topology`."""
    others = foreign(connection, moment)
    if source.properties.ordered:
        _tick_singly(connection, source, moment.clock, moment.now, leases=True)
    else:
        # A delayed message stands where it becomes available; one that comes back stands where it stood.
        connection.execute(
            "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL,"
            " place = CASE state WHEN 1 THEN ? + until ELSE place END WHERE source = ? AND clock = ? AND until <= ?",
            (moment.base, source.id, moment.clock, moment.now),
        )
    for other in others:
        _tick_foreign(connection, source, moment, other, observed)
    expire(connection, moment, others)


def _tick_singly(connection: sqlite3.Connection, source: SourceRow, clock: int, now: float, *, leases: bool) -> None:
    """Row by row, as each may or may not be the first of its key."""
    rows = connection.execute(
        "SELECT id, state, message, until FROM delivery WHERE source = ? AND clock = ? AND until <= ?"
        " AND (state <> 2 OR ?) ORDER BY until, message",
        (source.id, clock, now, leases),
    ).fetchall()
    for number, state, message, until in rows:
        if state != DELAYED:
            _ready(connection, [number])
            continue
        key = None
        if source.properties.ordered:
            key = connection.execute("SELECT key FROM message WHERE id = ?", (message,)).fetchone()[0]
        state = BLOCKED if key is not None and in_sequence(connection, source.id, key) else READY
        connection.execute(
            "UPDATE delivery SET state = ?, key = ?, until = NULL, clock = NULL,"
            " place = ? + (SELECT base FROM message_clock WHERE id = ?) WHERE id = ?",
            (state, key, until, clock, number),
        )


def _tick_foreign(
    connection: sqlite3.Connection, source: SourceRow, moment: Moment, other: Foreign, observed: Observed
) -> None:
    """Rows under another clock: delays end by the wall clock, leases when they have not changed for one full lease."""
    _tick_singly(connection, source, other.clock, other.now, leases=False)
    rows = connection.execute(
        "SELECT id, token, until, span FROM delivery WHERE source = ? AND clock = ? AND until IS NOT NULL AND state = 2",
        (source.id, other.clock),
    ).fetchall()
    before = observed.pop((source.id, other.clock), {})
    now = {}
    for number, token, until, span in rows:
        seen, since = before.get(number, (None, moment.now))
        if seen != (token, until):
            since = moment.now
        if moment.now - since >= (span or source.properties.lease):
            _ready(connection, [number])
        else:
            now[number] = ((token, until), since)
    if now:
        observed[source.id, other.clock] = now


def _ready(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    connection.executemany(
        "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL WHERE id = ?",
        [(row,) for row in rows],
    )


def expire(connection: sqlite3.Connection, moment: Moment, others: Iterable[Foreign]) -> None:
    """Drop what has expired, in every source. What is out is dropped when it comes back."""
    for clock, now in [(moment.clock, moment.now), *others]:
        while True:
            rows = connection.execute(
                "SELECT id, source, message, key, state FROM delivery"
                " WHERE origin = ? AND expires <= ? AND expires IS NOT NULL AND state <> 2 LIMIT ?",
                (clock, now, _SWEEP),
            ).fetchall()
            remove(connection, [Stored(*row) for row in rows])
            if len(rows) < _SWEEP:
                break


def claim(connection: sqlite3.Connection, source: SourceRow, limit: int, moment: Moment, token: int) -> list[tuple[Any, ...]]:
    """Up to `limit` messages in order, counted, with a fresh token. Call `tick` first."""
    rows = connection.execute(
        # What is left of a ttl that was given under another clock is counted by the wall clock.
        "SELECT d.id, d.message, d.attempt + 1, CASE WHEN d.expires IS NULL THEN NULL WHEN d.origin = ?3 THEN d.expires - ?4"
        " ELSE d.expires - ?5 + (SELECT wall FROM message_clock WHERE id = d.origin) END,"
        " m.name, m.body, m.headers, m.key, m.published, m.priority, m.details"
        " FROM delivery d JOIN message m ON m.id = d.message WHERE d.source = ?1 AND d.state = 0"
        " ORDER BY d.rank, d.place, d.message LIMIT ?2",
        (source.id, limit, moment.clock, moment.now, moment.wall),
    ).fetchall()
    if rows:
        connection.execute(
            "UPDATE delivery SET state = 2, token = ?, until = ?, clock = ?, attempt = attempt + 1"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (token, moment.now + source.properties.lease, moment.clock, json.dumps([row[0] for row in rows])),
        )
    return rows


def acknowledge(connection: sqlite3.Connection, rows: Sequence[int], token: int, moment: Moment) -> list[int]:
    """Take away what is still claimed with `token`. The ids of those that were."""
    gone = connection.execute(
        "DELETE FROM delivery WHERE id IN (SELECT value FROM json_each(?)) AND token = ? AND clock = ? AND until > ?"
        " RETURNING id, message, source, key",
        (json.dumps(rows), token, moment.clock, moment.now),
    ).fetchall()
    release(connection, [row[1] for row in gone])
    for source, key in {row[2:] for row in gone if row[3] is not None}:
        turn(connection, source, key)
    return [row[0] for row in gone]


def ours(connection: sqlite3.Connection, row: int, token: int, moment: Moment) -> Stored | None:
    """The delivery while its claim stands. It ends by the clock, also when nobody has taken the message yet."""
    found = connection.execute(
        "SELECT id, source, message, key, state FROM delivery WHERE id = ? AND token = ? AND clock = ? AND until > ?",
        (row, token, moment.clock, moment.now),
    ).fetchone()
    return None if found is None else Stored(*found)


def nack(connection: sqlite3.Connection, stored: Stored, moment: Moment, delay: float) -> None:
    """It comes back after `delay`; in an ordered source at its place, which nobody of its key overtakes.

    What expires before that is dropped then: until the end of the delay it would hold up its key.
    """
    if delay <= 0:
        _ready(connection, [stored.id])
        return
    connection.execute(
        "UPDATE delivery SET state = ?1, until = CASE WHEN origin = ?3 AND expires < ?2 THEN expires ELSE ?2 END, clock = ?3,"
        " token = NULL, span = NULL WHERE id = ?4",
        (DELAYED if stored.key is None else HELD, moment.now + delay, moment.clock, stored.id),
    )


def give_back(connection: sqlite3.Connection, rows: Iterable[tuple[int, int]], *, counted: bool) -> int:
    """Deliveries (row, token) are ready again at their place. How many were still claimed like that."""
    rows = list(rows)
    return connection.executemany(
        "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL, attempt = attempt - ?"
        " WHERE id = ? AND token = ?",
        [(0 if counted else 1, row, token) for row, token in rows],
    ).rowcount


def extend(connection: sqlite3.Connection, row: int, moment: Moment, seconds: float) -> None:
    """A lease ends `seconds` from now."""
    connection.execute("UPDATE delivery SET until = ?, span = ? WHERE id = ?", (moment.now + seconds, seconds, row))


def remove(connection: sqlite3.Connection, rows: Sequence[Stored]) -> None:
    """Deliveries leave for good, and the next of their keys have their turn."""
    if not rows:
        return
    connection.execute(
        "DELETE FROM delivery WHERE id IN (SELECT value FROM json_each(?))", (json.dumps([row.id for row in rows]),)
    )
    release(connection, [row.message for row in rows])
    for source, key in {(row.source, row.key) for row in rows if row.state != BLOCKED}:
        if key is not None:
            turn(connection, source, key)


def turn(connection: sqlite3.Connection, source: int, key: str) -> None:
    """The message whose turn it was has left: the next of its key is ready."""
    connection.execute(
        "UPDATE delivery SET state = 0 WHERE state = 4 AND id ="
        " (SELECT id FROM delivery WHERE source = ? AND key = ? ORDER BY place, message LIMIT 1)",
        (source, key),
    )


def release(connection: sqlite3.Connection, messages: Sequence[int]) -> None:
    """Each of these messages is referred to once less; those that nobody refers to any more go."""
    if not messages:
        return
    numbers = json.dumps(messages)
    gone = connection.execute(
        "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?)) AND copies = 1", (numbers,)
    ).rowcount
    if gone == len(messages):
        return
    connection.executemany("UPDATE message SET copies = copies - 1 WHERE id = ?", [(number,) for number in messages])
    connection.execute("DELETE FROM message WHERE id IN (SELECT value FROM json_each(?)) AND copies <= 0", (numbers,))


def purge(connection: sqlite3.Connection, source: int) -> int:
    """Drop all that is not out. How many."""
    dropped = 0
    for where in ("state = 0", "until IS NOT NULL AND state IN (1, 3)", "key IS NOT NULL AND state = 4"):
        rows = connection.execute(
            f"DELETE FROM delivery WHERE source = ? AND {where} RETURNING message",  # noqa: S608  # the texts above
            (source,),
        ).fetchall()
        release(connection, [row[0] for row in rows])
        dropped += len(rows)
    return dropped


def counts(connection: sqlite3.Connection, source: int) -> tuple[int, int, int]:
    """How many are ready (or wait for their key's turn), out, delayed."""
    ready, blocked, timed, out = connection.execute(
        "SELECT (SELECT count(*) FROM delivery WHERE source = ?1 AND state = 0),"
        " (SELECT count(*) FROM delivery WHERE source = ?1 AND key IS NOT NULL AND state = 4),"
        " (SELECT count(*) FROM delivery WHERE source = ?1 AND until IS NOT NULL),"
        " (SELECT count(*) FROM delivery WHERE source = ?1 AND until IS NOT NULL AND state = 2)",
        (source,),
    ).fetchone()
    return ready + blocked, out, timed - out


def ready(connection: sqlite3.Connection, source: int, *, most: int) -> int:
    """How many could be claimed now; counts no further than `most`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE source = ? AND state = 0 LIMIT ?)", (source, most)
    ).fetchone()
    return int(row[0])
