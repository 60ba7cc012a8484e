"""Tells without SQLite that nothing was committed: each commit writes to the write-ahead log, which changes that file's stamp.

For the watcher, which asks two hundred times a second: this takes one system call, and `PRAGMA data_version` six. It says
only "nothing", and only where that is sure; whoever is told otherwise asks SQLite.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

#: Nanoseconds for which the stamp of a file may stand still while the file is written: some ticks of the kernel's clock (of
#: at most 10 ms); or two seconds and more, where the file system keeps whole seconds only.
_TICKS, _SECONDS = 50_000_000, 2_500_000_000
#: How often in a row it is believed: a file system that keeps what it was asked before would hide a commit for longer.
_TIMES = 20


class Stamp(NamedTuple):
    """What a write changes of a file, and the time by the same clock when that was looked up, in nanoseconds."""

    inode: int
    size: int
    written: int
    asked: int

    @property
    def settled(self) -> bool:
        """Whether each later write gets another stamp: the last one was so long ago that the stamp has moved on since."""
        return self.asked - self.written > (_TICKS if self.written % 1_000_000_000 else _SECONDS)


def stands(settled: Stamp | None, found: Stamp | None) -> bool:
    """Whether nothing was written between the two: the first one was settled, and the second is the same."""
    return settled is not None and found is not None and settled.settled and settled[:3] == found[:3]


class Log:
    """The write-ahead log of the database at `path`. For one thread."""

    def __init__(self, path: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = os.path.realpath(path) + "-wal"
        self._clock = clock
        self._last: Stamp | None = None  # after which SQLite said that nothing had changed, or None
        self._found: Stamp | None = None
        self._times = 0

    def untouched(self) -> bool:
        """Whether nothing was committed since the last `confirmed`. If False, ask SQLite, and say what it answered."""
        self._found = self._stamp()
        self._times += 1
        return self._times <= _TIMES and stands(self._last, self._found)

    def confirmed(self) -> None:
        """SQLite says that nothing had changed when it was asked, which was after the last `untouched`."""
        self._last, self._times = self._found, 0

    def forget(self) -> None:
        """Something has changed."""
        self._last = None

    def _stamp(self) -> Stamp | None:
        asked = self._clock()
        try:
            found = os.stat(self._path)
        except OSError:  # there is none: nothing was written yet, or somebody has set another journal mode
            return None
        return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, asked)
