"""The messages of one space: its sources behind one mutex, and the feeds that wait on it.

Everybody who opens the same `memory://name` shares one of these. Each change runs alone; an interrupt may strike inside
one, so a change that was begun and not ended makes the next one put the indexes right first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from narrowboat.driver.waking import Bell
from narrowboat.errors import NarrowboatError
from narrowboat_memory.sources import Sources

T = TypeVar("T")


class Messages:
    """One namespace of queues, topics and inboxes, shared between the brokers of this process."""

    def __init__(self) -> None:
        self.bell: Bell[str] = Bell()
        self._mutex = threading.Lock()
        self._sources = Sources()
        self._half_done = False

    def change(self, work: Callable[[Sources], T | NarrowboatError], now: float) -> T:
        """Run `work` alone, then wake whom it concerns. The refusal that it returns is raised, behind the change."""
        with self._mutex:
            if self._half_done:
                self._sources.repair()
            self._half_done = True
            result = work(self._sources)
            self._half_done = False
            rings = self._sources.take_rings()
        for path, count in rings.items():
            self.bell.ring(path, count, now)
        if isinstance(result, NarrowboatError):
            raise result
        return result
