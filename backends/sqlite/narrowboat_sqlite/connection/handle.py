"""An SQLite connection that is not open while the process forks.

SQLite's library keeps a process-wide table of the locks that it holds on each file. A forked child inherits the table but
not the locks, so whatever it opens later on that file is not really locked: its parent may remove the write-ahead log
under its feet. Closing the inherited connection in the child is no way out when another thread was inside a transaction.
The way that SQLite's authors name is to have nothing open: a handle is closed before a fork, and opened again, on both
sides, by the next caller that needs it. Programs that are started without a Python-level fork (`subprocess`) are not concerned.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import weakref
from urllib.parse import quote

from narrowboat_sqlite.tables import strange

#: Bytes to which a write-ahead log is cut back after a burst. SQLite begins to reuse it at about 4 MiB anyway.
_JOURNAL_LIMIT = 4 * 1024 * 1024
#: Seconds for which a fork waits for one transaction to end. It takes that long only when the thread that forks is itself
#: inside one (a signal handler that forks): then the connection is kept open, and kept from being closed by the child.
_FORK_WAIT = 1.0


class Handle:
    """One connection to `path`. The user of `connection` holds `mutex`, and opens it when it is None.

    `rank`: whose mutex is taken first where a thread holds two; a fork takes all of them in that order.
    """

    def __init__(self, path: str, *, rank: int = 1) -> None:
        self.path = path
        self.rank = rank
        self.mutex = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self._lenient = False
        self.inherited = False  #: this process is a forked child of the one that made it: it is of no use here
        with _guard:
            _handles.add(self)

    def open(self) -> sqlite3.Connection:
        """Open it: never waits by itself, in autocommit mode. The file is there; see `place.make`."""
        name = f"file:{quote(os.fsencode(self.path))}?mode=rw"
        connection = sqlite3.connect(name, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False)
        self.connection = connection
        if self._lenient:
            connection.text_factory = strange.read_text
        connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_LIMIT}")
        return connection

    def relent(self, error: sqlite3.Error) -> bool:
        """Read any text from now on, when `error` says that some was met that is no UTF-8. Whether to try again.

        It costs a Python call for each text, so it is not so from the beginning.
        """
        if self._lenient or not strange.undecodable(error):
            return False
        self._lenient = True
        if self.connection is not None:
            self.connection.text_factory = strange.read_text
        return True

    def close(self) -> None:
        """Close it. Idempotent; the mutex is the caller's business."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()
_guard = threading.Lock()
_stopped: list[Handle] = []


def _before_fork() -> None:
    _guard.acquire()
    for handle in sorted(_handles, key=lambda handle: handle.rank):
        if handle.mutex.acquire(timeout=_FORK_WAIT):
            _stopped.append(handle)
            handle.close()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().mutex.release()
    _guard.release()


def _after_fork_in_child() -> None:
    global _guard
    for handle in _handles:
        handle.inherited = True
        if handle.connection is not None:
            # Never freed, so never closed: not when its owner is dropped and not when the child's interpreter ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle.connection))
    _handles.clear()
    _stopped.clear()
    _guard = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
