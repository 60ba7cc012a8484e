"""How many messages watched queues have, and how old the oldest is, as of some seconds ago: a scrape waits for no backend.

A look that finds the numbers too old gets them, and a thread asks for the next ones, of queues of either face. A queue that
cannot be counted now has none. One whose broker is closed is watched no longer.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from narrowboat._engine.checks import seconds
from narrowboat._engine.forks import watch_forks
from narrowboat._engine.log import log
from narrowboat._engine.runtime import Blocking, run
from narrowboat._messages.source import SourceCore
from narrowboat.capabilities import Support
from narrowboat.contract.messages import Depth, Kind
from narrowboat.errors import Closed, InvalidArgument, NarrowboatError
from narrowboat.messaging import Queue, Subscription
from narrowboat.telemetry.names import system

if TYPE_CHECKING:  # a program without asyncio does not import it for this
    from narrowboat import aio

    Watched: TypeAlias = Queue[Any] | Subscription[Any] | aio.Queue[Any] | aio.Subscription[Any]

#: Seconds after which numbers are asked for again, unless given.
EVERY = 10.0


class Depths:
    """See the module's text. Any thread may look."""

    def __init__(self) -> None:
        self._queues: list[SourceCore[Any]] = []
        self._every = EVERY
        self._found: dict[tuple[str, str], Depth] = {}
        self.forked()
        watch_forks(self)

    def forked(self) -> None:
        """It is new, or this is a forked child: a question that is under way is the parent's, and so is its thread."""
        self._mutex = threading.Lock()
        self._asked = float("-inf")
        self._asking: threading.Thread | None = None

    def watch(self, queues: Iterable[Watched], every: float | None) -> None:
        """From now on count these, and ask at most every `every` seconds."""
        added: list[SourceCore[Any]] = []
        for queue in queues:
            core = getattr(queue, "_core", None)
            if not isinstance(core, SourceCore) or core.address.kind is Kind.TOPIC:
                raise InvalidArgument(f"watch({queue!r}): expected a queue or subscription")
            added.append(core)
        with self._mutex:
            self._queues += added
            if every is not None:
                self._every = seconds("every", every, low=0.1, high=86400.0, allowed="0.1 or more seconds")
            self._asked = float("-inf")

    def counts(self) -> Iterator[tuple[str, str, str, int]]:
        """What a look finds: the system, the name, a state such as `ready`, and how many messages are in it."""
        for (backend, path), depth in self.look().items():
            for state in ("ready", "in_flight", "delayed", "dead"):
                count = getattr(depth, state)
                if count is not None:  # the backend cannot know
                    yield system(backend), path, state, count

    def ages(self) -> Iterator[tuple[str, str, float]]:
        """The system, the name, and the seconds for which the oldest ready message has waited: 0 where none is ready."""
        for (backend, path), depth in self.look().items():
            if depth.oldest is not None:
                yield system(backend), path, depth.oldest

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
        for source in tuple(self._queues):
            core, path = source.core, source.address.path
            try:
                depth = run(source.depth(Blocking(core.clock)))
            except Closed:
                closed.append(source)
            except NarrowboatError as error:  # an outage is told by the broker
                if not error.retryable:
                    log("WARNING", "the depth of %r is not known: %s", path, str(error), event="no_depth")
            except Exception as error:  # a fault, of a layer for example; without the next look it would be the last one
                log("ERROR", "the depth of %r is not known", path, error=error, event="no_depth")
            else:
                if depth.oldest is None and core.capabilities.oldest is not Support.ABSENT:
                    depth = dataclasses.replace(depth, oldest=0.0)  # a time series that ends would be no end of an alert
                found[core.backend, path] = depth
        with self._mutex:
            self._queues = [each for each in self._queues if each not in closed]
            self._found, self._asking = found, None
