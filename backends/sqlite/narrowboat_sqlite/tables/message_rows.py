"""Reads and writes the rows of messages: due, claimed, settled, expired. `messages.sql` says what they mean.

Every function runs inside a transaction of its caller's and decides by the moment that it is given. Batches go to SQLite
as one statement each; single rows only where an order by key has to be kept.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from narrowboat.driver.sources import rank
from narrowboat_sqlite.clocks.foreign_leases import Observer
from narrowboat_sqlite.clocks.schedule import Moment, Reading, readings
from narrowboat_sqlite.tables import strange
from narrowboat_sqlite.tables.sources import SourceRow

#: One claim more. What is no number, or too high to have been counted, is high enough to make it a dead letter.
_NEXT_ATTEMPT = "CAST(min(max(coalesce(attempt, 0), 0), 2147483647) AS INTEGER) + 1"
#: Seconds ahead up to which a time can be ours: longer than any delay and any lease.
AHEAD = 31 * 86400.0

#: One range of the index for each condition that follows: all of them together would look at every row that is timed.
_UNSTICK = "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL WHERE source = ? AND "
_TIMED = "until IS NOT NULL AND "
#: A state that only another program wrote; the words of the index `delivery_strange`.
_STRANGE = "state <> 0 AND state <> 1 AND state <> 2 AND state <> 3 AND state <> 4"
_CLAIM = f"UPDATE delivery SET state = 2, token = ?, until = ?, clock = ?, span = ?, attempt = {_NEXT_ATTEMPT}"  # noqa: S608  # our own words
#: A message whose row was taken away is found too: its delivery would otherwise be ready for ever. What is left of a ttl that
#: was given under another clock is counted by the wall clock.
_FIND = (
    f"SELECT d.id, d.message, {_NEXT_ATTEMPT}, CASE WHEN d.expires IS NULL THEN NULL"  # noqa: S608  # our own words
    " WHEN d.origin = ?3 THEN d.expires - ?4"
    " ELSE d.expires - ?5 + (SELECT wall FROM message_clock WHERE id = d.origin) END,"
    " m.name, CAST(m.body AS BLOB), m.headers, m.key, m.published, m.priority, m.details"
    " FROM delivery d LEFT JOIN message m ON m.id = d.message WHERE d.source = ?1 AND d.state = 0"
    " ORDER BY d.rank, d.place, d.message LIMIT ?2"
)

#: The oldest of one rank is the first of a range of the index. `_LEVEL` goes on with the next rank, where there are priorities.
_COUNT = (
    "SELECT (SELECT count(*) FROM delivery WHERE source = ?1 AND state = 0)"  # noqa: S608  # our own words
    f" + (SELECT count(*) FROM delivery WHERE source = ?1 AND {_STRANGE}),"
    " (SELECT count(*) FROM delivery WHERE source = ?1 AND until IS NOT NULL AND state IN (0, 1, 2, 3, 4)),"
    " (SELECT count(*) FROM delivery WHERE source = ?1 AND until IS NOT NULL AND state = 2), blocked, place,"
    " (SELECT min(place) FROM delivery WHERE source = ?1 AND state = 0 AND rank = 0),"
    " (SELECT min(rank) FROM delivery WHERE source = ?1 AND state = 0 AND rank < 0) FROM"
    " (SELECT count(*) AS blocked, min(place) AS place FROM delivery WHERE source = ?1 AND key IS NOT NULL AND state = 4)"
)
_LEVEL = (
    "SELECT (SELECT min(place) FROM delivery WHERE source = ?1 AND state = 0 AND rank = ?2),"
    " (SELECT min(rank) FROM delivery WHERE source = ?1 AND state = 0 AND rank > ?2 AND rank < 0)"
)

READY, DELAYED, CLAIMED, HELD, BLOCKED = range(5)

#: Expired rows that are dropped with one statement: a bound on its length, not on how many are dropped.
_SWEEP = 500


class Stored(NamedTuple):
    """The columns of a delivery that deleting it needs."""

    id: int
    source: int
    message: int
    key: str | None
    state: int


#: For each source and foreign clock: what was seen of the leases there.
Observed = dict[tuple[int, int], Observer]


def _among(numbers: Collection[int]) -> tuple[str, tuple[object, ...]]:
    """The condition that a row's id is one of `numbers`, which are not empty, and its parameters.

    A batch nearly always lies side by side. SQLite goes through a range in one pass, and twice as fast as through a set.
    """
    first, last = min(numbers), max(numbers)
    if last - first + 1 == len(set(numbers)):
        return " WHERE id BETWEEN ? AND ?", (first, last)
    return " WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(numbers)),)


def _delete(connection: sqlite3.Connection, numbers: Collection[int]) -> None:
    where, parameters = _among(numbers)
    connection.execute("DELETE FROM delivery" + where, parameters)  # noqa: S608  # our own words


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
    message: tuple[int, Any, Any],
    place: float,
    expires: tuple[float | None, int | None],
) -> None:
    """Store one available copy of a message (id, key, priority) that is in the tables already."""
    number, key, priority = message
    key = key if source.properties.ordered and strange.text_or_none(key) else None
    state = BLOCKED if key is not None and in_sequence(connection, source.id, key) else READY
    sorts = rank(source.path, source.properties, source.declared, level(priority))
    insert(connection, [(source.id, number, state, sorts, place, None, None, key, *expires)])


def tick(connection: sqlite3.Connection, source: SourceRow, moment: Moment, observed: Observed) -> None:
    """End the leases and delays of a source that are due, and drop expired messages. Tick its topic first, see `topology`."""
    clocks = readings(connection, moment)
    if source.properties.ordered:
        _tick_singly(connection, source, moment.clock, moment.now, leases=True)
    else:
        # A delayed message stands where it becomes available; one that comes back stands where it stood.
        connection.execute(
            "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL,"
            " place = CASE state WHEN 1 THEN ? + until ELSE place END WHERE source = ? AND clock = ? AND until <= ?",
            (moment.base, source.id, moment.clock, moment.now),
        )
    for other in clocks[1:]:
        _tick_foreign(connection, source, moment, other, observed)
    expire(connection, clocks)


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
            key = next((key for (key,) in connection.execute("SELECT key FROM message WHERE id = ?", (message,))), None)
            key = key if strange.text_or_none(key) else None
        state = BLOCKED if key is not None and in_sequence(connection, source.id, key) else READY
        connection.execute(
            "UPDATE delivery SET state = ?, key = ?, until = NULL, clock = NULL,"
            " place = ? + (SELECT base FROM message_clock WHERE id = ?) WHERE id = ?",
            (state, key, until, clock, number),
        )


def _tick_foreign(
    connection: sqlite3.Connection, source: SourceRow, moment: Moment, other: Reading, observed: Observed
) -> None:
    """Rows under another clock: delays end by the wall clock, leases when they have not changed for one full lease."""
    _tick_singly(connection, source, other.clock, other.now, leases=False)
    rows = connection.execute(
        "SELECT id, token, until, span FROM delivery WHERE source = ? AND clock = ? AND until IS NOT NULL AND state = 2",
        (source.id, other.clock),
    ).fetchall()
    observer = observed.pop((source.id, other.clock), None) or Observer("")
    for number, token, until, span in rows:
        lasts = span if span and strange.number(span, 0, AHEAD) else source.properties.lease
        if observer.stands(moment.now, key=number, changes=(token, until), length=lasts) <= 0:
            _ready(connection, [number])
    if rows:
        observer.keep({row[0] for row in rows})
        observed[source.id, other.clock] = observer


def _ready(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    connection.executemany(
        "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL WHERE id = ?",
        [(row,) for row in rows],
    )


def expire(connection: sqlite3.Connection, clocks: Iterable[Reading]) -> None:
    """Drop expired messages in every source. A message in flight is dropped when its lease ends."""
    for clock, now in clocks:
        while True:
            rows = connection.execute(
                "SELECT id, source, message, key, state FROM delivery"
                " WHERE origin = ? AND expires <= ? AND expires IS NOT NULL AND state <> 2 LIMIT ?",
                (clock, now, _SWEEP),
            ).fetchall()
            remove(connection, [Stored(*row) for row in rows])
            if len(rows) < _SWEEP:
                break


def claim(
    connection: sqlite3.Connection, source: SourceRow, limit: int, moment: Moment, lease: float, token: int
) -> list[tuple[Any, ...]]:
    """Up to `limit` messages in order, counted, for `lease` seconds, with a fresh token. Call `tick` first."""
    rows = connection.execute(_FIND, (source.id, limit, moment.clock, moment.now, moment.wall)).fetchall()
    if rows:
        where, numbers = _among([row[0] for row in rows])
        connection.execute(_CLAIM + where, (token, moment.now + lease, moment.clock, lease, *numbers))
    return rows


def unstick(connection: sqlite3.Connection, source: SourceRow, moment: Moment, *, keys: bool) -> bool:
    """Ready what would never be: at a time that cannot be ours, under a clock that is gone, in no state. Whether any was.

    `keys`: also what waits behind a message of its key that is gone; that looks at all that waits. Another program wrote it
    so, or took the other one away.
    """
    known = {row[0] for row in connection.execute("SELECT id FROM message_clock")}
    gone = [clock for clock in _clocks(connection, source.id) if clock not in known]
    ahead = (source.id, moment.clock, moment.now + AHEAD)
    rows = connection.execute(_UNSTICK + _TIMED + "clock = ? AND until > ?", ahead).rowcount
    rows += connection.execute(_UNSTICK + _TIMED + "clock IS NULL", (source.id,)).rowcount
    rows += connection.execute(_UNSTICK + _TIMED + "clock >= ''", (source.id,)).rowcount
    for clock in gone:
        rows += connection.execute(_UNSTICK + _TIMED + "clock = ?", (source.id, clock)).rowcount
    rows += connection.execute(_UNSTICK + _STRANGE, (source.id,)).rowcount
    if keys and source.properties.ordered:
        rows += connection.execute(
            "UPDATE delivery SET state = 0 WHERE source = ?1 AND key IS NOT NULL AND state = 4 AND NOT EXISTS"
            " (SELECT 1 FROM delivery o WHERE o.source = ?1 AND o.key = delivery.key"
            " AND (o.place, o.message) < (delivery.place, delivery.message))",
            (source.id,),
        ).rowcount
    return rows > 0


def _clocks(connection: sqlite3.Connection, source: int) -> list[Any]:
    """Which clocks a source's times are of: one look into the index for each, not at every row."""
    found: list[Any] = []
    query = "SELECT min(clock) FROM delivery WHERE source = ? AND until IS NOT NULL AND clock > ? AND clock < ''"
    while (clock := connection.execute(query, (source, found[-1] if found else -1e300)).fetchone()[0]) is not None:
        found.append(clock)
    return found


def level(priority: Any) -> int:
    """The priority in a row; 0 where it is no number."""
    return priority if strange.whole(priority, -strange.HIGH) else 0


def acknowledge(connection: sqlite3.Connection, rows: Collection[int], token: int, moment: Moment) -> list[int]:
    """Delete those of `rows` that are still claimed with `token`; returns their ids."""
    # Looked at, then deleted: what a DELETE returns costs more than both.
    where, numbers = _among(rows)
    found = connection.execute(
        f"SELECT id, message, source, key FROM delivery{where} AND token = ? AND clock = ? AND until > ?",  # noqa: S608  # our own words
        (*numbers, token, moment.clock, moment.now),
    ).fetchall()
    gone = [row[0] for row in found]
    if gone:
        _delete(connection, gone)
        release(connection, [row[1] for row in found])
    for source, key in {row[2:] for row in found if row[3] is not None}:
        turn(connection, source, key)
    return gone


def ours(connection: sqlite3.Connection, row: int, token: int, moment: Moment) -> Stored | None:
    """The delivery, or None once its claim has ended. A claim ends by the clock, even if no other consumer has the message."""
    found = connection.execute(
        "SELECT id, source, message, key, state FROM delivery WHERE id = ? AND token = ? AND clock = ? AND until > ?",
        (row, token, moment.clock, moment.now),
    ).fetchone()
    return None if found is None else Stored(*found)


def nack(connection: sqlite3.Connection, stored: Stored, moment: Moment, delay: float) -> None:
    """Redeliver after `delay`. In an ordered source the message keeps its place, and blocks its key until then.

    A message that expires during the delay is due at its expiry, so that it does not block its key for longer.
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
    """Make deliveries (row, token) ready again at their place; returns how many were still claimed with that token."""
    rows = list(rows)
    return connection.executemany(
        "UPDATE delivery SET state = 0, until = NULL, clock = NULL, token = NULL, span = NULL, attempt = attempt - ?"
        " WHERE id = ? AND token = ?",
        [(0 if counted else 1, row, token) for row, token in rows],
    ).rowcount


def extend(connection: sqlite3.Connection, row: int, moment: Moment, seconds: float) -> None:
    """Let the lease end `seconds` from now."""
    connection.execute("UPDATE delivery SET until = ?, span = ? WHERE id = ?", (moment.now + seconds, seconds, row))


def remove(connection: sqlite3.Connection, rows: Sequence[Stored]) -> None:
    """Delete deliveries, and make the next message of each of their keys ready."""
    if not rows:
        return
    _delete(connection, [row.id for row in rows])
    release(connection, [row.message for row in rows])
    for source, key in {(row.source, row.key) for row in rows if row.state != BLOCKED}:
        if key is not None:
            turn(connection, source, key)


def turn(connection: sqlite3.Connection, source: int, key: str) -> None:
    """Make the first message of a key ready: the one before it was deleted."""
    connection.execute(
        "UPDATE delivery SET state = 0 WHERE state = 4 AND id ="
        " (SELECT id FROM delivery WHERE source = ? AND key = ? ORDER BY place, message LIMIT 1)",
        (source, key),
    )


def release(connection: sqlite3.Connection, messages: Sequence[int]) -> None:
    """Drop one reference to each of these messages, and delete those without any."""
    messages = [number for number in messages if number.__class__ is int]  # what is none refers to no message
    if not messages:
        return
    where, numbers = _among(messages)
    if connection.execute(f"DELETE FROM message{where} AND copies = 1", numbers).rowcount == len(messages):  # noqa: S608  # our own words
        return
    connection.executemany("UPDATE message SET copies = copies - 1 WHERE id = ?", [(number,) for number in messages])
    connection.execute(f"DELETE FROM message{where} AND copies <= 0", numbers)  # noqa: S608  # our own words


def purge(connection: sqlite3.Connection, source: int) -> int:
    """Delete every message that is not in flight; returns how many."""
    dropped = 0
    for where in ("state = 0", "until IS NOT NULL AND state IN (1, 3)", "key IS NOT NULL AND state = 4", _STRANGE):
        rows = connection.execute(
            f"DELETE FROM delivery WHERE source = ? AND {where} RETURNING message",  # noqa: S608  # the texts above
            (source,),
        ).fetchall()
        release(connection, [row[0] for row in rows])
        dropped += len(rows)
    return dropped


def counts(connection: sqlite3.Connection, source: int) -> tuple[int, int, int, float | None]:
    """How many are ready (or wait for their key's turn, or are in no state that is ours), out, delayed; the first place of one.

    That is of one that is ready or waits for its key's turn; None where none is, or another program wrote it.
    """
    ready, timed, out, blocked, *places, rank = connection.execute(_COUNT, (source,)).fetchone()
    while rank is not None:
        place, rank = connection.execute(_LEVEL, (source, rank)).fetchone()
        places.append(place)
    known = [place for place in places if strange.number(place, 0, math.inf)]
    return ready + blocked, out, timed - out, min(known, default=None)


def ready(connection: sqlite3.Connection, source: int, *, most: int) -> int:
    """How many could be claimed now; counts no further than `most`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE source = ? AND state = 0 LIMIT ?)", (source, most)
    ).fetchone()
    return int(row[0])
