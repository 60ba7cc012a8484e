"""A thread of a driver's own: begun by whoever first has something for it, ended with the driver.

For a loop that reads a subscription, moves what is due, or cleans up. The loop asks `ended` each time round, and `wake` ends
whatever it waits for. An interrupt (Ctrl-C, an asynchronous exception) may strike anywhere in `start` and `end`: the next call
does what is left, and no second thread runs beside the first. In a forked child there is no such thread, and none is begun:
the child opens a driver of its own.

It does not restart a loop that raised; a loop that must outlast its own mistakes catches them.

    >>> import queue
    >>> jobs, done = queue.SimpleQueue(), queue.SimpleQueue()
    >>> def work():
    ...     while (job := jobs.get()) is not None:
    ...         done.put(job * 2)
    >>> thread = LazyThread("doubles", work, wake=lambda: jobs.put(None))
    >>> jobs.put(21)
    >>> thread.start(), thread.start(), done.get()
    (True, False, 42)
    >>> thread.end(), thread.start()
    (True, False)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class LazyThread:
    """See the module's text. From any thread, at any time."""

    def __init__(self, name: str, work: Callable[[], object], *, wake: Callable[[], object]) -> None:
        """`work` is the loop. `wake`, called by `end`, must not block; it is called where the thread was begun."""
        self.ended = False  #: the loop has to return
        self._name = name
        self._work = work
        self._wake = wake
        self._mutex = threading.RLock()  # a signal's handler may come back into it
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def start(self) -> bool:
        """Let it run, unless it does or was ended. True: it began just now.

        Raises RuntimeError where the machine or the process has no thread left; the next call tries again.
        """
        thread = self._thread
        if (thread is not None and thread.is_alive()) or self.ended or self._process != os.getpid():
            return False
        with self._mutex:
            # An interrupt can strike between making a thread and starting it: look again each time.
            if self.ended or (self._thread is not None and self._thread.is_alive()):
                return False
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
            return True

    def end(self, timeout: float | None = None) -> bool:
        """Tell the loop to return, and wait for it for `timeout` seconds (None: for however long). False: it still runs.

        Idempotent. It is not waited for where it ends itself.
        """
        if self._process != os.getpid():
            return True
        with self._mutex:
            self.ended = True
            thread = self._thread
        if thread is None or thread.ident is None:
            return True
        self._wake()
        if thread is not threading.current_thread():
            thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        with self._mutex:
            if self.ended or self._thread is not threading.current_thread():
                return  # an interrupt struck while it was started: it was ended since, or another was begun in its place
        self._work()
