"""What was registered with `@worker.elected`: a function that runs in one process at a time.

It is a source of the worker's supervisor. The election is the lock's (`narrowboat.electing`); this is its place beside queues
and schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from narrowboat.electing.candidate import Candidate, check_function
from narrowboat.messaging.message import Seconds
from narrowboat.working.failure import say
from narrowboat.working.health import SourceHealth, State


@dataclass(frozen=True, slots=True)
class Elected:
    """A function and its election."""

    function: Callable[[Any], Any]
    name: str  #: of the function
    source: str  #: of the election
    ttl: Seconds
    renew: bool
    label: str | None

    queues: ClassVar[tuple[str, ...]] = ()  #: that are its own

    @property
    def names(self) -> tuple[str, ...]:
        """By which `only` finds it."""
        return self.name, self.source

    def stand(self, locks: Any) -> Standing:
        """Its source, on the locks of a face."""
        election = locks.elect(self.source, ttl=self.ttl, renew=self.renew, label=self.label)
        return Standing(self, election._candidate(self.function))


def register(function: Any, name: str, ttl: Seconds, renew: bool, label: str | None, *, coroutine: bool) -> Elected:
    """Checked but for the ttl, which the backend decides when the worker starts."""
    check_function(name, function, coroutine=coroutine)
    return Elected(function, getattr(function, "__name__", type(function).__name__), name, ttl, renew, label)


class Standing:
    """A candidate as a source: see `narrowboat.working.supervisor.Source`."""

    def __init__(self, elected: Elected, candidate: Candidate) -> None:
        self._elected = elected
        self._candidate = candidate
        self._ended: Callable[[BaseException | None], None] | None = None
        self.drain = candidate.drain

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """See `Source`."""
        self._ended = ended
        self._candidate.start(self._end)

    def hurry(self) -> None:
        """Cancel the function; one in a thread is left behind."""
        self._candidate.hurry()
        if self._candidate.stuck and self._ended is not None:
            say("error", "election %r: its function has not returned, and ends with the process", self._elected.source)
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Once: what was left behind may end later."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)

    def health(self) -> SourceHealth:
        """How it fares: `handled` are its terms, whatever became of them."""
        candidate = self._candidate
        state: State = "running" if candidate.phase == "leading" else candidate.phase
        if candidate.hung:
            state = "hung"
        elif candidate.stopping and state not in ("ended", "failed"):
            state = "draining"
        left = max(0.0, candidate.resumes - candidate.clock()) if state in ("paused", "unavailable") else None
        return SourceHealth(
            self._elected.source,
            self._elected.name,
            state,
            candidate.terms,
            candidate.failed,
            candidate.failures,
            int(candidate.hung),
            left,
            candidate.error,
        )
