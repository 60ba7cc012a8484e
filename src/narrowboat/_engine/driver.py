"""The driver behind a face: opened by whoever calls first, and again after a fork.

So making a face needs no server. In a forked child the parent's driver is dropped unclosed (its sockets and files are the
parent's) and the next call opens a new one.
"""

from __future__ import annotations

import threading
from typing import Generic

from narrowboat._engine.target import D, Target
from narrowboat.errors import Closed


class Driver(Generic[D]):
    """The one driver of a face: `get()` opens it at the first call."""

    def __init__(self, target: Target[D]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._driver: D | None = None
        self.closed = False

    def get(self) -> D:
        """The driver, opened if it is not yet; `Closed` after `close`."""
        driver = self._driver
        if driver is not None and not self.closed:
            return driver
        with self._lock:
            if self.closed:
                raise Closed(f"{self._target.url.scheme}: used after close()", backend=self._target.url.scheme)
            if self._driver is None:
                self._driver = self._target.make()
            return self._driver

    @property
    def opened(self) -> bool:
        """Whether there is one now."""
        return self._driver is not None

    def close(self) -> None:
        """Close it if it was ever opened."""
        with self._lock:
            self.closed = True
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def forget(self) -> None:
        """Drop it unclosed: this is a forked child, and it is the parent's."""
        self._lock = threading.Lock()
        self._driver = None
