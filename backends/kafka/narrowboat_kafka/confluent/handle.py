"""One handle of the library, and what it met on its connections. A handle belongs to one thread, and to one process.

`Troubles` remembers the last error of the handle and says whether a connection that was made broke since a moment: then what
was sent over it may have arrived. In a forked child the library's threads are not there, and a handle that is destroyed
waits for them for ever, or worse. So each is known here (`hold`) until the thread that it belongs to ends it (`drop`), and in
a child none of these is ever destroyed.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any, TypeVar

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.confluent.errors import Local, told

T = TypeVar("T")

#: In a line about a connection that ended: it had been made, and requests may have been on it.
_WAS_UP = ("in state UP", "in state REAUTH")
#: In a line about a connection that only asks which servers there are. It is given up once they are known, and no record is
#: sent over it.
_ASKS = "/bootstrap: "


class Troubles:
    """What a handle met on its connections. Told by the library's callbacks, on the thread that polls.

    A connection that its server closes is no error for librdkafka (2.16): the log alone tells of it. Of a second one like it
    within half a minute it tells only where `debug` asks for what it has about brokers. So the log's lines come here too.
    """

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.fatal: KafkaError | None = None
        self._broke = 0.0  #: when a connection that was made broke last, of any server

    def heard(self, error: Any) -> None:
        """`error_cb` of the library."""
        met = told(error)
        if error.code() == Local.FATAL or error.fatal():
            self.fatal = met
        if error.code() != Local.ALL_BROKERS_DOWN or self.last is None:
            self.last = met

    def failed(self, line: str) -> None:
        """A line of the log about a connection that ended or was not made."""
        if _ASKS not in line and any(state in line for state in _WAS_UP):
            self._broke = time.monotonic()

    def broke_since(self, then: float) -> bool:
        """Whether a connection that was made broke since then (monotonic)."""
        return self._broke >= then


#: Handles that were made and not ended, by their ids.
_alive: dict[int, Any] = {}


def hold(handle: T) -> T:
    """A handle that was made just now. It lives until `drop`, whoever forgets it."""
    _alive[id(handle)] = handle
    return handle


def drop(handle: object) -> None:
    """It has ended: who has the last reference destroys it."""
    _alive.pop(id(handle), None)


def _keep_all() -> None:
    for handle in list(_alive.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


os.register_at_fork(after_in_child=_keep_all)
