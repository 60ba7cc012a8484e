"""A candidate: it stands for election, calls a function in each term, and stands again. Written once for both faces.

What differs between threads and tasks is the `Seat`; nothing here waits but through it. It does not decide who is
elected: the lock does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from narrowboat._engine.backoff import after_error, exponential
from narrowboat._engine.later import kind
from narrowboat._engine.log import log
from narrowboat._locks.election import LOOK, Candidacy, Withdrawn
from narrowboat.clock import Clock
from narrowboat.errors import InvalidArgument, LeaseLost, NarrowboatError

#: Seconds that a candidate stands aside after its function returned. Others get a turn, and a function that returns at once
#: does not take the lock thousands of times a second.
REST = 1.0
#: The pause after a function that raised, at first and at most. Shorter hammers what is down, longer leaves the work undone.
PAUSE_BASE, PAUSE_CAP = 1.0, 60.0
#: Seconds after the loss of a term in which its function is to return. After that the log and `health()` say that it hangs.
HANGS = 5.0
#: Seconds beyond the grace time for the release of the lock.
CLOSING = 5.0
#: Seconds that a function in a thread has to return in any case, also without a grace time or after a second signal.
LEAVING = 0.5

#: Why it stands aside, in the log.
AWAY = "the backend does not answer, and is asked again"
LATE = "its grant came too late, because this process or the backend stood still, and it stands again"

Phase = Literal["new", "standby", "leading", "paused", "unavailable", "ended", "failed"]


def pause(error: Exception | None, *, lost: bool, failures: int, random: Callable[[], float]) -> float:
    """Seconds before the candidate stands again: after `failures` terms in a row that ended with an error.

    >>> pause(None, lost=True, failures=0, random=lambda: 1.0), pause(None, lost=False, failures=0, random=lambda: 1.0)
    (0.0, 1.0)
    >>> [pause(OSError(), lost=False, failures=number, random=lambda: 1.0) for number in (1, 2, 3, 99)]
    [1.0, 2.0, 4.0, 60.0]
    """
    if error is not None:
        return exponential(failures, PAUSE_BASE, PAUSE_CAP, random)
    return 0.0 if lost else REST


class Seat(Protocol):
    """What threads and tasks do differently for one candidate."""

    COROUTINES: bool  #: what functions are, so whether they can be cancelled

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """Run `work` in a thread or task of its own, and tell how it ended."""
        ...

    async def elect(self, candidacy: Candidacy[Any]) -> Any:
        """The term, once it is ours."""
        ...

    async def call(self, function: Callable[[Any], Any], term: Any) -> None:
        """Call the function; where it can be cancelled, it is when the term is lost."""
        ...

    async def release(self, term: Any) -> None:
        """End the term."""
        ...

    async def wait(self, until: float) -> None:
        """Until the clock says so, or until woken."""
        ...

    def wake(self) -> None:
        """End `wait`. From a signal handler."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call it after so many real seconds; gives what cancels that."""
        ...

    def hurry(self) -> None:
        """Cancel what can be cancelled."""
        ...


class Candidate:
    """One function that stands for one election. `drain` and `hurry` may come from signal handlers: they take no lock."""

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        seat: Seat,
        stand: Callable[[], Candidacy[Any]],
        told: Callable[[Any], None],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.name = name
        self.phase: Phase = "new"
        self.terms = self.failed = self.failures = 0
        self.resumes = math.inf  #: the clock's time at which it stands again
        self.error: str | None = None
        self.raised: BaseException | None = None
        self.hung = False
        self.stopping = self.hurried = False
        self._asked = math.inf  # the clock's time at which it was told to stop
        self._function = function
        self._seat = seat
        self._stand = stand
        self._told = told
        self.clock = clock
        self._random = random
        self._candidacy: Candidacy[Any] | None = None
        self._term: Any = None

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Stand for election in a thread or task of its own."""

        def finished(error: BaseException | None) -> None:
            self.phase = "ended" if error is None else "failed"
            self.raised = error
            ended(error)

        self.phase = "standby"
        self._seat.spawn(self._work(), f"narrowboat-term-{self.name}", finished)

    def drain(self) -> None:
        """Stand no more, and ask the function to return. May be repeated."""
        self._asked = min(self._asked, self.clock())
        self.stopping = True
        candidacy, term = self._candidacy, self._term
        if candidacy is not None:
            candidacy.withdraw()
        if term is not None:
            term._ending.ask()
        self._seat.wake()

    def hurry(self) -> None:
        """Cancel the function, where that can be done."""
        self.hurried = True
        self._seat.hurry()

    @property
    def stuck(self) -> bool:
        """Whether nobody is to wait for it any more: it was hurried, and its function is in a thread, which nothing can end."""
        asked_enough = self.hurried and self.clock() >= self._asked + LEAVING
        return asked_enough and self._term is not None and not self._seat.COROUTINES

    async def _work(self) -> None:
        absences = 0
        while not self.stopping:
            try:
                term = await self._elected()
            except Withdrawn:
                return
            except NarrowboatError as error:
                late = isinstance(error, LeaseLost)  # before it was handed over: nobody led by it
                if not error.retryable and not late and not self.stopping:
                    raise
                absences += 1
                await self._stay_away(error, absences, LATE if late else AWAY)
            else:
                absences, self.error = 0, None
                await self._serve(term)

    async def _elected(self) -> Any:
        self.phase = "standby"
        candidacy = self._candidacy = self._stand()
        try:
            if self.stopping:  # it was told so before there was anything to withdraw
                candidacy.withdraw()
            return await self._seat.elect(candidacy)
        finally:
            self._candidacy = None

    async def _stay_away(self, error: NarrowboatError, absences: int, what: str) -> None:
        if absences == 1:
            log("WARNING", f"election %r: {what}: %s", self.name, error)
        self.phase, self.error = "unavailable", f"{type(error).__name__}: {error}"
        await self._rest(after_error(absences, self._random))

    async def _serve(self, term: Any) -> None:
        self.phase, self._term = "leading", term
        self.terms += 1
        if self.stopping:
            term._ending.ask()
        cancel: list[Callable[[], None]] = []
        term.on_lost(lambda lost: cancel.append(self._seat.later(HANGS, lambda: self._hangs(lost))))
        begun, error = self.clock(), None
        try:
            self._told(term)
            await self._seat.call(self._function, term)
        except Exception as raised:
            error = raised
        finally:
            lost, self._term = term.lost, None
            for each in cancel:
                each()
            self.hung = False
            await self._seat.release(term)
        if lost:
            log("WARNING", "election %r: the term with token %d was lost: %s", self.name, term.token, term.reason.value)
        if lost and isinstance(error, LeaseLost):
            error = None  # it was told so, and has ended by that
        self._count(error, self.clock() - begun)
        if not self.stopping:
            self.phase = "paused"
            await self._rest(pause(error, lost=lost, failures=self.failures, random=self._random))

    def _count(self, error: Exception | None, lasted: float) -> None:
        if error is None:
            self.failures = 0
            return
        self.failed += 1
        self.failures = 1 if lasted >= PAUSE_CAP else self.failures + 1
        self.error = f"{type(error).__name__}: {error}"
        log("ERROR", "election %r: its function or a callback raised, and has another term", self.name, error=error)

    def _hangs(self, term: Any) -> None:
        if self._term is term:
            self.hung = True
            log("ERROR", "election %r: its term is lost for %g s, and its function has not returned", self.name, HANGS)

    async def _rest(self, seconds: float) -> None:
        self.resumes = self.clock() + seconds
        while not self.stopping and self.clock() < self.resumes:
            await self._seat.wait(self.resumes)
        self.resumes = math.inf


async def until_ended(candidate: Candidate, runtime: Any, signal: Any, grace: float) -> None:
    """For `run`: until the candidate has ended, or the grace time after it was told to; raises what ended it."""
    clock = runtime.clock
    ends = math.inf
    while candidate.phase not in ("ended", "failed") and clock() < ends + CLOSING and not candidate.stuck:
        await runtime.wait(signal, clock() + LOOK)
        if candidate.stopping:
            ends = min(ends, clock() + (0.0 if candidate.hurried else grace))
            if clock() >= ends:
                candidate.hurry()
    if candidate.phase not in ("ended", "failed"):
        log("ERROR", "election %r: its function has not returned within the grace time", candidate.name)
    if candidate.raised is not None:
        raise candidate.raised


def check_function(name: str, function: object, *, coroutine: bool) -> None:
    """A plain function on the sync face, a coroutine function on the other."""
    if not callable(function):
        raise InvalidArgument(f"election {name!r}: {function!r} cannot be called; expected a function of a term")
    found = kind(function)
    if found == "generator":
        raise InvalidArgument(f"election {name!r}: {function!r} has a yield in it, so a call of it would run none of it")
    if (found == "coroutine") is not coroutine:
        raise InvalidArgument(
            f"election {name!r}: {function!r} is a plain function; write async def, or take narrowboat.locks"
            if coroutine
            else f"election {name!r}: {function!r} is a coroutine function; take narrowboat.aio for it"
        )


def check_callback(what: str, callback: object) -> None:
    """A plain function, or None."""
    if callback is not None and (not callable(callback) or kind(callback) != "plain"):
        raise InvalidArgument(f"{what}={callback!r}: expected a plain function of a term, or None")
