"""The messages of a source that this process acknowledged lately, so that a copy of one is not handled again.

A message is known by its id and its publish time, which a seal binds and a redrive keeps.

A seal does not prevent that somebody who can read and write a queue adds a copy of a message. Within `seconds` this finds one
that comes after the original was acknowledged here. It knows nothing of what other processes acknowledged, nor of a copy that
comes before: a handler that must not act twice is idempotent all the same.
"""

from __future__ import annotations

import threading

from narrowboat._engine.forks import watch_forks
from narrowboat.contract import Delivery
from narrowboat.layers.changing import Unopened

#: Messages that are remembered at most. More would fill the memory; the oldest are forgotten first.
REMEMBERED = 1_000_000


class Window:
    """Times are in seconds since the epoch, `seconds` long. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mutex = threading.Lock()
        watch_forks(self)
        #: Source, id and publish time, oldest first; when it is forgotten. A publisher may use an id again.
        self._acked: dict[tuple[str, str, float | None], float] = {}

    def check(self, source: str, message: Delivery, sealed_at: float, now: float) -> None:
        """`Unopened` where the message is too old, from the future, or was acknowledged."""
        age = now - sealed_at
        if not -self._seconds <= age <= self._seconds:
            when = f"{age:.0f} s ago" if age > 0 else f"{-age:.0f} s in the future"
            raise Unopened(
                f"it was sealed {when}, and seal_window={self._seconds:g} lets through what is nearer. Do the clocks agree, "
                "and is the window longer than delays and outages?"
            )
        if (source, message.id, message.published_at) in self._acked:
            raise Unopened("it was acknowledged here before")

    def forked(self) -> None:
        """In a forked child a thread that does not exist here may hold the mutex."""
        self._mutex = threading.Lock()

    def acked(self, source: str, message: Delivery, now: float) -> None:
        """Remember one."""
        acked = self._acked
        with self._mutex:
            # It was sealed in the future by as much as the window, at most.
            acked[source, message.id, message.published_at] = now + 2 * self._seconds
            while acked:
                oldest = next(iter(acked))
                if acked[oldest] > now and len(acked) <= REMEMBERED:
                    break
                del acked[oldest]
