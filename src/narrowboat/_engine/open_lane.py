"""A lane for drivers that carry any number of calls at once: blocking callers enter the driver directly, side by side.

A driver with an I/O thread of its own (`Concurrency.MULTIPLEXED`) gathers callers better than a lane in front of it can:
several exchanges are under way at once there. What comes from an event loop is still gathered tick by tick and carried
by the lane's thread, because no driver call may run on an event loop.
"""

from __future__ import annotations

import threading
import time

from narrowboat._engine.lane import DONE, Call, Lane, perform
from narrowboat.capabilities import Concurrency


def lane(name: str, concurrency: Concurrency, *, remote: bool = False) -> Lane:
    """The lane that suits how a driver wants to be called; `remote` as for `Lane`."""
    return OpenLane(name) if concurrency is Concurrency.MULTIPLEXED else Lane(name, remote=remote)


class OpenLane(Lane):
    """See the module's text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._inside: dict[int, Call] = {}
        self._gone = threading.Event()

    def run(self, call: Call) -> bool:
        """Execute `call` in this thread, whoever else does the same: True. False once the lane is closed."""
        key = id(call)
        try:
            self._inside[key] = call
            if self._closed:  # looked at after entering, so that close waits for whoever it does not refuse
                return False
            call.results = perform(call.op, call.items)
            call.state = DONE
            return True
        finally:
            self._inside.pop(key, None)
            if self._closed:
                self._gone.set()

    def close(self, timeout: float) -> bool:
        """Refuse what comes now, finish what is queued or under way. False: it was still under way after `timeout`."""
        ends = time.monotonic() + timeout
        finished = super().close(timeout)
        while self._inside and (left := ends - time.monotonic()) > 0:
            self._gone.wait(left)
            self._gone.clear()
        return finished and not self._inside
