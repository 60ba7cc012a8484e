"""What a process writes down while it works: one JSON object a line, handed to the system at once.

What was written survives the process being killed. The times are those of one monotonic clock that all processes of
this machine share, so that they can be compared.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from narrowboat.clock import SystemClock


class Event(enum.Enum):
    """What happened."""

    HOLD = "hold"  #: from now on this worker believes that it alone sells this item, at most until `until`
    FREE = "free"  #: from now on it does not; nothing was released yet
    LOST = "lost"  #: it was told that it has not held it any more for a while
    SOLD = "sold"
    ALREADY = "already"  #: the order came again and had been sold before
    SOLD_OUT = "sold out"
    STALE = "stale"  #: the stock record refused the write: a newer token was there
    FAILED = "failed"  #: a poisonous order
    DEAD = "dead"  #: the order came out of the dead letters


class Entry(NamedTuple):
    """One line of a journal. Times are seconds of the shared clock."""

    worker: int
    event: Event
    at: float
    order: str
    item: int
    until: float = 0.0  #: of HOLD: when the lease ends unless it is renewed
    waited: float = 0.0  #: of HOLD: how long the lock was waited for


class Journal:
    """One process's journal."""

    def __init__(self, path: Path, worker: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._worker = worker
        self.now = SystemClock()

    def write(self, event: Event, order: str, item: int, *, until: float = 0.0, waited: float = 0.0) -> Entry:
        """Write one line; what it says."""
        entry = Entry(self._worker, event, self.now(), order, item, until, waited)
        os.write(self._fd, to_line(entry))
        return entry

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)


def to_line(entry: Entry) -> bytes:
    """An entry as a line."""
    return json.dumps([entry.worker, entry.event.value, *entry[2:]]).encode() + b"\n"


def from_line(line: bytes) -> Entry:
    """A line as an entry."""
    worker, event, *rest = json.loads(line)
    return Entry(worker, Event(event), *rest)


def read(paths: list[Path]) -> Iterator[Entry]:
    """All entries of some journals, journal by journal. A line that a kill cut short is left out."""
    for path in paths:
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield from_line(line)
