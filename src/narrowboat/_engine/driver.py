"""The driver behind a face: opened by whoever calls first, and again after a fork.

So making a face needs no server. In a forked child the parent's driver is dropped unclosed (its sockets and files are the
parent's) and the next call opens a new one.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Generic

from narrowboat._engine.target import Closable, D, Target
from narrowboat.errors import Closed, NarrowboatError

#: The share of an operation timeout after which a step shows that the backend does not answer, so that the caller does not wait
#: for the next one.
SILENT = 0.8


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

    def close(self, waited: float = 0.0) -> None:
        """Close it if it was ever opened.

        `waited`: seconds that the caller has waited for what was under way. A driver knows nothing of them, and would wait as
        long again for a silent backend. So what of its end takes too long goes on by itself, on a thread.
        """
        with self._lock:
            self.closed = True
            driver, self._driver = self._driver, None
        if driver is None:
            return
        timeout = self._target.timeout
        if waited >= timeout * SILENT:
            ending = threading.Thread(target=_end, args=(driver,), name="narrowboat-close", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread is to be had
                ending.start()
                ending.join(timeout * (1 - SILENT))
                return
        driver.close()

    def forget(self) -> None:
        """Drop it unclosed: this is a forked child, and it is the parent's."""
        self._lock = threading.Lock()
        self._driver = None


def _end(driver: Closable) -> None:
    with contextlib.suppress(NarrowboatError):  # it says that the backend is silent
        driver.close()
