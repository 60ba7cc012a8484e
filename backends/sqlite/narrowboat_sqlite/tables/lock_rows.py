"""Reads and writes the lock tables of one namespace inside the caller's transaction. The schema is in `locks.sql`.

Every function works on a connection on which the caller has begun a transaction, can be repeated after a rollback, and
waits for nothing. `narrowboat.driver.admission` decides which waiter may go, `foreign_leases` which row still counts.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import NamedTuple

from narrowboat.contract.locks import Busy, Grant, Holder, Mode, Request
from narrowboat.driver.admission import admitted, conflict, disagree
from narrowboat.errors import Conflict, NarrowboatError, Reason
from narrowboat_sqlite.clocks.foreign_leases import Observer
from narrowboat_sqlite.options import SCHEME
from narrowboat_sqlite.tables import strange

#: Seconds after its last attempt that a waiter keeps its place. Too short, and a paused process loses it; too long, and a
#: dead one at the head holds up the rest.
PATIENCE = 5.0
#: Seconds between two attempts of a waiter at most: less than half of the patience, so that one may fail.
LOOK_AGAIN = 2.0
#: Seconds that a waiter may look after the end of a lease without being woken for it.
LATE = 0.02
#: Tokens reserved by one synced commit. Too few, and `normal` pays for a sync often; a reboot skips what is left of them.
TOKENS = 1_000_000
#: Grants between two sweeps at least; with more rows in the file they are farther apart.
_SWEEP_EVERY = 1000
_EVICTED_KEPT = 1000

_COUNTER = "SELECT next, reserved, boot FROM lock_counter WHERE id = 1"
#: The counter, and whether anybody holds or waits for a name: all that the usual attempt has to know.
_GLANCE = (
    "SELECT next, reserved, boot, EXISTS (SELECT 1 FROM lock_holder WHERE prefix = ?1 AND name = ?2) "
    "OR EXISTS (SELECT 1 FROM lock_waiter WHERE prefix = ?1 AND name = ?2) FROM lock_counter WHERE id = 1"
)
_COUNT_ON = "UPDATE lock_counter SET next = ?, boot = ? WHERE id = 1"
_RESERVE = "UPDATE lock_counter SET next = ?, reserved = ?, boot = ? WHERE id = 1"
_HOLDERS = (
    "SELECT token, owner, mode, size, ttl, ends, clock, renewals FROM lock_holder WHERE prefix = ? AND name = ? ORDER BY token"
)
_WAITERS = "SELECT seq, owner, mode, size, deadline, clock, looks FROM lock_waiter WHERE prefix = ? AND name = ? ORDER BY seq"
_HOLD = "INSERT INTO lock_holder VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)"
_RENEW = (
    "UPDATE lock_holder SET ends = ?, clock = ?, renewals = renewals + 1, ttl = ? WHERE prefix = ? AND name = ? AND token = ?"
)
_RENEW_OWN = (
    "UPDATE lock_holder SET ends = ?, ttl = ?, renewals = renewals + 1 "
    "WHERE prefix = ? AND name = ? AND token = ? AND owner = ? AND clock = ? AND ends > ?"
)
_FREE = "DELETE FROM lock_holder WHERE prefix = ? AND name = ? AND token = ?"
_FREE_OWN = "DELETE FROM lock_holder WHERE prefix = ? AND name = ? AND token = ? AND owner = ? AND clock = ? AND ends > ?"
_FREE_OWNER = "DELETE FROM lock_holder WHERE prefix = ? AND name = ? AND owner = ?"
_QUEUE = "INSERT INTO lock_waiter VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)"
_LAST = "SELECT max(seq) FROM lock_waiter WHERE prefix = ? AND name = ?"
_LEAVE_STRANGE = (
    "DELETE FROM lock_waiter WHERE prefix = ? AND name = ? AND NOT (typeof(seq) = 'integer' AND seq BETWEEN 0 AND ?)"
)
_STAY = "UPDATE lock_waiter SET deadline = ?, clock = ?, looks = looks + 1 WHERE prefix = ? AND name = ? AND owner = ?"
_STAY_AT = (
    "UPDATE lock_waiter SET deadline = ?, clock = ?, looks = looks + 1 WHERE prefix = ? AND name = ? AND owner = ? AND seq = ?"
)
_LEAVE = "DELETE FROM lock_waiter WHERE prefix = ? AND name = ? AND seq = ?"
_LEAVE_OWNER = "DELETE FROM lock_waiter WHERE prefix = ? AND name = ? AND owner = ?"
_FORGET_EVICTED = (
    "DELETE FROM lock_evicted WHERE token <= (SELECT token FROM lock_evicted ORDER BY token DESC LIMIT 1 OFFSET ?)"
)


class TokensUsedUp(Exception):
    """No reserved token is left: roll back, `reserve` in a durable transaction, and do it again."""


class _Lease(NamedTuple):
    token: int
    owner: str
    mode: Mode | None  #: None: a foreign row, which may or may not be over
    size: int | None
    left: float


class _Waiter(NamedTuple):
    seq: int
    owner: str | None  #: None: a foreign row. It counts as over, so that contenders pass it over and delete it
    mode: Mode
    size: int | None
    left: float


class Rows:
    """The rows of one `prefix`, judged by one `observer`.

    `boot`: the id of this boot. `reserving`: only tokens that were reserved may be given.
    """

    def __init__(self, prefix: str, observer: Observer, *, boot: str, reserving: bool) -> None:
        self._prefix = prefix
        self._observer = observer
        self._boot = boot
        self._reserving = reserving
        self._until_sweep = 0  # the first attempt sweeps: what the dead of earlier days have left

    def take(
        self, connection: sqlite3.Connection, requests: Sequence[Request], now: float
    ) -> list[Grant | Busy | NarrowboatError]:
        """Take each name, or queue for it."""
        first = token = 0
        answers: list[Grant | Busy | NarrowboatError] = []
        for request in requests:
            glance = connection.execute(_GLANCE, (self._prefix, request.name)).fetchone()
            if not _believed(glance):
                answers.append(strange.counter_conflict(request.name, glance and glance[:2]))
                continue
            following, reserved, boot, taken = glance
            if not token:
                first = token = self._next_token(following, reserved, boot, len(requests))
            answer = self._take(connection, request, now, token) if taken else self._hold(connection, request, now, token)
            if isinstance(answer, Grant) and answer.token == token:
                token += 1
            answers.append(answer)
        if token > first:
            connection.execute(_COUNT_ON, (token, self._boot))
            self._until_sweep -= token - first
            if self._until_sweep < 0:
                self._sweep(connection, now)
        return answers

    def reserve(self, connection: sqlite3.Connection) -> None:
        """Reserve the next tokens. To be committed durably before one of them is given."""
        counter = connection.execute(_COUNTER).fetchone()
        if not _believed(counter):
            raise strange.counter_conflict("", counter and counter[:2])
        following, reserved, boot = counter
        if boot != self._boot:
            following = max(following, reserved)
        connection.execute(_RESERVE, (following, max(following, reserved) + TOKENS, self._boot))

    def renew(self, connection: sqlite3.Connection, grant: Grant, now: float) -> Reason | Conflict | None:
        """Renew the lease (None), or delete it and return why it ended. `Conflict`: its row cannot be read."""
        prefix, name, token = self._prefix, grant.name, grant.token
        mine = (now + grant.ttl, grant.ttl, prefix, name, token, grant.owner, self._observer.clock, now)
        if connection.execute(_RENEW_OWN, mine).rowcount:
            return None
        for lease in self._leases(connection, name, now):
            if lease.token == token and lease.owner == grant.owner:
                if lease.mode is None:
                    return strange.conflict(name)
                if lease.left > 0:
                    connection.execute(_RENEW, (now + grant.ttl, self._observer.clock, grant.ttl, prefix, name, token))
                    return None
                connection.execute(_FREE, (prefix, name, token))
                return Reason.EXPIRED
        return Reason.EVICTED if self._forget_eviction(connection, token) else Reason.TAKEN

    def free(self, connection: sqlite3.Connection, grant: Grant, now: float) -> bool:
        """Free that generation. Whether its lease still ran."""
        prefix, name, token = self._prefix, grant.name, grant.token
        if connection.execute(_FREE_OWN, (prefix, name, token, grant.owner, self._observer.clock, now)).rowcount:
            return True
        for lease in self._leases(connection, name, now):
            if lease.token == token and lease.owner == grant.owner:
                connection.execute(_FREE, (prefix, name, token))
                return lease.left > 0
        self._forget_eviction(connection, token)
        return False

    def withdraw(self, connection: sqlite3.Connection, name: str, owner: str) -> None:
        """Remove the owner from both places where it can be."""
        connection.execute(_LEAVE_OWNER, (self._prefix, name, owner))
        connection.execute(_FREE_OWNER, (self._prefix, name, owner))

    def evict(self, connection: sqlite3.Connection, name: str, token: int, now: float) -> bool:
        """Break that generation, and remember it for its holder. Whether its lease still ran."""
        for lease in self._leases(connection, name, now):
            if lease.token == token:
                connection.execute(_FREE, (self._prefix, name, token))
                connection.execute("INSERT OR IGNORE INTO lock_evicted VALUES (?)", (token,))
                connection.execute(_FORGET_EVICTED, (_EVICTED_KEPT,))
                return lease.left > 0
        return strange.evict(connection, self._prefix, name, token)

    def holders(self, connection: sqlite3.Connection, name: str | None, now: float) -> list[Holder]:
        """Whose lease runs, sorted by name, then token."""
        found = []
        rows = connection.execute(
            "SELECT name, token, owner, label, mode, size, acquired_at, clock, ends, renewals, ttl, "
            "(SELECT count(*) FROM lock_waiter w WHERE w.prefix = h.prefix AND w.name = h.name "
            "AND (w.clock <> ?2 OR w.deadline > ?3)) "
            "FROM lock_holder h WHERE prefix = ?1 AND (?4 IS NULL OR name = ?4) ORDER BY name, token",
            (self._prefix, self._observer.clock, now, name),
        )
        for held, token, owner, label, mode, size, acquired_at, clock, ends, renewals, ttl, waiters in rows:
            known = strange.is_name(held) and label.__class__ is str and strange.number(acquired_at, 0, 1e11)
            known = known and strange.is_lease(token, owner, mode, size, ttl, renewals)
            if not (known and strange.is_time(clock, ends, ttl, now=now, ours=self._observer.clock)):
                found.append(strange.holder(held, token, label, acquired_at, waiters))
                continue
            left = self._observer.left(now, clock=clock, ends=ends, key=token, changes=renewals, length=ttl)
            if left > 0:
                found.append(Holder(held, token, label, strange.MODES[mode], size, acquired_at, left, waiters))
        return found

    def heads(self, connection: sqlite3.Connection, name: str, now: float, looks_at: Callable[[str, str], float]) -> list[str]:
        """The owners at the front of the queue that may go now. Only reads.

        If none may, the first one where it `looks_at` the name too late: the lease that it knew may have been shortened since.
        """
        leases = self._leases(connection, name, now)
        if any(lease.mode is None for lease in leases):
            return []
        living = [lease for lease in leases if lease.left > 0]
        holding, held = _holding(living)
        owners: list[str] = []
        writer_ahead = False
        for waiter in self._queue(connection, name, now):
            if waiter.left <= 0 or waiter.owner is None:
                continue
            if not admitted(waiter.mode, waiter.size, holding=holding, held=held, ahead=len(owners), writer_ahead=writer_ahead):
                ends = now + min((lease.left for lease in living), default=math.inf)
                if not owners and ends + LATE < looks_at(name, waiter.owner):
                    owners.append(waiter.owner)
                break
            owners.append(waiter.owner)
            writer_ahead = waiter.mode is Mode.EXCLUSIVE
        return owners

    def _take(self, connection: sqlite3.Connection, request: Request, now: float, token: int) -> Grant | Busy | NarrowboatError:
        prefix, (name, owner, ttl, mode, size, *_) = self._prefix, request
        leases = []
        standing = self._leases(connection, name, now)
        if any(lease.mode is None for lease in standing):
            return strange.conflict(name)
        for lease in standing:
            if lease.left <= 0:
                connection.execute(_FREE, (prefix, name, lease.token))
            elif lease.owner == owner:  # an earlier attempt's, whose answer did not arrive
                connection.execute(_RENEW, (now + ttl, self._observer.clock, ttl, prefix, name, lease.token))
                connection.execute(_LEAVE_OWNER, (prefix, name, owner))
                return Grant(name, owner, lease.token, ttl, mode, size)
            else:
                leases.append(lease)
        holding, held = _holding(leases)
        other: tuple[Mode | None, int | None] | None = (leases[0].mode, leases[0].size) if leases else None
        place = None
        ahead = 0
        writer_ahead = False
        gone = []
        with closing(self._queue(connection, name, now)) as queue:
            for waiter in queue:
                if waiter.owner == owner:
                    place = waiter.seq
                    break
                if waiter.left <= 0:
                    gone.append(waiter.seq)
                    continue
                other = other or (waiter.mode, waiter.size)
                ahead += 1
                writer_ahead = writer_ahead or waiter.mode is Mode.EXCLUSIVE
                if not admitted(mode, size, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead):
                    break  # its own place, if it has one, is further behind
        for seq in gone:
            connection.execute(_LEAVE, (prefix, name, seq))
        if other is not None and other[0] is not None and disagree(mode, size, other[0], other[1]):
            return Conflict(conflict(name, mode, size, other[0], other[1]), backend=SCHEME)
        free = admitted(mode, size, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead)
        if free and (request.wait or not ahead):
            if place is not None:
                connection.execute(_LEAVE, (prefix, name, place))
            return self._hold(connection, request, now, token)
        if request.wait:
            self._stay(connection, request, now, place)
        # Only the next waiter looks again when a lease ends. Each of the others is woken by the waiter ahead of it.
        following = admitted(mode, size, holding=None, held=0, ahead=ahead, writer_ahead=writer_ahead)
        return Busy(min([LOOK_AGAIN, *(max(lease.left, 0.001) for lease in leases if following)]))

    def _stay(self, connection: sqlite3.Connection, request: Request, now: float, place: int | None) -> None:
        """Keep the owner's place, or give it one at the end."""
        prefix, clock = self._prefix, self._observer.clock
        at = (now + PATIENCE, clock, prefix, request.name, request.owner)
        if place is not None:
            connection.execute(_STAY_AT, (*at, place))
        elif not connection.execute(_STAY, at).rowcount:
            seq = self._last(connection, request.name) + 1
            row = (prefix, request.name, seq, request.owner, request.mode.value, request.limit, now + PATIENCE, clock)
            connection.execute(_QUEUE, row)

    def _last(self, connection: sqlite3.Connection, name: str) -> int:
        """The last place in the queue. What stands at one that is none would bar the end of it, and is deleted."""
        (last,) = connection.execute(_LAST, (self._prefix, name)).fetchone()
        if last is not None and not strange.whole(last, high=strange.HIGH - 1):
            connection.execute(_LEAVE_STRANGE, (self._prefix, name, strange.HIGH - 2))
            (last,) = connection.execute(_LAST, (self._prefix, name)).fetchone()
        return int(last or 0)

    def _hold(self, connection: sqlite3.Connection, request: Request, now: float, token: int) -> Grant | Conflict:
        name, owner, ttl, mode, size, _, _, label = request
        clock = self._observer.clock
        row = (self._prefix, name, token, owner, mode.value, size, ttl, now + ttl, clock, label, time.time())
        try:
            connection.execute(_HOLD, row)
        except sqlite3.IntegrityError:  # a record with this token exists: another program has set the counter back
            return strange.conflict(name)
        return Grant(name, owner, token, ttl, mode, size)

    def _next_token(self, following: int, reserved: int, boot: str, many: int) -> int:
        if boot != self._boot:
            following = max(following, reserved)
        if self._reserving and following + many > reserved:
            raise TokensUsedUp
        return following

    def _forget_eviction(self, connection: sqlite3.Connection, token: int) -> bool:
        return connection.execute("DELETE FROM lock_evicted WHERE token = ?", (token,)).rowcount > 0

    def _leases(self, connection: sqlite3.Connection, name: str, now: float) -> list[_Lease]:
        """All rows of the name, also those that are over."""
        leases = []
        for token, owner, mode, size, ttl, ends, clock, renewals in connection.execute(
            _HOLDERS, (self._prefix, name)
        ).fetchall():
            if strange.is_lease(token, owner, mode, size, ttl, renewals) and strange.is_time(
                clock, ends, ttl, now=now, ours=self._observer.clock
            ):
                left = self._observer.left(now, clock=clock, ends=ends, key=token, changes=renewals, length=ttl)
                leases.append(_Lease(token, owner, strange.MODES[mode], size, left))
            else:
                leases.append(_Lease(token, owner, None, None, math.inf))
        return leases

    def _queue(self, connection: sqlite3.Connection, name: str, now: float) -> Generator[_Waiter, None, None]:
        """The rows of the queue, read one by one: most callers need the first only."""
        cursor = connection.execute(_WAITERS, (self._prefix, name))
        try:
            for seq, owner, mode, size, deadline, clock, looks in cursor:
                if not strange.is_waiter(seq, owner, mode, size, looks) or not strange.is_time(
                    clock, deadline, PATIENCE, now=now, ours=self._observer.clock
                ):
                    yield _Waiter(seq, None, Mode.EXCLUSIVE, None, -math.inf)
                    continue
                left = self._observer.left(now, clock=clock, ends=deadline, key=owner, changes=looks, length=PATIENCE)
                yield _Waiter(seq, owner, strange.MODES[mode], size, left)
        finally:
            cursor.close()

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        """Delete ended leases and dead waiters under every name. Nothing else cleans up a name that is not used again."""
        present: set[object] = set()
        rows = 0
        for table, key, ends, changes, length in (
            ("lock_holder", "token", "ends", "renewals", "ttl"),
            ("lock_waiter", "owner", "deadline", "looks", str(PATIENCE)),
        ):
            mine = (self._observer.clock, now)
            connection.execute(f"DELETE FROM {table} WHERE clock = ? AND {ends} <= ?", mine)  # noqa: S608  # our own words
            foreign = f"SELECT {key}, clock, {ends}, {changes}, {length}, prefix, name FROM {table} WHERE clock <> ?"  # noqa: S608
            for id_, clock, until, count, lasts, prefix, name in connection.execute(foreign, mine[:1]).fetchall():
                if not (clock.__class__ is str and strange.whole(count) and strange.number(lasts, 0, 1e6)):
                    present.add(id_)  # a foreign record is deleted by `evict` alone
                elif self._observer.left(now, clock=clock, ends=until, key=id_, changes=count, length=lasts) > 0:
                    present.add(id_)
                else:
                    connection.execute(f"DELETE FROM {table} WHERE prefix = ? AND name = ? AND {key} = ?", (prefix, name, id_))  # noqa: S608
            rows += connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        self._observer.keep(present)
        self._until_sweep = max(_SWEEP_EVERY, 2 * rows)


def _believed(counter: Sequence[object] | None) -> bool:
    """Whether `next` and `reserved` can have been counted. There is no other source to continue the tokens from."""
    return counter is not None and strange.whole(counter[0], 1) and strange.whole(counter[1], 1)


def _holding(leases: Sequence[_Lease]) -> tuple[Mode | None, int]:
    return (leases[0].mode, len(leases)) if leases else (None, 0)
