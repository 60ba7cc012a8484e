"""One supervisor for all that a worker does: it starts all sources, drains them together, and ends with the first that fails.

Once for both faces: it awaits nothing but the runtime. A source is anything with the four methods of `Source`; it is handed
what to call when it has ended.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from narrowboat.working.failure import say
from narrowboat.working.health import SourceHealth

#: Seconds after which the wait looks up: a signal may come to another thread, and a source that was just being opened when it
#: was to drain is told again.
LOOK = 0.5
#: Seconds beyond the grace time for what a source does at its end: give back its messages, close its consumer.
CLOSING = 10.0


class Source(Protocol):
    """What a worker does besides waiting: a consumer of a queue, a schedule, a term."""

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Begin, without waiting. `ended` is called once, from any thread; with an error where it failed for good."""
        ...

    def drain(self) -> None:
        """Take on nothing more and end in good order. From a signal handler, and repeatedly: it takes no lock."""
        ...

    def hurry(self) -> None:
        """Do not wait any more: give back what is not finished."""
        ...

    def health(self) -> SourceHealth:
        """How it fares."""
        ...


class Supervisor:
    """One run of a worker. `stop` and `hurry` may come from signal handlers, so they take no lock and wait for nothing."""

    def __init__(self, sources: Sequence[Source], grace: float, runtime: Any) -> None:
        self.sources = sources
        self.error: BaseException | None = None
        self.tells = False  #: log the error when it comes: whoever waits gets it much later
        self._grace = grace
        self._runtime = runtime
        self._signal = runtime.signal()
        self._running = dict.fromkeys(sources)
        self._stopping = False
        self._hurried = False

    def start(self) -> None:
        """Start all sources."""
        found = [source.health() for source in self.sources]
        say("info", "the worker starts: %s", ", ".join(f"{each.handler} for {each.source!r}" for each in found))
        for number, source in enumerate(self.sources):
            try:
                source.start(functools.partial(self._ended, source))
            except BaseException as error:  # no thread is to be had
                for other in self.sources[number + 1 :]:
                    self._running.pop(other, None)
                self._ended(source, error)
                break

    def _ended(self, source: Source, error: BaseException | None) -> None:
        if error is not None and self.error is None:
            self.error = error
        self._running.pop(source, None)
        if error is not None:
            if self.tells and error is self.error:
                say("error", "%r is consumed no more, and the worker drains: %r", source.health().source, error)
            self.stop()
        self._signal.set()

    def stop(self) -> None:
        """Drain all sources."""
        self._stopping = True
        for source in tuple(self._running):
            source.drain()
        self._signal.set()

    def hurry(self) -> None:
        """A second signal: whoever waits does so no more."""
        self._hurried = True
        self.stop()

    async def abandon(self) -> None:
        """Who waits is torn away: what is not finished goes back now, and its tasks end before this returns."""
        self.stop()
        for source in tuple(self._running):
            source.hurry()
        clock = self._runtime.clock
        until = clock() + CLOSING
        while self._running and clock() < until:
            await self._runtime.wait(self._signal, until)

    async def wait(self) -> None:
        """Until all sources have ended; raises what made it end."""
        clock = self._runtime.clock
        ends = hurries = math.inf
        while self._running and clock() < ends:
            now = clock()
            await self._runtime.wait(self._signal, min(now + LOOK, hurries if now < hurries else math.inf))
            if not self._stopping:
                continue
            if hurries == math.inf:  # here, and not in a signal handler
                say("info", "the worker drains: what runs may finish for %g s, and a second signal ends that", self._grace)
            hurries = min(hurries, clock() + (0.0 if self._hurried else self._grace))
            ends = min(ends, hurries + CLOSING)
            for source in tuple(self._running):
                source.drain()
                if clock() >= hurries:
                    source.hurry()
        for source in self._running:
            say("error", "%r has not ended within the grace time and ends with the process", source.health().source)
        self._running.clear()
        if self.error is not None:
            raise self.error
        say("info", "the worker has stopped")
