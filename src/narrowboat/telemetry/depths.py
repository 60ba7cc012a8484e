"""How many messages watched queues have, as numbers that are some seconds old: a scrape asks no backend and waits for none.

A look that finds the numbers too old gets them, and a thread asks for the next ones. A queue that cannot be counted now has
none. One whose broker is closed is watched no longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from narrowboat._engine.checks import seconds
from narrowboat._engine.forks import watch_forks
from narrowboat._engine.log import log
from narrowboat.contract.messages import Depth
from narrowboat.errors import Closed, InvalidArgument, NarrowboatError
from narrowboat.messaging import Queue, Subscription

#: Seconds after which numbers are asked for again, unless given.
EVERY = 10.0


class Depths:
    """See the module's text. Any thread may look."""

    def __init__(self) -> None:
        self._queues: list[Any] = []
        self._every = EVERY
        self._found: dict[tuple[str, str], Depth] = {}
        self.forked()
        watch_forks(self)

    def forked(self) -> None:
        """It is new, or this is a forked child: a question that is under way is the parent's, and so is its thread."""
        self._mutex = threading.Lock()
        self._asked = float("-inf")
        self._asking: threading.Thread | None = None

    def watch(self, queues: Iterable[Queue[Any] | Subscription[Any]], every: float | None) -> None:
        """From now on count these, of the sync face, and ask at most every `every` seconds."""
        added = list(queues)
        for queue in added:
            if not isinstance(queue, Queue | Subscription):
                raise InvalidArgument(
                    f"watch({queue!r}): expected a queue or subscription of the sync face; beside asyncio, open a "
                    "narrowboat.broker(...) for it"
                )
        with self._mutex:
            self._queues += added
            if every is not None:
                self._every = seconds("every", every, low=0.1, high=86400.0, allowed="0.1 or more seconds")
            self._asked = float("-inf")

    def look(self) -> dict[tuple[str, str], Depth]:
        """The numbers of now, by backend and name. It starts the next question where they are too old."""
        with self._mutex:
            due = time.monotonic() - self._asked >= self._every
            if self._queues and due and self._asking is None:
                self._asked = time.monotonic()
                self._asking = threading.Thread(target=self._ask, name="narrowboat-depths", daemon=True)
                try:
                    self._asking.start()
                except RuntimeError:  # no thread is to be had now
                    self._asking = None
            return dict(self._found)

    def _ask(self) -> None:
        found: dict[tuple[str, str], Depth] = {}
        closed = []
        for queue in tuple(self._queues):
            core = queue._core
            try:
                found[core.core.backend, core.address.path] = queue.depth()
            except Closed:
                closed.append(queue)
            except NarrowboatError as error:  # an outage is told by the broker
                if not error.retryable:
                    log("WARNING", "the depth of %r is not known: %s", core.address.path, str(error), event="no_depth")
        with self._mutex:
            self._queues = [each for each in self._queues if each not in closed]
            self._found, self._asking = found, None
