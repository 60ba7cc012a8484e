"""Elections in the user's hands: `Election` for a name, `Term` for the time in which this process leads; for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

from narrowboat._engine.checks import flag, seconds
from narrowboat._engine.holdable import AsyncOnly
from narrowboat._engine.signals import Signals
from narrowboat._locks.core import LockCore
from narrowboat._locks.election import Candidacy, Ending, wait_over
from narrowboat._locks.terms import Terms, check_timeout
from narrowboat.aio.electing.seat import Seat
from narrowboat.aio.locking import Held, Lock, Locks
from narrowboat.contract.locks import Grant, Holder
from narrowboat.electing.candidate import Candidate, check_callback, check_function, until_ended
from narrowboat.locking import Seconds

#: Seconds of the longest grace time.
LONGEST = 10 * 365 * 86400.0


class Term(Held):
    """That this process leads: a `Held`, which also tells when its work is to end.

    `token` is the fencing token: hand it to what the leader writes, and let that refuse a smaller one.
    """

    __slots__ = ("_ending",)

    def __init__(self, core: LockCore, grant: Grant, sent: float, *, renew: bool, caller: object) -> None:
        super().__init__(core, grant, sent, renew=renew, caller=caller)
        self._ending = Ending()

    @property
    def over(self) -> bool:
        """Whether the work of this term is to end: it is lost or released, or this process was told to stop."""
        return self._ending.over(self)

    async def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until the work of this term is to end: True at once when it is; False after `timeout` seconds.

        It is the pause between two steps of a leader's work: `while not await term.wait(1): await step(term.token)`.
        """
        return await wait_over(self._core, self._runtime, self, self._ending, check_timeout(timeout))


class TermLock(Lock):
    """The lock of an election."""

    _holds = Term


class Election(AsyncOnly):
    """A name for which processes stand; safe to share between tasks. Get it from `locks.elect`."""

    def __init__(
        self,
        locks: Locks,
        name: str,
        ttl: Seconds,
        renew: bool,
        label: str | None,
        on_elected: Callable[[Term], object] | None,
        on_lost: Callable[[Term], object] | None,
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

    @contextlib.asynccontextmanager
    async def term(self, timeout: Seconds | None = None) -> AsyncIterator[Term]:
        """Wait until this process is elected, and lead within the `async with`; leaving it ends the term.

        Args:
            timeout: seconds; None waits for ever, 0 tries once.

        Raises:
            LockTimeout: another process leads still; this one does not stand any more.
            LeaseLost: at the end, the term was lost meanwhile.
            Unavailable: as for `Lock.acquire`.
        """
        lock = self._lock()
        lock._timeout = check_timeout(timeout)
        async with lock as held:
            term = cast(Term, held)
            self._tell(term)
            yield term

    async def run(
        self, function: Callable[[Term], Coroutine[Any, Any, object]], *, grace: Seconds = 30, signals: bool = True
    ) -> None:
        """Call `function(term)` whenever this process is elected, until stopped: by `stop()`, SIGTERM or Ctrl-C.

        A function that returns ends its term, and the process stands again after a second. One that raises is logged, and the
        pause grows with each failure in a row, up to a minute. Its task is cancelled when the term is lost, and the process
        stands again at once.

        Args:
            function: a coroutine function of a `Term`; it runs in a task of its own.
            grace: seconds that it is given to return at the end, before it is cancelled; `term.over` is true then.
            signals: end on SIGTERM and SIGINT, as `queue.run`.

        Raises:
            NarrowboatError: what cannot be tried again, such as `Closed` or `AccessDenied`; no term is held.
        """
        check_function(self.name, function, coroutine=True)
        length = seconds("grace", grace, low=0.0, high=LONGEST, allowed="0 or more seconds")
        with_signals = flag("signals", signals)
        runtime = self._locks._runtime
        signal = runtime.signal()
        candidate = self._candidate(function)
        told = _Stoppable(candidate, signal.set)
        self._running.add(candidate)
        try:
            with Signals(told if with_signals else None):
                candidate.start(lambda error: signal.set())
                await until_ended(candidate, runtime, signal, length)
        except asyncio.CancelledError:
            told.stop()
            told.hurry()
            await until_ended(candidate, runtime, signal, 0.0)  # its cleanup is within the term, and before we return
            raise
        except BaseException:
            told.stop()
            told.hurry()
            raise
        finally:
            self._running.discard(candidate)

    def stop(self) -> None:
        """End every `run` of this object, as SIGTERM does: the function is asked to return. From any thread."""
        for candidate in tuple(self._running):
            candidate.drain()

    async def leader(self) -> Holder | None:
        """Who leads now, with its label and token; None while nobody does. Asks the backend; old at once."""
        return next(iter(await self._locks.holders(self.name)), None)

    def _lock(self) -> TermLock:
        return TermLock(self._locks._core, self._locks._runtime, self._terms)

    def _candidate(self, function: Callable[[Term], Coroutine[Any, Any, object]]) -> Candidate:
        core = self._locks._core
        return Candidate(self.name, function, Seat(self._locks._runtime), self._stand, self._tell, core.clock, core.random)

    def _stand(self) -> Candidacy[Any]:
        return Candidacy(self._locks._core, self._locks._runtime, self._terms, None, self._lock()._make)

    def _tell(self, term: Term) -> None:
        if self._on_lost is not None:
            term.on_lost(cast("Callable[[Held], object]", self._on_lost))
        if self._on_elected is not None:
            self._on_elected(term)

    def __repr__(self) -> str:
        return f"<Election {self.name!r} ttl={self._terms.ttl:g}>"


class _Stoppable:
    """A candidate, as signals see it: who waits for it is woken as well."""

    def __init__(self, candidate: Candidate, wake: Callable[[], None]) -> None:
        self._candidate = candidate
        self._wake = wake

    def stop(self) -> None:
        self._candidate.drain()
        self._wake()

    def hurry(self) -> None:
        self._candidate.hurry()
        self._wake()
