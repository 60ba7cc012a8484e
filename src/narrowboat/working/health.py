"""How a worker fares, as values: for a readiness probe, a page, a test. They are of one moment, and no backend was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from narrowboat.health import Connection

State = Literal[
    "new", "starting", "standby", "running", "unavailable", "paused", "probing", "hung", "draining", "ended", "failed"
]


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """One handler and its source."""

    source: str  #: the queue, subscription or election
    handler: str  #: the function
    state: State
    handled: int = 0  #: calls of the handler that returned
    failed: int = 0  #: calls that raised, or did not end in time
    failures_in_a_row: int = 0
    hung: int = 0  #: threads that are in a handler whose time is up; once they keep all places, `state` is `hung`
    resumes_in: float | None = None  #: seconds until it is tried again, while it is paused or unavailable
    error: str | None = None  #: why it is unavailable or has failed


@dataclass(frozen=True, slots=True)
class Health:
    """A worker. It has no sources while it does not run."""

    sources: tuple[SourceHealth, ...]
    broker: Connection | None = None  #: what its calls have found out; None where it has none, or does not run
    schedules: Connection | None = None  #: the same of the broker of ticks, where that is another: `Worker(schedules=...)`

    @property
    def live(self) -> bool:
        """Whether a restart would not help: nothing has failed for good, and no source has all its threads hung."""
        return all(source.state not in ("failed", "hung") for source in self.sources)

    @property
    def ready(self) -> bool:
        """Whether every handler gets messages or stands for election, or its downstream fails; and its brokers answer."""
        reached = all(each is None or each.state != "lost" for each in (self.broker, self.schedules))
        running = all(source.state in ("standby", "running", "paused", "probing") for source in self.sources)
        return bool(self.sources) and running and reached
