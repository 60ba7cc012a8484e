"""The place of a database: how its file is made, and whether it and its logs are still those that were opened.

SQLite does not notice when its files are deleted or replaced. It goes on in files that no other process can reach, and a
lock would be held twice. So a `Database` asks here before its transactions. A file that is gone stays gone, whatever comes to
its path. The check runs no more often than every `_CHECK` seconds. It opens no file that SQLite has open: closing it would end
all locks that this process has on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from narrowboat.errors import NarrowboatError
from narrowboat_sqlite.connection.shared import Shared
from narrowboat_sqlite.errors import gone

#: Seconds between two looks: each one costs as much as a tenth of a transaction.
_CHECK = 1.0
#: What everybody may do with a file that we make, before `mode` says more.
_OURS = 0o600
#: SQLite's files beside the database, which every process must share.
_BESIDE = ("-wal", "-shm")

#: Held while a file is made and its descriptor closed, which would end the locks of a thread that has opened it meanwhile.
_making: Shared[str, None] = Shared()

Identity = tuple[int, int]


def make(path: str, mode: int) -> None:
    """Make an empty file that only `mode` lets in, unless there is one. SQLite gives the logs beside it the same mode.

    It is never open to more than `mode`, not for a moment, whatever the umask is. Raises `OSError`.
    """
    with _making.mutex:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OURS)
        except FileExistsError:
            return
        try:
            if mode != _OURS:
                os.fchmod(file, mode)
        finally:
            os.close(file)


class Place:
    """The files at `path` of one database that is open. The caller sees to it that one thread at a time is here."""

    def __init__(self, path: str, monotonic: Callable[[], float]) -> None:
        self.path = path
        #: Which file it is, whatever its name: two paths to one file are one database.
        self.key: Identity = (0, 0)
        self._monotonic = monotonic
        self._next = 0.0
        self._beside: dict[str, Identity | None] | None = None
        self._gone: str = ""

    def found(self) -> None:
        """The file was opened for the first time: this is what it must be from now on."""
        status = os.stat(self.path)
        self.key = (status.st_dev, status.st_ino)

    def reopened(self) -> None:
        """A connection is about to be opened: its logs may be made anew, and the file is looked at now."""
        self._next, self._beside = 0.0, None

    def used(self) -> None:
        """A transaction has ended, so the logs are there, and stay for as long as its connection is open."""
        if self._beside is None:
            self._beside = {end: _identity(self.path + end) for end in _BESIDE}

    def check(self) -> None:
        """Raise when the file or its logs are not those that were opened; from then on always."""
        if not self._gone:
            now = self._monotonic()
            if now < self._next:
                return
            self._gone = self._look()
            self._next = now + _CHECK
        if self._gone:
            raise self._error()

    def _error(self) -> NarrowboatError:
        return gone(self.path, self._gone)

    def _look(self) -> str:
        """What happened to the files; empty: nothing."""
        if self.key != (0, 0) and (what := _changed(self.path, self.key)):
            return f"was {what}"
        for end, before in (self._beside or {}).items():
            if before is not None and (what := _changed(self.path + end, before)):
                return f"lost its file {self.path}{end}, which was {what}"
        return ""


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def _changed(path: str, before: Identity) -> str:
    now = _identity(path)
    return "" if now == before else "replaced" if now is not None else "deleted"
