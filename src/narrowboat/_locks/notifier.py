"""The thread on which users' `on_lost` callbacks run, one after the other: one that blocks delays the others, and nothing else.

Started by the first. Whatever a callback raises, `SystemExit` included, is logged and silences no later one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Notifier:
    """See the module's text."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._mutex = threading.RLock()

    def put(self, callback: Callable[[], object]) -> None:
        """Run it soon."""
        self._queue.put(callback)
        with self._mutex:
            if self._thread is None or not self._thread.is_alive():
                thread = self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()

    def close(self, timeout: float) -> None:
        """End the thread, after what is queued, but wait no longer than `timeout` for a callback that blocks."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout)

    def _run(self) -> None:
        while (callback := self._queue.get()) is not None:
            try:
                callback()
            except BaseException:
                import logging  # only on the way to an error

                logging.getLogger("narrowboat").exception("an on_lost callback raised")
            del callback  # it may know of a possession, and this thread may now wait for long
