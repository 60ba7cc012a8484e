"""Notices other processes' commits: one thread for each database in each process, which sleeps unless there is a waiter.

SQLite has no notifications, but `PRAGMA data_version` is a cheap question (a look at shared memory) whose answer differs
once any other connection has committed. The thread asks it every `poll` seconds while there is a subscriber, and on a
change lets each subscriber look, on the watcher's own connection. It neither wakes waiters itself nor decides anything.

No change is missed: a subscription is looked at once when it begins, and a commit that lands after that look changes the
answer. Errors here are not reported: each waiter looks by itself every few seconds, and meets the error there.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Protocol

from narrowboat.driver.threads import LazyThread
from narrowboat_sqlite.connection.database import Database
from narrowboat_sqlite.connection.handle import Handle
from narrowboat_sqlite.connection.shared import Shared


class Look(Protocol):
    """Called on the watcher's thread with its read-only-by-custom connection, after any commit in the database."""

    def __call__(self, connection: sqlite3.Connection, /) -> None:
        """Look who can go on, and wake them. Must not block and should not raise."""
        ...


#: Seconds until the next try after the watcher itself met an error: often enough to recover, seldom enough to be cheap.
_AFTER_ERROR = 0.5

#: A process that waits for very many names looks less often, so that looking takes at most one part in this of a core.
_SHARE = 10

#: Seconds: a pause up to this long is slept through, and a new subscriber waits for its end; a longer one can be cut short.
_NAP = 0.02

_watchers: Shared[tuple[int, int], Watcher] = Shared()


def watch(database: Database) -> Watcher:
    """Return this process's watcher for that file. Each call is to be matched by one `release`."""
    with _watchers.mutex:
        watcher = _watchers.found.get(database.key)
        if watcher is None:
            watcher = _watchers.found[database.key] = Watcher(database)
        watcher.users += 1
        return watcher


def _version(connection: sqlite3.Connection) -> int:
    """A number that differs once any other connection has committed."""
    found: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return found


class Watcher:
    """The poller of one file. Made by `watch`; one thread, which is started by the first subscription."""

    def __init__(self, database: Database) -> None:
        self.users = 0
        self._key = database.key
        self._handle = Handle(database.path, rank=0)
        self._changed = threading.Condition()
        self._subscribers: dict[Look, float] = {}
        self._fresh: tuple[Look, ...] = ()
        self._thread = LazyThread(f"narrowboat-sqlite-watch-{database.path}", self._run, wake=self._wake)

    def subscribe(self, look: Look, poll: float) -> None:
        """Call `look` at once, and after each change, until `unsubscribe`. `poll`: seconds. Repeating it does nothing."""
        if self._handle.inherited:
            return
        with self._changed:
            if self._thread.ended:
                return
            if look not in self._subscribers:
                self._fresh = (*self._fresh, look)
                self._subscribers[look] = poll
                self._changed.notify()
        self._thread.start()

    def unsubscribe(self, look: Look) -> None:
        """Stop calling `look`; one call may still be under way. Idempotent."""
        if self._handle.inherited:
            return
        with self._changed:
            self._subscribers.pop(look, None)

    def release(self) -> None:
        """Give back what `watch` gave. The last one ends the thread and closes its connection before it returns."""
        if self._handle.inherited:
            return
        with _watchers.mutex:
            self.users -= 1
            if self.users:
                return
            if _watchers.found.get(self._key) is self:
                del _watchers.found[self._key]
        self._thread.end()

    def _wake(self) -> None:
        with self._changed:
            self._subscribers.clear()
            self._changed.notify()

    def _run(self) -> None:
        version = None
        pause: float | None = 0.0
        try:
            while True:
                looks, fresh, pause = self._wait(pause)
                if pause is None:
                    return
                try:
                    with self._handle.mutex:
                        connection = self._handle.connection
                        if connection is None:  # the first time, or a fork has closed it
                            connection, version = self._handle.open(), None
                        seen = _version(connection)
                        began = time.thread_time()
                        for look in looks if seen != version else fresh:
                            look(connection)
                    version = seen
                    pause = max(pause, (time.thread_time() - began) * _SHARE)
                    if pause <= _NAP:
                        self._doze(connection, version, pause)
                        pause = 0.0
                except Exception as error:  # of any kind: no caller would see it, and waiters must not sleep for longer
                    relented = isinstance(error, sqlite3.Error) and self._handle.relent(error)
                    pause, version = 0.0 if relented else _AFTER_ERROR, None
        finally:
            with self._handle.mutex:
                self._handle.close()

    def _doze(self, connection: sqlite3.Connection, version: int, pause: float) -> None:
        """Sleep until there was a commit or a subscriber came or went: nearly all of a waiting process's time is here.

        A plain sleep, not a wait for the condition: that takes twice the time of a core, two hundred times a second.
        """
        subscribers, handle, sleep = self._subscribers, self._handle, time.sleep
        count = len(subscribers)
        while True:
            sleep(pause)
            if self._fresh or self._thread.ended or len(subscribers) != count:
                return
            with handle.mutex:
                if handle.connection is not connection or _version(connection) != version:
                    return

    def _wait(self, pause: float | None) -> tuple[tuple[Look, ...], tuple[Look, ...], float | None]:
        """Sleep for `pause`, then until there is a subscriber. All subscribers, the new ones, the next pause (None: end)."""
        with self._changed:
            if pause and not self._fresh and not self._thread.ended:
                self._changed.wait(pause)
            while not self._subscribers and not self._thread.ended:
                self._changed.wait()
            fresh, self._fresh = self._fresh, ()
            if self._thread.ended:
                return (), (), None
            return tuple(self._subscribers), fresh, min(self._subscribers.values())
