"""Who waits for messages, by the path of the source, and whom to wake for how many.

A feed that found nothing is armed; ringing takes it off the list and calls its `wake`. As many feeds are woken as there are
messages, the one that looked last first, because it is the likeliest to be still waiting. A feed that should have
looked again by now is no longer waited on by anybody (its consumer is busy, or left without closing): it is woken too but
not counted, or a message would lie until somebody else happens to look.

It keeps no time, and knows neither messages nor databases. `wake` is called without any lock held, as it may come back
into the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

P = TypeVar("P", bound=Hashable)

#: A feed is given this much longer than it was told, in seconds, before it is held to be absent: a busy machine is late.
#: Too small wakes feeds in vain; too large lets a message lie this long when nobody waits on the feed that was woken.
GRACE = 0.25


class _Armed(NamedTuple):
    wake: Callable[[], None]
    until: float  #: when it looks by itself


class Bell(Generic[P]):
    """The waiting feeds of one set of sources, by paths of the driver's own kind. Any thread may call anything at any time."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: dict[P, dict[object, _Armed]] = {}

    def arm(self, path: P, feed: object, wake: Callable[[], None], until: float) -> None:
        """`feed` is about to look for the last time before it waits; it looks by itself at `until`."""
        with self._mutex:
            feeds = self._waiting.setdefault(path, {})
            feeds.pop(feed, None)  # so that it stands last, as the one that looked last
            feeds[feed] = _Armed(wake, until)

    def disarm(self, path: P, feed: object) -> None:
        """`feed` does not wait (any more)."""
        with self._mutex:
            feeds = self._waiting.get(path)
            if feeds is not None:
                feeds.pop(feed, None)
                if not feeds:
                    del self._waiting[path]

    def waiting(self) -> list[P]:
        """The paths for which somebody waits."""
        with self._mutex:
            paths = list(self._waiting)
        return paths  # noqa: RET504  # a call in the return would be interruptible where the mutex is not given back

    def ring(self, path: P, count: int, now: float) -> None:
        """Wake as many feeds of `path` as are waited on, `count` at most."""
        wakes = []
        with self._mutex:
            feeds = self._waiting.get(path)
            while feeds and count > 0:
                _, armed = feeds.popitem()
                wakes.append(armed.wake)
                count -= armed.until + GRACE >= now
            if feeds is not None and not feeds:
                del self._waiting[path]
        for wake in wakes:
            wake()

    def ring_all(self) -> None:
        """Wake every feed that waits."""
        with self._mutex:
            wakes = [armed.wake for feeds in self._waiting.values() for armed in feeds.values()]
            self._waiting.clear()
        for wake in wakes:
            wake()
