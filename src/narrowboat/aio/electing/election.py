"""Elections in the user's hands: `Election` for a name, `Term` for the time in which this process leads; for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from narrowboat._engine.checks import flag
from narrowboat._engine.holdable import AsyncOnly
from narrowboat._engine.signals import Signals
from narrowboat._locks.core import LockCore
from narrowboat._locks.election import Ending, wait_over
from narrowboat._locks.terms import check_timeout
from narrowboat.aio.electing.seat import Seat
from narrowboat.aio.locking import Held, Lock
from narrowboat.contract.locks import Grant, Holder
from narrowboat.electing.base import BaseElection, Stoppable, check_grace
from narrowboat.electing.candidate import check_function, until_ended
from narrowboat.locking import Seconds


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


class Election(BaseElection, AsyncOnly):
    """A name for which processes stand; safe to share between tasks. Get it from `locks.elect`."""

    _LOCK = TermLock
    _SEAT = Seat

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
        async with lock as term:
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
        length = check_grace(grace)
        with_signals = flag("signals", signals)
        runtime = self._locks._runtime
        signal = runtime.signal()
        candidate = self._candidate(function)
        told = Stoppable(candidate, signal.set)
        self._running.add(candidate)
        try:
            with Signals(told if with_signals else None):
                candidate.start(lambda error: signal.set())
                await until_ended(candidate, runtime, signal, length)
        except BaseException as error:  # whoever waits is torn away, and the function runs on
            told.stop()
            told.hurry()
            if isinstance(error, asyncio.CancelledError):
                await until_ended(candidate, runtime, signal, 0.0)  # its cleanup is within the term, and before we return
            raise
        finally:
            self._running.discard(candidate)

    async def leader(self) -> Holder | None:
        """Who leads now, with its label and token; None while nobody does. Asks the backend; old at once."""
        found: list[Holder] = await self._locks.holders(self.name)
        return next(iter(found), None)
