"""One thread that calls back in time: for the renewal of leases, and for the extension of deliveries.

`tick` looks at the clock, does what is due without ever blocking (driver calls are submitted to a lane), and returns
the time at which it wants to be called again. `ring` makes it look at once. The thread starts with the first `ring` and
ends with `close`. `late` tells a tick how long after its time it was called: after a pause of the whole process
(SIGSTOP, a suspended machine) that is how the process learns that it stood still.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable

from narrowboat._engine.inside import INSIDE
from narrowboat._engine.lane import start
from narrowboat._engine.runtime import BlockingSignal
from narrowboat.clock import Clock

#: Seconds until the next tick after one that failed: soon enough for a lease, not so soon that it fills the log.
AGAIN = 0.5


class Timer:
    """See the module's text. `tick` gets the seconds by which it is late and returns when it is due again."""

    def __init__(self, name: str, clock: Clock, tick: Callable[[float], float]) -> None:
        self._name = name
        self._clock = clock
        self._tick = tick
        self._signal = BlockingSignal()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.due = math.inf  #: when the next tick is due; what is late by this clock has not been looked at yet
        clock.watch(self._signal.set)

    def ring(self) -> None:
        """Tick now. From any thread; never blocks, but for the start of the thread. Not once it is closed, or Python ends."""
        if self._closed or sys.is_finalizing():
            return
        if self._thread is None or not self._thread.is_alive():
            with self._starting:  # or two that ring first at the same time start two, or one of them twice
                if self._thread is None or not self._thread.is_alive():  # an interrupt can strike before it is started
                    thread = self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    start(thread)
        self._signal.set()

    def poke(self) -> None:
        """Tick now if the thread runs. At any moment, also in a signal handler or a finaliser; never blocks."""
        self._signal.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._signal.set()
        thread = self._thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        me = threading.get_ident()
        INSIDE[me] = None  # a finaliser that strikes here must not wait for what this thread does
        try:
            self._watch()
        finally:
            INSIDE.pop(me, None)

    def _look(self) -> None:
        late = max(0.0, self._clock() - self.due)
        try:
            self.due = self._tick(late)
        except BaseException:  # everybody's leases hang on this
            import logging  # only on the way to an error

            logging.getLogger("narrowboat").exception("the watch over what has to be done in time met an error")
            self.due = self._clock() + AGAIN

    def _watch(self) -> None:
        while not self._closed:
            self._look()
            left = self.due - self._clock()
            if left > 0:
                self._signal.take(None if left == math.inf else self._clock.real(left))
