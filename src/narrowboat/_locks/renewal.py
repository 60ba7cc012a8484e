"""The one renewal engine of a provider: a heap and one thread, one batch for all that is due.

It renews at a third of the ttl, tries again what came back unknown, and notices on its holder's own clock when a lease
has ended, whether or not a renewal is under way: renewals are submitted to the lane and never waited for here. Leases
are known by weak reference: a possession that nobody holds any more is not renewed and ends by itself. Where a session is
the lease, all that it carries is renewed at once, and what was forgotten or given up is freed.

A driver may hear of a loss before the next renewal (a watch, a session that has ended). It is not believed: what it has
doubts about is renewed at once, and the answer decides as it always does.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from narrowboat import events
from narrowboat._engine.exchange import Call
from narrowboat._engine.timer import Alarm
from narrowboat._locks.lease import HELD, RENEW_SHARE, Possession, State, Step, deadline, plan, retry_at, why_ended
from narrowboat._locks.notifier import Notifier
from narrowboat._locks.release import give_back
from narrowboat.capabilities import Expiry
from narrowboat.contract.locks import Grant, Request
from narrowboat.errors import LeaseLost, Reason

if TYPE_CHECKING:
    from narrowboat._locks.core import LockCore

#: Leases due within this share of the time to the next look are renewed together with those that are due now.
TOGETHER = 0.05


#: Seconds until a withdraw that failed is tried again, at first and at most: often enough that nobody waits long for a
#: ghost, rarely enough that a backend that is away is not kept busy with timeouts.
PAUSE, PAUSE_MAX = 0.25, 5.0


class LateWithdrawal(NamedTuple):
    """A withdraw that failed and is tried again."""

    request: Request
    when: float
    until: float  #: what it undoes has ended by itself by then
    pause: float


class Renewal:
    """Keeps the leases of one provider; see the module's text."""

    def __init__(self, core: LockCore) -> None:
        self._core = core
        self._mutex = threading.RLock()  # as the core's
        self._heap: list[tuple[float, int, int, weakref.ref[Possession]]] = []
        self._limit = 64
        self._order = itertools.count()
        self._withdrawals: dict[str, LateWithdrawal] = {}  # by owner
        self._session = core.capabilities.expiry is Expiry.SESSION
        # One session carries all its leases: renewing them together costs one exchange, however many there are.
        self._together = 1.0 if self._session else TOGETHER
        self._forgotten: deque[Grant] = deque()
        self._behind: deque[Possession] = deque()  # to be released, for nobody who waits
        self._doubts: deque[str | None] = deque()  # owners whose grants may be gone; None: any of them
        self._notifier = Notifier(f"narrowboat-{core.backend}-callbacks")
        self._alarm = Alarm(f"narrowboat-{core.backend}-renewal", core.clock, self._tick)

    def keep(self, possession: Possession) -> None:
        """From now on renew it, or only watch over its end where nobody renews it.

        A lease that is forgotten ends by itself; a session goes on for the others, so there its lock must be freed. The
        collector may strike anywhere, with any mutex held: it only leaves a note, and the next tick acts on it.
        """
        if self._session:
            possession._finalizer = weakref.finalize(possession, self._forgotten.append, possession._grant)
            possession._finalizer.atexit = False
        when = possession._renew_at if possession._renew_at is not None else possession._deadline
        self._push(possession, when)

    def doubt(self, owner: str | None) -> None:
        """A driver has heard that the grant of `owner` (None: any) may be gone: ask. From any thread; never blocks."""
        if self._heap and not self._core.closed:
            self._doubts.append(owner)
            self._alarm.ring()

    def lapse(self, possession: Possession) -> None:
        """Its deadline has passed, and somebody looked before this engine did."""
        due = self._alarm.due
        late = self._core.clock() - due if due < math.inf else 0.0
        self.lose(possession, why_ended(late, possession.ttl))

    def lose(self, possession: Possession, reason: Reason) -> bool:
        """Mark it lost, once, and tell whoever watches."""
        core = self._core
        with core.mutex:
            if possession._state not in (State.HELD, State.LEAVING):
                return False
            possession._reason = reason
            possession._state = State.LOST
            watchers, possession._watchers = possession._watchers, None
        core.forget(possession)
        if core.listeners:
            events.emit(core.listeners, events.Lost(core.backend, possession.name, possession.token, reason))
        for watcher in watchers or ():
            watcher(possession)
        if self._session and reason in (Reason.EXPIRED, Reason.PAUSED):
            self.free(possession._grant)  # we gave it up, its session did not
        return True

    def leave_behind(self, possession: Possession) -> None:
        """Release it soon: whoever had it cannot wait. From any thread, at any moment, also out of the collector's.

        It is marked by a store, and noted by what no interrupt can cut in two; no mutex is taken that this thread may have.
        """
        if possession._depth == 1:
            possession._state = State.LEAVING
        self._behind.append(possession)
        self._alarm.poke()

    def free(self, grant: Grant) -> None:
        """Make sure that nobody holds it, and go on trying for as long as its lease or its session may live."""
        request = Request(grant.name, grant.owner, grant.ttl, grant.mode, grant.limit, True, _nobody, self._core.label)
        now = self._core.clock()
        with self._mutex:
            until = now + max(request.ttl, self._core.capabilities.dead_waiter_bound)
            self._withdrawals[request.owner] = LateWithdrawal(request, now, until, PAUSE)
        self._alarm.ring()

    def renewed(self, possession: Possession, sent: float, answer: Any) -> None:
        """Take in the answer to a renewal that was sent at `sent`."""
        core = self._core
        now = core.clock()
        with core.mutex:
            possession._under_way = False
            doubted, possession._doubted = possession._doubted, False
            held = possession._state is State.HELD and now < possession._deadline
            granted = isinstance(answer, tuple)
            if held and granted:
                grant = answer[1]
                possession._grant = grant
                possession._deadline = max(possession._deadline, deadline(sent, grant.ttl, core.margin))
                if possession._renew_at is not None:
                    possession._renew_at = sent + grant.ttl * RENEW_SHARE
            elif held and possession._renew_at is not None:
                possession._renew_at = retry_at(now, possession._deadline, core.random)
            when = possession._renew_at if possession._renew_at is not None else possession._deadline
        if isinstance(answer, LeaseLost):
            if possession._state is State.HELD:  # else it is our own release that the renewal has met
                self.lose(possession, answer.reason)
        elif not held:
            self.lapse(possession)
            if granted and possession._state is State.LOST:
                core.free.post(core.RELEASE, [possession._grant])  # we gave up, the server did not: free it now
        else:
            if core.listeners:
                record = (
                    events.Renewed(core.backend, possession.name, possession.token)
                    if granted
                    else events.RenewalFailed(core.backend, possession.name, possession.token, answer)
                )
                events.emit(core.listeners, record)
            self._push(possession, when)
            if doubted:
                self.doubt(possession._grant.owner)

    def withdraw_later(self, request: Request, before: LateWithdrawal | None = None) -> None:
        """A withdraw failed (again, after `before`): try it later, until what it undoes would have ended by itself."""
        now = self._core.clock()
        if before is None:
            until = now + max(request.ttl, self._core.capabilities.dead_waiter_bound)
            late = LateWithdrawal(request, now + PAUSE, until, PAUSE)
        else:
            pause = min(2 * before.pause, PAUSE_MAX)
            late = LateWithdrawal(request, now + pause, before.until, pause)
        if now < late.until and not self._core.closed:
            with self._mutex:
                self._withdrawals[request.owner] = late
            self._alarm.ring()

    def call_back(self, callback: Callable[[], object]) -> None:
        """Run a user's callback on a thread of its own: one that blocks delays other callbacks, and nothing else."""
        self._notifier.put(callback)

    def possessions(self) -> list[Possession]:
        """All that are alive."""
        with self._mutex:
            alive = {id(p): p for p in (entry[3]() for entry in self._heap) if p is not None}
        return list(alive.values())

    def possessions_in_child(self) -> list[Possession]:
        """The same in a forked child, where the mutex may be held by a thread that does not exist."""
        return list({id(p): p for p in (entry[3]() for entry in list(self._heap)) if p is not None}.values())

    def close(self, timeout: float) -> None:
        """End both threads."""
        self._alarm.close()
        self._notifier.close(timeout)

    def _push(self, possession: Possession, when: float) -> None:
        possession._version += 1
        with self._mutex:
            heap = self._heap
            if len(heap) >= self._limit:  # drop what was released: amortised, each entry is looked at about twice
                heap[:] = [entry for entry in heap if _current(entry)]
                heapq.heapify(heap)
                self._limit = max(64, 2 * len(heap))
            entry = (when, next(self._order), possession._version, possession._ref)
            heapq.heappush(heap, entry)
            first = heap[0] is entry
        if first or self._forgotten:
            self._alarm.ring()

    def _tick(self, late: float) -> float:
        now = self._core.clock()
        doubted = self._doubted() if self._doubts else set()
        due = list(doubted)
        with self._mutex:
            heap = self._heap
            horizon = now
            while heap and heap[0][0] <= horizon:
                entry = heapq.heappop(heap)
                possession = entry[3]()
                if possession is not None and possession._version == entry[2] and possession._state is State.HELD:
                    if possession not in doubted:
                        due.append(possession)
                    horizon = now + self._together * possession.ttl
            withdrawals = [late for late in self._withdrawals.values() if late.when <= now]
            for late_one in withdrawals:
                del self._withdrawals[late_one.request.owner]
        self._act(due, doubted, now, late)
        while self._behind:
            give_back(self._core, self._behind.popleft())
        while self._forgotten:
            self.free(self._forgotten.popleft())
        if withdrawals:
            self._core.withdraw_again(withdrawals)
        with self._mutex:
            times = [heap[0][0]] if heap else []
            times += [each.when for each in self._withdrawals.values()]
        return min(times, default=math.inf)

    def _doubted(self) -> set[Possession]:
        """What is to be renewed now because the driver has doubts. What is being renewed is asked about again afterwards.

        A lease that nobody renews is left alone: asking would lengthen it. A session goes on in any case.
        """
        owners: set[str | None] = set()
        while self._doubts:
            owners.add(self._doubts.popleft())
        found = set()
        for possession in self.possessions():
            if None not in owners and possession._grant.owner not in owners:
                continue
            if possession._renew_at is None and not self._session:
                continue
            with self._core.mutex:
                if possession._under_way:
                    possession._doubted = True
                elif possession._state is State.HELD:
                    found.add(possession)
        return found

    def _act(self, due: list[Possession], doubted: set[Possession], now: float, late: float) -> None:
        renew = []
        for possession in due:
            ahead = max(now, min(possession._renew_at or math.inf, now + self._together * possession.ttl))
            step, until = plan(ahead, possession._deadline, possession._renew_at, under_way=possession._under_way)
            if step is Step.EXPIRE and now >= possession._deadline:
                self.lose(possession, why_ended(late, possession.ttl))
                continue
            if step is Step.RENEW or possession in doubted:
                possession._under_way = True
                renew.append(possession)
            self._push(possession, until)
        if renew:
            call = Call(self._core.RENEW, [possession._grant for possession in renew], sink=_Answers(self, renew))
            self._core.free.submit([call])


def _nobody() -> None:
    """The wake of a request for which nobody waits."""


class _Answers:
    """Takes a batch's answers, on the lane's thread."""

    def __init__(self, renewal: Renewal, possessions: list[Possession]) -> None:
        self._renewal = renewal
        self._possessions = possessions

    def __call__(self, call: Call) -> None:
        for possession, answer in zip(self._possessions, call.results, strict=True):
            # What nobody renews was only asked about: that lengthens nothing.
            sent = answer[0] if isinstance(answer, tuple) and possession._renew_at is not None else -math.inf
            self._renewal.renewed(possession, sent, answer)


def _current(entry: tuple[float, int, int, weakref.ref[Possession]]) -> bool:
    possession = entry[3]()
    return possession is not None and possession._version == entry[2] and possession._state is HELD
