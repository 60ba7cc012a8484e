"""One handle of the library, and what it met on its connections. A handle belongs to one thread, and to one process.

`Handle` remembers the last error of each server and says whether a connection that was made broke since a moment: then what
was sent over it may have arrived. In a forked child the library's threads are not there, and a handle that is destroyed
waits for them for ever; `keep` lets it live as long as the process.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any, NamedTuple

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.confluent.errors import Local, told

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


def keep(handle: object) -> None:
    """Never destroy it, not even when the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))
