"""What time it is for messages: a reading of our clock, of the wall clock, and which clock ours is.

Processes compare times only under one clock id (`clock.py`). Each id has a row in `message_clock`: its `base` makes places
in the order comparable, its `wall` is the difference to the wall clock as that clock's processes last saw it, by which
others judge its delays when they meet rows of a clock that is not theirs (after a reboot, from another time namespace).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple

from narrowboat_sqlite.clocks.clock import clock_id
from narrowboat_sqlite.tables import strange

#: Seconds between two notes of the difference to the wall clock. Larger lets a wall clock that was set just before a reboot
#: shift what is delayed; smaller writes for nothing.
_NOTE = 60.0
#: Seconds without a reader after which a clock's row is deleted, if no message refers to it.
_FORGET = 7 * 86400.0
#: Seconds by which a wall clock may have been ahead and be believed. Places in the order follow the latest one.
_YEARS = 20 * 366 * 86400.0


class Moment(NamedTuple):
    """Now, in every way in which it matters."""

    now: float  #: our clock's reading
    wall: float  #: seconds since the epoch
    clock: int  #: our clock's row
    base: float

    @property
    def place(self) -> float:
        """Where something that becomes available now stands in the order."""
        return self.base + self.now


class Reading(NamedTuple):
    """A clock, and what it reads now: another one than ours, if it agrees with the wall clock as before."""

    clock: int  #: its row
    now: float


class Schedule:
    """Our clock in one database. Call `register` in a transaction first."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._name = clock_id(clock)
        self._row = 0
        self._base = 0.0
        self._noted = 0.0

    def now(self) -> float:
        """Our clock's reading."""
        return self._clock()

    @property
    def row(self) -> int:
        """Our clock's row."""
        return self._row

    def moment(self) -> Moment:
        """Now."""
        return Moment(self._clock(), self._wall(), self._row, self._base)

    def register(self, connection: sqlite3.Connection) -> None:
        """Find or make our clock's row."""
        now, wall = self._clock(), self._wall()
        row = connection.execute("SELECT id, base FROM message_clock WHERE name = ?", (self._name,)).fetchone()
        if row is None:
            # From the latest place that anybody can have used, so that a wall clock that was set back before this boot
            # does not let new messages overtake old ones.
            latest = connection.execute("SELECT max(base + seen) FROM message_clock").fetchone()[0]
            base = max(wall, latest if strange.number(latest, 0, wall + _YEARS) else wall) - now
            row = connection.execute(
                "INSERT INTO message_clock (name, base, wall, seen) VALUES (?, ?, ?, ?) RETURNING id, base",
                (self._name, base, wall - now, now),
            ).fetchone()
        self._row, self._base = row
        if not strange.number(self._base, -1e12, wall + _YEARS):
            self._base = wall - now
            connection.execute("UPDATE message_clock SET base = ? WHERE id = ?", (self._base, self._row))
        self.note(connection, self.moment())
        connection.execute(
            "DELETE FROM message_clock WHERE wall + seen < ? AND id <> ?"
            " AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_clock.id IN (clock, origin))"
            " AND NOT EXISTS (SELECT 1 FROM kept WHERE message_clock.id IN (clock, origin))"
            " AND NOT EXISTS (SELECT 1 FROM known_id WHERE clock = message_clock.id)"
            " AND NOT EXISTS (SELECT 1 FROM source WHERE clock = message_clock.id)",
            (wall - _FORGET, self._row),
        )

    def note_due(self, moment: Moment) -> bool:
        """Whether it is time to call `note`."""
        return moment.now >= self._noted + _NOTE

    def note(self, connection: sqlite3.Connection, moment: Moment) -> None:
        """Write down the difference to the wall clock; the row is made again if it was removed while we slept."""
        connection.execute(
            "INSERT INTO message_clock (id, name, base, wall, seen) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET wall = excluded.wall, seen = excluded.seen",
            (self._row, self._name, self._base, moment.wall - moment.now, moment.now),
        )
        self._noted = moment.now


def readings(connection: sqlite3.Connection, moment: Moment) -> list[Reading]:
    """All clocks that rows may name, ours first."""
    rows = connection.execute("SELECT id, wall FROM message_clock WHERE id <> ?", (moment.clock,))
    # A value that is no difference came from another program. Its messages are due at once rather than never.
    others = [(clock, moment.wall - wall if strange.number(wall, -1e12, moment.wall) else moment.wall) for clock, wall in rows]
    return [Reading(moment.clock, moment.now), *(Reading(*other) for other in others)]
