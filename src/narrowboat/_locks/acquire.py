"""The loop that waits for a lock: once for both faces.

It awaits nothing but the runtime's `call` and `wait` (see `_engine/runtime.py`), so that the sync face runs it without
suspending. Every way out of an acquire without a grant withdraws its owner, whatever the reason: time-out, error,
cancellation, KeyboardInterrupt. A grant that arrives for a caller that has left is withdrawn as well. Where the backend
does not answer in time, nobody waits for that: the core goes on trying by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

from narrowboat._engine.backoff import exponential
from narrowboat._engine.exchange import Call
from narrowboat._engine.later_events import events
from narrowboat._engine.runtime import Runtime
from narrowboat._locks.core import LockCore
from narrowboat._locks.line import Lines
from narrowboat._locks.possession import RELEASED, Possession
from narrowboat._locks.terms import Terms
from narrowboat.contract.locks import Busy, Grant, Request
from narrowboat.errors import AlreadyHeld, Closed, LeaseLost, LockTimeout, NarrowboatError, Reason

H = TypeVar("H", bound=Possession)

#: Seconds before an attempt of unknown outcome is repeated, at first and at most.
RETRY, RETRY_MAX = 0.01, 0.5


class Acquisition(Generic[H]):
    """One acquire under way: its owner, its place in the lane, and how to undo it from wherever it is left."""

    __slots__ = (
        "__weakref__",
        "call",
        "core",
        "held",
        "left",
        "make",
        "nested",
        "quick",
        "request",
        "runtime",
        "signal",
        "terms",
        "timeout",
    )

    def __init__(
        self,
        core: LockCore,
        runtime: Runtime,
        terms: Terms,
        timeout: float | None,
        make: Callable[[LockCore, Grant, float, bool, object], H],
    ) -> None:
        self.core = core
        self.runtime = runtime
        self.terms = terms
        self.timeout = timeout
        self.make = make
        self.signal = runtime.signal()
        wait = timeout is None or timeout > 0
        owner = core.new_owner()  # made once for each acquire: what makes a repeated attempt harmless
        ttl = max(terms.ttl, terms.at_least)  # so that a name whose holder is killed at once stays taken
        self.request = Request(terms.name, owner, ttl, terms.mode, terms.limit, wait, self.signal.set, terms.label)
        self.call: Call | None = None
        self.held: H | None = None
        self.nested = False
        self.left = False  # undone: there is nothing left to abandon
        self.quick = True  # the last attempt ended soon, so one more call ends in time

    async def run(self, *, trying: bool = False) -> H | None:
        """The possession; None only for a try that found it busy. Raises `LockTimeout` otherwise."""
        core = self.core
        core.check_open()
        caller = self.runtime.caller()
        begun = core.clock()
        error: BaseException | None = None
        try:
            if core.holders.held and self._nest(caller, trying):
                return self.held
            core.waiting.add(self)
            core.check_open()  # again: a close that has not seen us waits for nobody
            await self._loop(caller, begun, trying)
            if core.listeners:
                self._tell(begun)
            return self.held
        except Exception as failure:
            error = failure
            await self.give_back()
            raise
        except BaseException as failure:
            error = failure
            self.abandon()
            raise
        finally:
            core.waiting.discard(self)  # first: it is what keeps us alive, and a line passes over who is not
            if core.lines is not None:
                core.lines.leave(self.terms.name, self)
            if core.closed:
                core.left()
            if error is not None and core.listeners:
                waited = core.clock() - begun
                events.emit(core.listeners, events.NotAcquired(core.backend, self.terms.name, waited, error))
            error = None  # its traceback leads to this frame: the two would keep each other until the collector comes

    def _nest(self, caller: object, trying: bool) -> bool:
        """Whether it ends here: this caller holds the name already, and nests in it, or merely tries and cannot."""
        try:
            nested = self.core.holders.find_reentrant(self.terms, caller)
        except AlreadyHeld:
            if trying:
                return True
            raise
        if nested is None:
            return False
        nested._nest(self)
        return True

    async def _loop(self, caller: object, begun: float, trying: bool) -> None:
        core, runtime, clock = self.core, self.runtime, self.core.clock
        deadline = math.inf if self.timeout is None else begun + self.timeout
        answered: float | None = None  # when the backend last gave a good answer
        failures = 0
        sent = begun
        if core.lines is not None and self.request.wait:
            await self._stand_in_line(core.lines, deadline)
            sent = clock()
        try:
            while True:
                call = self.call = Call(core.ATTEMPT, (self.request,), late=self._withdraw_late)
                (answer,) = await runtime.call(core.claims, call)
                call.late = None  # it is done; the possession shall be part of no cycle, so that dropping it ends it at once
                call.results = []  # an error leads to frames that know this call
                if isinstance(answer, tuple) and not isinstance(answer, Busy):
                    self._granted(answer[0], answer[1], caller)
                    return
                now = clock()
                self.quick = core.in_time(sent)
                if isinstance(answer, Busy):
                    answered, failures = now, 0
                    if trying:
                        return
                    again = now + answer.retry_after
                else:
                    failures += 1
                    if not _worth_repeating(answer, failures, answered, now, core.timeout):
                        raise answer
                    again = now + exponential(failures + 1, RETRY, RETRY_MAX, core.random)
                self._check_open()
                if now >= deadline:
                    if failures == 1 and core.in_time(max(begun, deadline)):
                        sent = now
                        continue  # a lost reply is no answer: a single try may have won, and asking again is harmless
                    if answered is None:
                        raise answer
                    self._time_out(answer)
                woken = await runtime.wait(self.signal, min(deadline, again))
                self._check_open()
                sent = clock()
                if not woken and sent >= deadline:
                    self._time_out(answer)
        finally:
            answer = None  # an error's traceback leads to this frame

    def _check_open(self) -> None:
        if self.core.closed:
            raise Closed(f"lock {self.terms.name!r}: closed while waiting", backend=self.core.backend)

    async def _stand_in_line(self, lines: Lines, deadline: float) -> None:
        """Until nobody else of this process contends for the name: nothing is sent before."""
        core = self.core
        while not lines.is_first(self.terms.name, self):
            now = core.clock()
            if now >= deadline:
                self._time_out(None)
            await self.runtime.wait(self.signal, min(deadline, now + lines.PATIENCE))
            self._check_open()

    def in_line(self) -> bool:
        """Whether this acquire is under way: the first thing that its end does is to say that it is not."""
        return self in self.core.waiting

    def next_turn(self) -> None:
        """Look again: whoever stood in line before has gone."""
        self.signal.set()

    def _granted(self, sent: float, grant: Grant, caller: object) -> None:
        core = self.core
        held = self.make(core, grant, sent, self.terms.renew, caller)
        if self.terms.at_least:  # from now: the backend has granted it before
            held._keep_taken(self.terms.at_least, self.terms.ttl, sent)
        if core.clock() >= held._deadline:
            raise LeaseLost(
                f"lock {grant.name!r}: the grant took longer to arrive than its lease of {grant.ttl:g} s, so it was undone; "
                "take a longer ttl, or find out why the backend is this slow",
                name=grant.name,
                reason=Reason.EXPIRED,
                token=grant.token,
                backend=core.backend,
            )
        self.held = held
        core.holders.register(held)
        core.renewal.keep(held)
        if core.closed:  # close() may have looked for possessions just before this one was kept
            raise Closed(f"lock {grant.name!r}: closed while waiting", backend=core.backend)

    def _time_out(self, answer: object) -> None:
        after = f"{self.timeout:g} s" if self.timeout else "one try"
        cause = answer if isinstance(answer, Exception) else None
        raise LockTimeout(
            f"lock {self.terms.name!r}: still busy after {after}; nothing is held and nothing waits. "
            "Wait longer, or see who holds it with holders()",
            name=self.terms.name,
            backend=self.core.backend,
        ) from cause

    def _tell(self, begun: float) -> None:
        core, held = self.core, self.held
        waited = core.clock() - begun
        if held is None:
            events.emit(core.listeners, events.NotAcquired(core.backend, self.terms.name, waited, None))
        else:
            events.emit(core.listeners, events.Acquired(core.backend, held.name, held.token, waited))

    # -- leaving without a grant ----------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The caller goes, from any point: afterwards the owner neither holds nor waits. Idempotent; never suspends.

        Also after a grant: a KeyboardInterrupt can strike between the grant and the caller's own variable.
        """
        if self._left():
            return
        if self.call is not None and self.core.claims.leave(self.call):
            self.runtime.undo(self.core.releases, self.core.WITHDRAW, (self.request,))

    async def give_back(self) -> None:
        """The same for an error that leaves time: waited for, so that nothing is left when the caller sees the error.

        Not where the backend is slow to answer: the caller would wait for one more operation timeout, and needs no answer.
        """
        if self.left:
            return
        if self.nested or not self.quick:
            if not self._left() and self.call is not None:
                self.core.withdraw_later(self.request)
            return
        if self.call is None:
            return
        self._let_go()
        answers = await self.runtime.call(self.core.releases, Call(self.core.WITHDRAW, (self.request,)))
        answers.clear()  # the traceback of an error leads to the frames that have the call: they would keep each other
        self.left = True

    def _left(self) -> bool:
        """Whether there is nothing to withdraw: it was undone before, or was only nested in what the caller holds."""
        if self.left:
            return True
        self.left = True
        if self.nested and self.held is not None:
            self.held._step_out(self)
            return True
        self._let_go()
        return False

    def _let_go(self) -> None:
        if self.held is not None:
            self.held._end(RELEASED)

    def _withdraw_late(self, call: Call) -> None:
        self.core.withdraw_later(self.request)


def _worth_repeating(answer: object, failures: int, answered: float | None, now: float, timeout: float) -> bool:
    """Whether an attempt that met an error is made again.

    Repeating is harmless (the owner id is the key), so a lost reply is never the caller's problem. But who never had an
    answer learns after the second failure that the backend is down, not after a whole operation timeout more.
    """
    if not isinstance(answer, NarrowboatError) or not answer.retryable:
        return False
    return failures < 2 if answered is None else now - answered < timeout
