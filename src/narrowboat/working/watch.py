"""Handlers in threads that take too long: who is told, and when. One thread for each source, from the first call on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from narrowboat._engine.runtime import Blocking, run


class Entry:
    """One call of a handler."""

    __slots__ = ("ends", "expired", "late")

    def __init__(self, ends: float, late: Callable[[], None]) -> None:
        self.ends = ends
        self.late = late
        self.expired = False  #: its time was up before it had ended


class Watch:
    """All calls of one source's handler: they have the same time, so the oldest is the next to be due."""

    def __init__(self, runtime: Blocking, timeout: float, name: str) -> None:
        self._runtime = runtime
        self._timeout = timeout
        self._name = name
        self._mutex = threading.Lock()
        self._calls: dict[Entry, None] = {}
        self._hung: set[Entry] = set()
        self._closed = False
        self._signal = runtime.signal()
        self._thread: threading.Thread | None = None

    def begin(self, late: Callable[[], None]) -> Entry:
        """A call begins; `late` is called in the watch's thread when its time is up."""
        entry = Entry(self._runtime.clock() + self._timeout, late)
        with self._mutex:
            first = not self._calls
            self._calls[entry] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"narrowboat-watch-{self._name}", daemon=True)
                self._thread.start()
        if first:
            self._signal.set()
        return entry

    def end(self, entry: Entry) -> bool:
        """The call has ended; whether its time was up before."""
        with self._mutex:
            self._calls.pop(entry, None)
            self._hung.discard(entry)
            return entry.expired

    @property
    def hung(self) -> int:
        """How many calls go on though their time is up."""
        return len(self._hung)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._signal.set()

    def _work(self) -> None:
        while not self._closed:
            due, ends = self._due(self._runtime.clock())
            for entry in due:
                entry.late()
            run(self._runtime.wait(self._signal, ends))

    def _due(self, now: float) -> tuple[list[Entry], float]:
        """Those whose time is up, taken out; and when the next one's is."""
        due: list[Entry] = []
        with self._mutex:
            for entry in tuple(self._calls):
                if entry.ends > now:
                    return due, entry.ends
                entry.expired = True
                del self._calls[entry]
                self._hung.add(entry)
                due.append(entry)
        return due, math.inf
