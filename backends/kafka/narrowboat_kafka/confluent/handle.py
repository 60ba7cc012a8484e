"""One handle of the library, and what it met on its connections. A handle belongs to one thread, and to one process.

`Troubles` remembers the last error of each server and says whether a connection that was made broke since a moment: then what
was sent over it may have arrived. In a forked child the library's threads are not there, and a handle that is destroyed
waits for them for ever, or worse. So each is known here (`hold`) until the thread that it belongs to ends it (`drop`), and in
a child none of these is ever destroyed.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any, NamedTuple, TypeVar

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.confluent.errors import Local, told

T = TypeVar("T")

#: Seconds for which librdkafka does not repeat the error of a server where it is the same as the one before.
_SILENT = 31.0
#: In the text of an error: the connection had been made, and requests may have been on it.
_WAS_UP = "in state UP"


class Met(NamedTuple):
    """An error of a connection."""

    at: float  #: monotonic
    error: KafkaError
    broke: bool  #: the connection had been made


class Troubles:
    """What a handle met on its connections. Told by the library's callback, on the thread that polls."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.fatal: KafkaError | None = None
        self._broke = 0.0  #: when a connection that was made broke last, of any server
        self._servers: dict[str, Met] = {}

    def heard(self, error: Any) -> None:
        """`error_cb` of the library."""
        met = told(error)
        text = error.str()
        if error.code() == Local.FATAL or error.fatal():
            self.fatal = met
        if error.code() == Local.ALL_BROKERS_DOWN:
            if self.last is None:
                self.last = met
            return
        self.last = met
        broke = _WAS_UP in text
        if broke:
            self._broke = time.monotonic()
        self._servers[text.partition(": ")[0]] = Met(time.monotonic(), met, broke)

    def broke_since(self, then: float) -> bool:
        """Whether a connection may have broken since then (monotonic).

        librdkafka tells nothing of a second break that follows upon one like it: the last of a server counts for a while.
        """
        if self._broke >= then:
            return True
        return any(each.broke and each.at > then - _SILENT for each in self._servers.values())


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
