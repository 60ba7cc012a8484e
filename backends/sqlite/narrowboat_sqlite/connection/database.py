"""One connection to one file, and the transactions on it: shared by locks and messages, which share files as well.

A driver opens one `Database` and calls `write` and `read` from any thread. Nothing waits inside a transaction; a database
that another process has locked is waited for between transactions, with our own clock, so that the bound given at opening
holds. A transaction that fails is rolled back, and `errors.translate` makes the error.

It does not keep time, wake anybody (`watcher.py` does) or know a table: each half brings its schema, made at opening.

No connection is open across a fork: see `handle.py`.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from narrowboat.dsn import Url
from narrowboat.errors import Closed, ConfigurationError, Unavailable
from narrowboat_sqlite.connection import place
from narrowboat_sqlite.connection.handle import Handle
from narrowboat_sqlite.errors import bad_path, busy, not_made, translate
from narrowboat_sqlite.options import SCHEME, Durability

T = TypeVar("T")

#: Marks a file as ours ("Nbot"), so that another program's database is refused before it is altered.
APPLICATION_ID = 0x4E626F74
#: Raised when a table changes in a way that an older Narrowboat would misread. Both halves share it.
SCHEMA_VERSION = 1

#: Pauses between two tries on a busy database, in seconds: the first is about one transaction long; the last one bounds
#: how much longer than needed we wait, and shorter ones would only take CPU from the connection that has the lock.
_PAUSE_FIRST, _PAUSE_GROWTH, _PAUSE_LAST = 0.0002, 1.5, 0.005


def path_of(url: Url) -> str:
    """The absolute path of the file that `url` names; `ConfigurationError` when it names none."""
    if url.hosts or url.username is not None or url.password is not None:
        raise ConfigurationError(
            f"{SCHEME}:// takes a path and no host: {SCHEME}:///shop.db for a file in the current folder, "
            f"{SCHEME}:////var/lib/shop.db for an absolute path",
            backend=SCHEME,
        )
    if url.driver is not None:
        raise ConfigurationError(f"{SCHEME}+{url.driver}:// is not known; write {SCHEME}:///", backend=SCHEME)
    if url.path in {"", ":memory:"}:
        raise ConfigurationError(
            f"{SCHEME}:///{url.path} names no file, and a database in memory would be shared with nobody. "
            "Write memory:// for locks and messages within this process, or give a path.",
            backend=SCHEME,
        )
    if "\0" in url.path:
        raise ConfigurationError(f"the path of a {SCHEME}:// URL may not contain a zero byte", backend=SCHEME)
    return os.path.realpath(url.path)


def prepare(url: Url, options: object) -> Url:
    """The URL with the absolute path that `url` names now: a daemon changes its folder later, and forks there."""
    return dataclasses.replace(url, path=path_of(url))


def statements(script: str) -> Iterator[str]:
    """The single statements of an SQL file: `executescript` would commit behind our back."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


class Database:
    """The file at `path`, open until `close`. `timeout`: seconds that one call may wait for a busy database.

    `mode`: who may read and write the file, if it is made here.
    `schema`: the caller's tables, each statement with `IF NOT EXISTS`. Opening makes the file if it is not there and
    marks it; raises `ConfigurationError`, `AccessDenied` or `Unavailable`, and then has changed nothing.
    """

    def __init__(
        self,
        path: str,
        *,
        durability: Durability,
        timeout: float,
        schema: str,
        mode: int = 0o600,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._full = durability is Durability.FULL
        self._timeout = timeout
        self._sleep = sleep
        self._monotonic = monotonic
        self._handle = Handle(path)
        self._mutex = self._handle.mutex
        self._closed = False
        self._level = ""
        self._place = place.Place(path, monotonic)
        wrong = bad_path(path)
        if wrong is not None:
            raise wrong
        try:
            self._make(mode)
            self._patiently(self._open)
            self.write(lambda connection: _create(connection, path, schema), durable=True)
        except BaseException:
            self.close()
            raise

    @property
    def key(self) -> tuple[int, int]:
        """Which file it is, whatever its name."""
        return self._place.key

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False, passing: bool = False) -> T:
        """Run `work` in one write transaction, alone in the whole database, and commit.

        `work` may run more than once before it is committed, so it must not have effects elsewhere, and must not wait.
        Whatever it raises, BaseExceptions too, nothing has happened; a commit whose answer was cut off by an interrupt
        has. `durable`: the commit, with all before it, reaches the disk also with `durability=normal`. `passing`: it need
        not, also with `durability=full`, because a loss of power ends its users too.
        Raises `Unavailable` when the database stayed locked for the time-out or the disk is full, `Closed` after `close`.
        """
        level = "FULL" if durable or (self._full and not passing) else "NORMAL"
        return self._patiently(lambda: self._transaction("BEGIN IMMEDIATE", work, level))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only reads, on one snapshot. Waits for no writer."""
        return self._patiently(lambda: self._transaction("BEGIN", work, ""))

    def close(self) -> None:
        """Close the connection once the transaction under way has ended. Idempotent."""
        if self._handle.inherited:
            return
        with self._mutex:
            self._closed = True
            self._handle.close()

    def _make(self, mode: int) -> None:
        try:
            place.make(self.path, mode)
            self._place.found()  # before it is opened: what comes to the path later is another file
        except OSError as error:
            raise not_made(self.path, error) from error

    def _open(self) -> None:
        with self._mutex:
            connection = self._handle.connection or self._handle.open()
            connection.execute("BEGIN")  # one snapshot: who makes the file meanwhile would else be taken for a stranger
            try:
                _refuse_foreign(connection, self.path)
            finally:
                _roll_back(connection)
            _use_log(connection, self.path)

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T], level: str) -> T:
        if self._handle.inherited:
            raise Closed(f"the database {self.path} was opened by the parent process; open it again here", backend=SCHEME)
        with self._mutex:
            connection = self._usable()
            self._place.check()
            if level and self._level != level:  # it cannot be changed inside a transaction
                self._level = ""  # unknown, should an interrupt strike here
                connection.execute(f"PRAGMA synchronous={level}")
                self._level = level
            try:
                connection.execute(begin)
                result = work(connection)
                connection.execute("COMMIT")
                self._place.used()
            except BaseException:
                _roll_back(connection)
                raise
            return result

    def _usable(self) -> sqlite3.Connection:
        if self._closed:
            raise Closed(f"the database {self.path} was closed here; open it again", backend=SCHEME)
        connection = self._handle.connection
        if connection is None:  # a fork has closed it
            self._level = ""
            self._place.reopened()
            self._place.check()  # before and after: SQLite must not open what is not ours, and it may become so meanwhile
            self._place.reopened()
            connection = self._handle.open()
        elif connection.in_transaction:
            # A second interrupt struck while the first one was being cleaned up.
            _roll_back(connection)
        return connection

    def _patiently(self, step: Callable[[], T]) -> T:
        """Run `step` until it no longer finds the database busy; the mutex is free while we wait."""
        pause = _PAUSE_FIRST
        deadline = None
        while True:
            try:
                return step()
            except sqlite3.Error as error:
                if self._handle.relent(error):
                    continue
                now = self._monotonic()
                deadline = now + self._timeout if deadline is None else deadline
                if not busy(error) or now >= deadline:
                    raise translate(error, self.path, waited=self._timeout) from error
            self._sleep(min(pause, deadline - now))
            pause = min(pause * _PAUSE_GROWTH, _PAUSE_LAST)


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite has already rolled back after some errors (a full disk); asking again would hide the first one.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _refuse_foreign(connection: sqlite3.Connection, path: str) -> None:
    """Raise when the file is not ours to write. Reads only."""
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"the database {path} was written by a newer Narrowboat: its schema is version {version}, this one knows "
                f"up to version {SCHEMA_VERSION}. Nothing was changed. Upgrade Narrowboat here, or name another file.",
                backend=SCHEME,
            )
    elif application or version or tables:
        raise ConfigurationError(
            f"the database {path} belongs to another application (application_id {application}, user_version {version}, "
            f"{tables} tables and indexes that are not Narrowboat's). Nothing was changed. Name a file of its own.",
            backend=SCHEME,
        )


def _use_log(connection: sqlite3.Connection, path: str) -> None:
    """Keep a write-ahead log, with which readers never stop the writer. The file remembers it."""
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise Unavailable(
            f"the file system of {path} cannot keep a write-ahead log (SQLite answered journal_mode={mode}). "
            "Use a local disk; network file systems will not do.",
            backend=SCHEME,
            retryable=False,
        )


def _create(connection: sqlite3.Connection, path: str, schema: str) -> None:
    _refuse_foreign(connection, path)  # again: another process may have made it meanwhile
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    for statement in statements(schema):
        connection.execute(statement)


def _number(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
