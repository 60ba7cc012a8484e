"""Turns among the waiters of one process, for backends that do not queue fairly.

Where a backend grants to whoever asks first, a hundred waiters here would be a hundred contenders there, each woken by
each release. So those of one name stand in line in this process and only the first contends; it leaves the line with its
grant or without, and the next takes its place. Tries do not stand in line. Where the backend queues by itself (FIFO) the
core does not use this.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol


class Waiter(Protocol):
    """Somebody in a line, who is told to look again by its signal."""

    def next_turn(self) -> None:
        """Look again: you may be the first now. Never blocks; may be spurious."""
        ...

    def in_line(self) -> bool:
        """Whether it still waits. One that was interrupted on its way out has not left, and must not hold up the rest."""
        ...


class Lines:
    """One line for each name. Waiters are known by weak reference: one that vanished is passed over."""

    #: Seconds after which a waiter looks again although nobody told it to: what an interrupt in the middle of `leave` costs.
    PATIENCE = 1.0

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._lines: dict[str, dict[int, weakref.ref[Waiter]]] = {}  # a dict keeps the order in which they came

    def is_first(self, name: str, waiter: Waiter) -> bool:
        """Whether it is the turn of `waiter`, who joins the end of the line by asking for the first time."""
        with self._mutex:
            line = self._lines.setdefault(name, {})
            known = line.get(id(waiter))
            if known is None or known() is not waiter:  # an id is used again after its object has vanished
                line.pop(id(waiter), None)
                line[id(waiter)] = weakref.ref(waiter)
            return _first(line) is waiter

    def leave(self, name: str, waiter: Waiter) -> None:
        """`waiter` goes, with its grant or without; who is first now is told. Idempotent."""
        with self._mutex:
            line = self._lines.get(name, {})
            known = line.get(id(waiter))
            if known is not None and known() is waiter:
                del line[id(waiter)]
            first = _first(line)
            if first is None:
                self._lines.pop(name, None)
        if first is not None:
            first.next_turn()


def _first(line: dict[int, weakref.ref[Waiter]]) -> Waiter | None:
    """The first who is still there; those before it are dropped."""
    while line:
        key = next(iter(line))
        waiter = line[key]()
        if waiter is not None and waiter.in_line():
            return waiter
        del line[key]
    return None
