"""The messages of a source that this process acknowledged lately, so that a copy of one is not handled again.

A seal does not prevent that somebody who can read and write a queue adds a copy of a message. Within `seconds` this finds one
that comes after the original was acknowledged here. It knows nothing of what other processes acknowledged, nor of a copy that
comes before: a handler that must not act twice is idempotent all the same.
"""

from __future__ import annotations

import threading

from narrowboat._engine.forks import watch_forks
from narrowboat.layers.changing import Unopened

#: Messages that are remembered at most. More would fill the memory; the oldest are forgotten first.
REMEMBERED = 1_000_000


class Window:
    """Times are in seconds since the epoch, `seconds` long. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mutex = threading.Lock()
        watch_forks(self)
        self._acked: dict[tuple[str, str], float] = {}  #: source and id, oldest first; when it is forgotten

    def check(self, source: str, id: str, sealed_at: float, now: float) -> None:
        """`Unopened` where the message is too old, from the future, or was acknowledged."""
        age = now - sealed_at
        if not -self._seconds <= age <= self._seconds:
            when = f"{age:.0f} s ago" if age > 0 else f"{-age:.0f} s in the future"
            raise Unopened(
                f"it was sealed {when}, and seal_window={self._seconds:g} lets through what is nearer. Do the clocks agree, "
                "and is the window longer than delays and outages?"
            )
        if (source, id) in self._acked:
            raise Unopened("a message of its id was acknowledged here before")

    def forked(self) -> None:
        """In a forked child a thread that does not exist here may hold the mutex."""
        self._mutex = threading.Lock()

    def acked(self, source: str, id: str, now: float) -> None:
        """Remember one."""
        acked = self._acked
        with self._mutex:
            # It was sealed in the future by as much as the window, at most.
            acked[source, id] = now + 2 * self._seconds
            while acked:
                oldest = next(iter(acked))
                if acked[oldest] > now and len(acked) <= REMEMBERED:
                    break
                del acked[oldest]
