"""Waking those who wait: the feeds of a process that found no message (`Bell`), and a thread that waits on sockets (`Nudge`).

Neither knows what has happened: whoever is woken looks for itself.
"""

from __future__ import annotations

import socket
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
    """Who waits for messages, by the path of the source, and whom to wake for how many.

    A feed that found nothing is armed; ringing takes it off the list and calls its `wake`. As many feeds are woken as there are
    messages, the one that looked last first, because it is the likeliest to be still waiting. A feed that should have looked
    again by now is no longer waited on by anybody (its consumer is busy, or left without closing): it is woken too but not
    counted, or a message would lie until somebody else happens to look.

    It keeps no time, and knows neither messages nor databases. Paths are of the driver's own kind. Any thread may call anything
    at any time; `wake` is called without any lock held, as it may come back into the driver.

    >>> bell = Bell()
    >>> bell.arm("orders", "a feed", lambda: print("woken"), until=10.0)
    >>> bell.ring("orders", 1, now=9.0)
    woken
    >>> bell.ring("orders", 1, now=9.0), bell.waiting()
    (None, [])
    """

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


class Nudge:
    """Ends another thread's `poll` or `select`, for a thread that waits on sockets and must also hear its own process.

    The thread registers the `Nudge` beside its sockets, calls `hush` when it is readable, and then looks at what has changed.
    It carries no news: whoever rings has left them elsewhere before, and a hundred rings may be heard as one. `ring` comes from
    any thread and never blocks; the rest belongs to the thread that waits.

    >>> import select
    >>> nudge = Nudge()
    >>> nudge.ring()
    >>> nudge in select.select([nudge], [], [])[0]
    True
    >>> nudge.hush()
    >>> select.select([nudge], [], [], 0)[0]
    []
    >>> nudge.close()
    """

    def __init__(self) -> None:
        self._mouth, self._ear = socket.socketpair()
        self._mouth.setblocking(False)
        self._ear.setblocking(False)

    def fileno(self) -> int:
        """What `poll` and `select` take; readable from a ring until `hush`."""
        return self._ear.fileno()

    def ring(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            self._mouth.send(b"!")
        except OSError:
            pass  # full: it rings already; or closed: nobody waits any more

    def hush(self) -> None:
        """Whatever rang has been heard; before the look at what has changed, or a ring in between is lost."""
        try:
            while self._ear.recv(4096):
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Give both ends back. Idempotent; a ring that comes later does nothing."""
        self._mouth.close()
        self._ear.close()
