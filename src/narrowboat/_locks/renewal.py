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
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from narrowboat._engine.between import timer
from narrowboat._engine.exchange import Call, Op
from narrowboat._engine.lane import Lane
from narrowboat._engine.later_events import events
from narrowboat._engine.log import log
from narrowboat._locks.late_withdrawals import LateWithdrawal, LateWithdrawals
from narrowboat._locks.lease import Step, plan, why_ended
from narrowboat._locks.notifier import Notifier
from narrowboat._locks.possession import HELD, LEAVING, LOST, OURS, RELEASED, Owner, Possession
from narrowboat.capabilities import Expiry, LockCapabilities
from narrowboat.clock import LoopClock
from narrowboat.contract.locks import Grant
from narrowboat.errors import LeaseLost, Reason

#: Leases due within this share of the time to the next look are renewed together with those that are due now.
TOGETHER = 0.05


class Provider(Owner, Protocol):
    """What the engine needs of the provider whose leases it keeps."""

    capabilities: LockCapabilities
    listeners: tuple[events.Listener, ...]
    label: str
    closed: bool
    releases: Lane
    RENEW: Op

    def ending(self, possession: Possession) -> tuple[Op, tuple[Any]]:
        """The call by which its holder is done with it."""
        ...

    def withdraw_again(self, late: Sequence[LateWithdrawal]) -> None:
        """One more try at withdraws that failed."""
        ...

    def release_later(self, possession: Possession) -> None:
        """Release it, for nobody who waits."""
        ...


class Renewal:
    """Keeps the leases of one provider; see the module's text."""

    def __init__(self, core: Provider) -> None:
        self._core = core
        self._mutex = threading.RLock()  # as the core's
        self._heap: list[tuple[float, int, int, weakref.ref[Possession]]] = []
        self._limit = 64
        self._order = itertools.count()
        self._session = core.capabilities.expiry is Expiry.SESSION
        # One session carries all its leases: renewing them together costs one exchange, however many there are.
        self._together = 1.0 if self._session else TOGETHER
        self._forgotten: deque[Grant] = deque()
        self._behind: deque[Possession] = deque()  # to be released, for nobody who waits
        self._doubts: deque[str | None] = deque()  # owners whose grants may be gone; None: any of them
        self._notifier = Notifier(f"narrowboat-{core.backend}-callbacks")
        self._timer = timer(core.clock, f"narrowboat-{core.backend}-renewal", self._tick)
        self.late = LateWithdrawals(core.clock, core.capabilities.dead_waiter_bound, self._timer.ring)

    def keep(self, possession: Possession) -> None:
        """From now on renew it, or only watch over its end where nobody renews it.

        A lease that is forgotten ends by itself; a session goes on for the others, so there its lock must be freed. The
        collector may strike anywhere, with any mutex held: it only leaves a note, and the next tick acts on it.
        """
        if self._session:
            possession._note_if_forgotten(self._forgotten.append)
        self._push(possession)

    def doubt(self, owner: str | None) -> None:
        """A driver has heard that the grant of `owner` (None: any) may be gone: ask. From any thread; never blocks."""
        if self._heap and not self._core.closed:
            self._doubts.append(owner)
            self._timer.ring()

    def lapse(self, possession: Possession) -> None:
        """Its deadline has passed, and somebody looked before this engine did.

        Not while it is being released: the answer to the release says what became of it.
        """
        if possession._state is not HELD:
            return
        due = self._timer.due
        late = self._core.clock() - due if due < math.inf else 0.0
        self.lose(possession, why_ended(late, possession.ttl))

    def lose(self, possession: Possession, reason: Reason) -> bool:
        """Mark it lost, once, and tell whoever watches."""
        if not possession._end(LOST, reason, self._tell_lost):
            return False
        if self._session and reason in (Reason.EXPIRED, Reason.PAUSED):
            self.free(possession._grant)  # we gave it up, its session did not
        return True

    def _tell_lost(self, possession: Possession) -> None:
        backend, name, token, reason = self._core.backend, possession.name, possession.token, possession._reason
        if reason not in (Reason.CLOSED, Reason.FORKED):  # those are this program's own doing
            why = reason and reason.value
            text = "lock %r (token %d) is lost: %s"
            log("WARNING", text, name, token, why, event="lock_lost", backend=backend, lock=name, token=token, reason=why)
        if self._core.listeners and reason is not None:
            events.emit(self._core.listeners, events.Lost(backend, name, token, reason, possession._seconds()))

    def left_behind(self, possession: Possession) -> None:
        """Release it soon: whoever had it cannot wait. From any thread, at any moment; never blocks."""
        self._behind.append(possession)
        self._timer.poke()

    def free(self, grant: Grant, after: float = -math.inf) -> None:
        """Make sure that nobody holds it from `after` on, and go on trying for as long as its lease or session may live."""
        self.late.free(grant, self._core.label, after)

    def renewed(self, possession: Possession, sent: float, answer: Any) -> None:
        """Take in the answer to a renewal that was sent at `sent`."""
        core = self._core
        granted = isinstance(answer, tuple)
        held, doubted = possession._end_renewal(core.clock(), sent, answer[1] if granted else None)
        if isinstance(answer, LeaseLost):
            if possession._state is HELD:  # else it is our own release that the renewal has met
                self.lose(possession, answer.reason)
        elif not held:
            self.lapse(possession)
            if granted and (possession._state is LOST or possession._left() is not None):
                # We gave up, the server did not: free it now. What its release has left, this renewal may have lengthened.
                core.releases.post(*core.ending(possession))
        else:
            if core.listeners:
                record = (
                    events.Renewed(core.backend, possession.name, possession.token)
                    if granted
                    else events.RenewalFailed(core.backend, possession.name, possession.token, answer)
                )
                events.emit(core.listeners, record)
            self._push(possession)
            if doubted:
                self.doubt(possession._grant.owner)

    def call_back(self, callback: Callable[[], object]) -> None:
        """Run a user's callback on a thread of its own: one that blocks delays other callbacks, and nothing else."""
        if isinstance(self._core.clock, LoopClock):
            self._core.clock.loop.call_soon(callback)
            return
        self._notifier.put(callback)

    def possessions(self) -> list[Possession]:
        """All that are alive."""
        with self._mutex:
            alive = {id(p): p for p in (entry[3]() for entry in self._heap) if p is not None}
        return list(alive.values())

    def possessions_in_child(self) -> list[Possession]:
        """The same in a forked child, where the mutex may be held by a thread that does not exist."""
        return list({id(p): p for p in (entry[3]() for entry in list(self._heap)) if p is not None}.values())

    def stop(self) -> None:
        """No tick comes from now on, and none is under way, which would have possessions in its hands."""
        self._timer.close()

    def close(self, timeout: float) -> None:
        """End both threads."""
        self._timer.close()
        self._notifier.close(timeout)

    def _push(self, possession: Possession, when: float | None = None) -> None:
        """Look at it at `when`; unless given, at the time of its renewal, or at its end where nobody renews it."""
        if when is None:
            when = possession._deadline if possession._renew_at is None else possession._renew_at
        with self._mutex:
            heap = self._heap
            if len(heap) >= self._limit:  # drop what was released: amortised, each entry is looked at about twice
                heap[:] = [entry for entry in heap if _current(entry)]
                heapq.heapify(heap)
                self._limit = max(64, 2 * len(heap))
            # The new version here: a tick that took the old place out before this one is there would leave it without any.
            entry = (when, next(self._order), possession._reschedule(), possession._ref)
            heapq.heappush(heap, entry)
            first = heap[0] is entry
        if first or self._forgotten:
            self._timer.ring()

    def _tick(self, late: float) -> float:
        now = self._core.clock()
        doubted = self._doubted() if self._doubts else set()
        due = list(doubted)
        with self._mutex:
            heap = self._heap
            horizon = now
            leaving = []  # its release may come to nothing: who closes has to find it
            while heap and heap[0][0] <= horizon:
                entry = heapq.heappop(heap)
                possession = entry[3]()
                if possession is None or possession._version != entry[2]:
                    continue
                if possession._state is HELD:
                    if possession not in doubted:
                        due.append(possession)
                    horizon = now + self._together * possession._renewed_by
                elif possession._state is LEAVING and now < possession._deadline:
                    leaving.append((possession._deadline, *entry[1:]))
            for entry in leaving:
                heapq.heappush(heap, entry)
        withdrawals = self.late.due(now)
        self._act(due, doubted, now, late)
        while self._behind:
            self._give_back(self._behind.popleft())
        while self._forgotten:
            self.free(self._forgotten.popleft())
        if withdrawals:
            self._core.withdraw_again(withdrawals)
        with self._mutex:
            first = heap[0][0] if heap else math.inf
        return min(first, self.late.next())

    def _give_back(self, possession: Possession) -> None:
        """Release what was left behind."""
        core = self._core
        if possession._give_back() and possession._end(RELEASED):
            core.release_later(possession)
            if core.listeners:
                held = possession._seconds()
                events.emit(core.listeners, events.Released(core.backend, possession.name, possession.token, held))

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
            if possession._doubt():
                found.add(possession)
        return found

    def _act(self, due: list[Possession], doubted: set[Possession], now: float, late: float) -> None:
        renew = []
        for possession in due:
            ahead = max(now, min(possession._renew_at or math.inf, now + self._together * possession._renewed_by))
            step, until = plan(ahead, possession._deadline, possession._renew_at, under_way=possession._under_way)
            if step is Step.EXPIRE and now >= possession._deadline:
                self.lose(possession, why_ended(late, possession.ttl))
                continue
            if step is Step.RENEW or possession in doubted:
                possession._begin_renewal()
                renew.append(possession)
            self._push(possession, until)
        if renew:
            call = Call(self._core.RENEW, [possession._to_renew() for possession in renew], sink=_Answers(self, renew))
            self._core.releases.submit([call])


class _Answers:
    """Takes a batch's answers, on the lane's thread."""

    def __init__(self, renewal: Renewal, possessions: list[Possession]) -> None:
        self._renewal = renewal
        self._possessions = possessions

    def __call__(self, call: Call) -> None:
        # An error leads to frames that know the call, and so this: it would keep what nobody has any more, and have it renewed.
        possessions, self._possessions = self._possessions, []
        for possession, answer in zip(possessions, call.results, strict=True):
            # What nobody renews was only asked about: that lengthens nothing.
            sent = answer[0] if isinstance(answer, tuple) and possession._renew_at is not None else -math.inf
            self._renewal.renewed(possession, sent, answer)


def _current(entry: tuple[float, int, int, weakref.ref[Possession]]) -> bool:
    possession = entry[3]()
    return possession is not None and possession._version == entry[2] and possession._state in OURS
