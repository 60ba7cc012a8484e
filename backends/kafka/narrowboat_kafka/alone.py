"""What only one call at a time may do with the servers, where the others wait within their own time.

A client gives each question its whole timeout, and takes no deadline of a caller. So a call that has waited while another
one's question was given up asks nothing: it would stand still for a second timeout.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from narrowboat.driver.turn import turn
from narrowboat.errors import Unavailable
from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.errors import behind

#: No answer came.
_UNANSWERED = frozenset({Code.TIMED_OUT_HERE, Code.UNREACHABLE, Code.NOT_SENT})


class Alone:
    """Mutexes by name. `place`: the servers, for texts. `timeout`: seconds for which a call waits for another one."""

    def __init__(self, place: str, timeout: float) -> None:
        self._place = place
        self._timeout = timeout
        self._mutexes: dict[str, threading.Lock] = {}
        self._silent = -math.inf  #: when a question was given up last

    @contextlib.contextmanager
    def at(self, name: str, doing: str) -> Iterator[None]:
        """Held for what is asked inside; raises `Unavailable` where nothing is to be asked any more."""
        begun = time.monotonic()

        def late() -> Unavailable:
            return behind(doing, self._place)

        with turn(self._mutexes.setdefault(name, threading.Lock()), self._timeout, late):
            if self._silent >= begun:
                raise late()
            try:
                yield
            except KafkaError as error:
                if error.code in _UNANSWERED:
                    self._silent = time.monotonic()
                raise
