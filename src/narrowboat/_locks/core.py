"""What both lock faces stand on: the driver with its three lanes, the renewal engine, the table of holders, and their end.

It makes driver calls of what the lanes carry, and posts those for which nobody waits. It waits for nothing: the loops that do
are in `acquire.py` and `release.py`, and they import this file, never the other way.
"""

from __future__ import annotations

import itertools
import os
import random as random_module
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from narrowboat._engine import checks
from narrowboat._engine.between import lane
from narrowboat._engine.driver import Driver
from narrowboat._engine.exchange import AT_ONCE, Call, Op
from narrowboat._engine.forks import watch_forks
from narrowboat._engine.later_events import checked, events
from narrowboat._engine.reach import Reach
from narrowboat._engine.target import Target
from narrowboat._locks.holders import Holders
from narrowboat._locks.late_withdrawals import LateWithdrawal
from narrowboat._locks.line import Lines
from narrowboat._locks.possession import Left, Possession
from narrowboat._locks.renewal import Renewal
from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, WaitOrder
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Holder, LockProvider, Released, Request
from narrowboat.errors import Closed, InvalidArgument, LeaseLost, NarrowboatError, Reason, Unsupported
from narrowboat.registry import lock_backend


class LockCore:
    """See the module's text. Its attributes are for the files of this package and the two faces."""

    def __init__(
        self,
        url: str | None,
        require: str | Mapping[str, object] | None,
        clock: Clock | None,
        random: Callable[[], float] | None,
        listeners: Sequence[events.Listener],
        wrap: Callable[[LockProvider], LockProvider] | None,
        options: Mapping[str, object],
    ) -> None:
        target: Target[LockProvider] = Target(
            lock_backend, "NARROWBOAT_LOCKS_URL", url, require, clock, wrap, options, doubt=_doubts(weakref.ref(self))
        )
        self.url = target.url
        self.backend = target.url.scheme
        self.capabilities: LockCapabilities = target.capabilities
        self.margin = self.capabilities.margin
        self.timeout = target.timeout
        self.clock = target.clock
        self.random = random if random is not None else random_module.random
        self.listeners = checked(listeners)
        self.driver: Driver[LockProvider] = Driver(target)
        self.reach = reach = Reach(self, "locks")
        self.ATTEMPT = Op("attempt", self._attempt, repeatable=True, distinct=_name_of, reach=reach)
        # Where one session carries them all, a failed renewal is nobody's in particular: one by one it fails as well.
        self.RENEW = Op("renew", self._renew, repeatable=self.capabilities.expiry is Expiry.LEASE, reach=reach)
        self.RELEASE = Op("release", self._release, repeatable=True, denies=_is_not_held, reach=reach)
        self.LEAVE = Op("leave", self._leave, repeatable=True, denies=_is_not_held, reach=reach)
        self.WITHDRAW = Op("withdraw", self._withdraw, repeatable=True, reach=reach, failed=self._not_withdrawn)
        again = self._not_withdrawn_again
        self.RETRY_WITHDRAW = Op("withdraw", self._withdraw_again, repeatable=False, last=True, reach=reach, failed=again)
        self.CALL = Op("call", self._call, repeatable=False, reach=reach)
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        # 128 random bits for this face in this process (made again in a forked child) and a number: as unique as random
        # bits for each acquire, without a system call for each.
        self._owner = os.urandom(16).hex()
        self._owners = itertools.count()
        self.label = f"{os.uname().nodename}:{os.getpid()}" if hasattr(os, "uname") else str(os.getpid())
        self.mutex = threading.RLock()  # a signal handler may ask `held.lost` while its own thread has it
        remote = self.capabilities.scope is Scope.NETWORK
        self.claims = lane(self.clock, f"narrowboat-{self.backend}-claims", self.capabilities.concurrency, remote=remote)
        self.releases = lane(self.clock, f"narrowboat-{self.backend}-releases", self.capabilities.concurrency, remote=remote)
        # Who only looks may look for long, at everything that is held: renewals and releases must not stand behind that.
        self.looks = lane(self.clock, f"narrowboat-{self.backend}-looks", self.capabilities.concurrency, remote=remote)
        self.renewal = Renewal(self)
        # Turns taken here, where the backend does not queue fairly; a FIFO backend gets every waiter.
        self.lines = Lines() if self.capabilities.order is WaitOrder.ANY else None
        self.closed = False
        self.waiting: set[Any] = set()  # acquisitions under way, to be woken by close
        self._idle = threading.Event()
        self.holders = Holders(self.backend)
        self.forget = self.holders.unregister

    # -- the driver, as the lanes call it -------------------------------------------------------------------------

    def _attempt(self, requests: Sequence[Request]) -> list[Any]:
        driver = self.driver.get()
        sent = self.clock()
        return [(sent, answer) if isinstance(answer, Grant) else answer for answer in driver.attempt(requests)]

    def _renew(self, grants: Sequence[Grant]) -> list[Any]:
        driver = self.driver.get()
        sent = self.clock()
        return [(sent, answer) if isinstance(answer, Grant) else answer for answer in driver.renew(grants)]

    def _release(self, grants: Sequence[Grant]) -> list[Any]:
        return list(self.driver.get().release(grants))

    def _leave(self, left: Sequence[Left]) -> list[Any]:
        """Let each lease end when its minimum hold is over, or so soon that nobody minds."""
        driver = self.driver.get()
        now, shortest = self.clock(), self.capabilities.ttl_min
        answers = driver.renew([grant._replace(ttl=max(until - now, shortest)) for grant, until in left])
        return [_what_became_of(answer) for answer in answers]

    def _withdraw(self, requests: Sequence[Request]) -> list[Any]:
        return list(self.driver.get().withdraw(requests))

    def _withdraw_again(self, late: Sequence[LateWithdrawal]) -> list[Any]:
        return self._withdraw([each.request for each in late])

    def _not_withdrawn(self, requests: Sequence[Request], answers: Sequence[Any]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if self._to_try_again(answer):
                self.renewal.late.add(request)

    def _not_withdrawn_again(self, late: Sequence[LateWithdrawal], answers: Sequence[Any]) -> None:
        for each, answer in zip(late, answers, strict=True):
            if self._to_try_again(answer):
                self.renewal.late.add(each.request, each)

    def _to_try_again(self, answer: Any) -> bool:
        # What a driver raises that is no error of ours may pass as well.
        return isinstance(answer, Exception) and getattr(answer, "retryable", True) and not self.closed

    def _call(self, calls: Sequence[Callable[[LockProvider], Any]]) -> list[Any]:
        return [call(self.driver.get()) for call in calls]

    def withdraw_again(self, late: Sequence[LateWithdrawal]) -> None:
        """One more try at withdraws that failed, all in one exchange, behind everything that somebody waits for."""
        self.releases.post(self.RETRY_WITHDRAW, late)

    def withdraw_later(self, request: Request) -> None:
        """Withdraw it, now or as soon as the backend answers; nobody waits for that. From any thread."""
        self.releases.post(self.WITHDRAW, (request,))

    def ending(self, possession: Possession) -> tuple[Op, tuple[Any]]:
        """The call by which its holder is done with it: it is freed, or left until its minimum hold is over."""
        left = possession._left()
        return (self.RELEASE, (possession._grant,)) if left is None else (self.LEAVE, (left,))

    def release_later(self, possession: Possession) -> None:
        """Release it, now or as soon as the backend answers; nobody waits for that. From any thread."""
        op, items = self.ending(possession)
        grant, until = possession._grant, possession._taken_until

        def look(call: Call) -> None:
            if getattr(call.results[0], "retryable", False):
                self.renewal.free(grant, until)

        self.releases.submit([Call(op, items, sink=look)])

    def lapse(self, possession: Possession) -> None:
        """Its deadline has passed, and somebody looked before the renewal did."""
        self.renewal.lapse(possession)

    def left_behind(self, possession: Possession) -> None:
        """It is to be released, for nobody who waits. At any moment; never blocks."""
        self.renewal.left_behind(possession)

    def call_back(self, callback: Callable[[], object]) -> None:
        """Run a user's callback on a thread of its own."""
        self.renewal.call_back(callback)

    def in_time(self, begun: float) -> bool:
        """Whether a call that is made now still ends about one operation timeout after `begun`, whatever the backend does."""
        return self.clock() - begun < self.timeout * AT_ONCE

    def new_owner(self) -> str:
        """An owner id that no other acquire, of any process, has or will have."""
        return f"{self._owner}-{next(self._owners):x}"

    @property
    def opened(self) -> bool:
        """Whether it has a connection or a thread."""
        return self.driver.opened or self.claims.opened or self.releases.opened or self.looks.opened

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self.closed:
            raise Closed(f"{self.backend} locks: used after close()", backend=self.backend)

    # -- the end --------------------------------------------------------------------------------------------------

    def begin_close(self) -> bool:
        """Refuse new calls and wake who waits. False: it was closed already."""
        with self.mutex:
            if self.closed:
                return False
            self.closed = True
        for acquisition in tuple(self.waiting):
            acquisition.signal.set()
        self.left()
        return True

    def left(self) -> None:
        """An acquire has ended. Once the last one has, a close that waits for them goes on."""
        if self.closed and not self.waiting:
            self._idle.set()

    def finish_close(self) -> None:
        """Release what is held, stop the lanes and threads, close the driver. One operation timeout and a fifth at most."""
        begun = self.clock()
        self._idle.wait(self.timeout)  # who waited withdraws through the lanes, so they stay open until then
        self.renewal.stop()
        held = [p for p in self.renewal.possessions() if self.renewal.lose(p, Reason.CLOSED)]
        ends: dict[Op, list[Any]] = {}
        for possession in held:
            op, items = self.ending(possession)
            ends.setdefault(op, []).extend(items)
        for op, these in ends.items():
            self.releases.post(op, these)
        for each in (self.claims, self.releases, self.looks):
            each.close(max(0.0, begun + self.timeout - self.clock()))
        self.renewal.close(1.0)
        self.driver.close(self.clock() - begun)
        self.reach.close()

    def forked(self) -> None:
        """Called in a forked child: nothing that the parent holds is ours."""
        possessions = self.renewal.possessions_in_child()
        closed = self.closed
        self._fresh()
        self.closed = closed
        self.driver.forget()
        self.reach.forget()
        for possession in possessions:
            self.renewal.lose(possession, Reason.FORKED)

    # -- the plain calls ------------------------------------------------------------------------------------------

    def ask_holders(self, name: str | None) -> Callable[[LockProvider], list[Holder]]:
        """Checked before it enters the lane."""
        self.check_open()
        if self.capabilities.holders is Support.ABSENT:
            raise Unsupported(f"{self.backend} cannot tell who holds a lock", backend=self.backend)
        if name is not None:
            checks.text("lock name", name)
        return lambda driver: driver.holders(name)

    def ask_evict(self, name: str, token: int) -> Callable[[LockProvider], bool]:
        """Checked before it enters the lane."""
        self.check_open()
        if self.capabilities.evict is Support.ABSENT:
            raise Unsupported(f"{self.backend} cannot evict a holder", backend=self.backend)
        checks.text("lock name", name)
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**63:
            raise InvalidArgument(
                f"token={token!r}: expected the fencing token that `holders` shows, an int from 0 to 2**63 - 1"
            )
        return lambda driver: driver.evict(name, token)

    def ask_ping(self) -> Callable[[LockProvider], None]:
        """Checked before it enters the lane."""
        self.check_open()
        return lambda driver: driver.ping()


def _doubts(reference: weakref.ref[LockCore]) -> Callable[[str | None], None]:
    """What a driver calls that has doubts. It keeps no core alive that everybody else has let go of."""

    def doubt(owner: str | None) -> None:
        core = reference()
        if core is not None:
            core.renewal.doubt(owner)

    return doubt


def _what_became_of(answer: Grant | NarrowboatError) -> Released | NarrowboatError:
    """The answer to a release, where a renewal has shortened the lease."""
    if isinstance(answer, LeaseLost):
        return Released.NOT_HELD
    return Released.RELEASED if isinstance(answer, Grant) else answer


def _name_of(request: Request) -> str:
    return request.name


def _is_not_held(answer: object) -> bool:
    return answer is Released.NOT_HELD
