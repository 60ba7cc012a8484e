"""One background thread for each provider, which removes nodes that are no longer used. It never waits for an answer.

- The nodes of idle locks. A lock's node stays when its last contender leaves: removing it at each release would cost a third of
  the speed. A release notes the node here. The janitor removes it after a few idle seconds, unless it has children again.
- Grants whose lease is over although their session goes on: no holder renewed them.
- The places of waiters that were woken and do not come. Their program stands still while kazoo's thread keeps the session, and
  they would block all waiters behind them.

A request that is lost with a connection is sent again at a later look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from narrowboat.driver.threads import LazyThread

#: Seconds for which a lock's node is left alone after its last release.
IDLE = 3.0
#: Nodes removed at one look.
_AT_ONCE = 200


class Janitor:
    """Calls `look` every `every` seconds, for as long as `look` returns True: there is something to look after."""

    def __init__(self, look: Callable[[], bool], every: float) -> None:
        self._look = look
        self._every = every
        self._idle: dict[str, float] = {}
        self._bell = threading.Event()
        self._thread = LazyThread("narrowboat-zookeeper-janitor", self._run, wake=self._bell.set)
        self._busy = False
        self._now = False

    def note(self, path: str) -> None:
        """A contender under `path` was released just now."""
        self._idle[path] = time.monotonic()
        self.stir()

    def look_now(self) -> None:
        """The clock was moved."""
        self._now = True
        self._bell.set()

    def stir(self) -> None:
        """Start looking, if the thread is idle. Never blocks."""
        if self._busy or self._thread.ended:
            return
        try:
            self._thread.start()
        except RuntimeError:  # no thread to be had just now: the next call tries again
            return
        self._busy = True
        self._bell.set()

    def due(self) -> list[str]:
        """Take out the paths that have been idle for long enough."""
        now = time.monotonic()
        return self._take([path for path, since in list(self._idle.items()) if since + IDLE <= now][:_AT_ONCE])

    def rest(self) -> list[str]:
        """Take out all paths."""
        return self._take(list(self._idle))

    def _take(self, paths: list[str]) -> list[str]:
        for path in paths:
            self._idle.pop(path, None)
        return paths

    def close(self, timeout: float) -> None:
        """End the thread. Waits for it for up to `timeout` seconds."""
        self._thread.end(timeout)

    def _run(self) -> None:
        while not self._thread.ended:
            stirred = self._bell.wait(self._every if self._busy else None)
            self._bell.clear()
            if self._thread.ended or (stirred and not self._now):
                continue
            self._now = self._busy = False  # before the look, so that what is noted meanwhile stirs
            if self._look() or self._idle:
                self._busy = True
