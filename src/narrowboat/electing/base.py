"""What an election is on both faces: its name and terms, who stands for it, and who is told of it. It waits for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from narrowboat._engine.checks import seconds
from narrowboat._locks.election import Candidacy
from narrowboat._locks.terms import Terms
from narrowboat.electing.candidate import Candidate, check_callback

#: Seconds of the longest grace time.
LONGEST = 10 * 365 * 86400.0


class BaseElection:
    """The base of `Election` on both faces."""

    _LOCK: ClassVar[Any]  #: the lock of an election, which gives terms
    _SEAT: ClassVar[Any]

    def __init__(
        self,
        locks: Any,
        name: str,
        ttl: Any,
        renew: bool,
        label: str | None,
        on_elected: Callable[[Any], object] | None,
        on_lost: Callable[[Any], object] | None,
    ) -> None:
        check_callback("on_elected", on_elected)
        check_callback("on_lost", on_lost)
        self._locks = locks
        self._terms: Terms = locks.lock(name, ttl=ttl, renew=renew, label=label)._terms
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._running: set[Candidate] = set()

    @property
    def name(self) -> str:
        """The election's name, which is the name of its lock."""
        return self._terms.name

    def stop(self) -> None:
        """End every `run` of this object, as SIGTERM does: the function is asked to return. From any thread."""
        for candidate in tuple(self._running):
            candidate.drain()

    def _lock(self) -> Any:
        return self._LOCK(self._locks._core, self._locks._runtime, self._terms)

    def _candidate(self, function: Callable[[Any], Any]) -> Candidate:
        core, runtime = self._locks._core, self._locks._runtime
        return Candidate(self.name, function, self._SEAT(runtime), self._stand, self._tell, core.clock, core.random)

    def _stand(self) -> Candidacy[Any]:
        return Candidacy(self._locks._core, self._locks._runtime, self._terms, None, self._lock()._make)

    def _tell(self, term: Any) -> None:
        if self._on_lost is not None:
            term.on_lost(self._on_lost)
        if self._on_elected is not None:
            self._on_elected(term)

    def __repr__(self) -> str:
        return f"<Election {self.name!r} ttl={self._terms.ttl:g}>"


class Stoppable:
    """A candidate, as signals see it: who waits for it is woken as well."""

    def __init__(self, candidate: Candidate, wake: Callable[[], None]) -> None:
        self._candidate = candidate
        self._wake = wake

    def stop(self) -> None:
        """Drain it."""
        self._candidate.drain()
        self._wake()

    def hurry(self) -> None:
        """Cancel its function, where that can be done."""
        self._candidate.hurry()
        self._wake()


def check_grace(grace: Any) -> float:
    """Seconds that a function is given to return."""
    return seconds("grace", grace, low=0.0, high=LONGEST, allowed="0 or more seconds")
