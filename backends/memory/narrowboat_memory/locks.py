"""Locks in the memory of one process: the reference implementation, for tests and for threads and tasks of one program.

A space is a dict from names to who holds and who waits, under one mutex. A name that nobody holds or waits for is not in
it. Leases run by the clock of whoever holds them, so that tests can own time. Waiters are served in the order in which
they came; a lease that ran out is met, and its place given on, by the next attempt, which `Busy.retry_after` brings about.

It excludes nobody in another process, and forgets everything with this one.

An interrupt may strike between any two steps. So a name is made and dropped in one step, an owner is looked for in both
places where it can be, and every call that meets a name tidies it up: drops what is over and tells who can go.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from narrowboat._queueing import admitted, conflict, disagree
from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.dsn import Url
from narrowboat.errors import Closed, Conflict, LeaseLost, NarrowboatError, Reason
from narrowboat_memory.options import SCHEME, Options, space_name
from narrowboat_memory.space import space

Clock = Callable[[], float]

#: Seconds that a waiter which was told that it can go may take to come. Too short, and a busy event loop loses its place;
#: too long, and one that has stopped coming holds up the rest.
PATIENCE = 5.0
#: Seconds between two looks of a waiter at most: well below the patience, and what an interrupt that cut off a wake-up
#: costs the one who was to be woken.
LOOK_AGAIN = 2.0
#: Names below which nobody looks for abandoned ones.
_SWEEP_AT = 1024
#: How many evicted generations are remembered, so that their holders can be told why.
_EVICTED_KEPT = 1024

CAPABILITIES = LockCapabilities(
    scope=Scope.PROCESS,
    expiry=Expiry.LEASE,
    survives=Survives.NOTHING,
    fencing=Support.NATIVE,
    fencing_survives=Survives.NOTHING,
    order=WaitOrder.FIFO,
    wake=WakeUp.NOTIFIED,
    shared=Support.NATIVE,
    semaphore=Support.NATIVE,
    holders=Support.NATIVE,
    evict=Support.NATIVE,
    ttl_min=0.05,
    dead_waiter_bound=PATIENCE + 1.0,
)


class _Lease:
    """One owner's possession of one name."""

    __slots__ = ("acquired_at", "clock", "ends", "label", "limit", "mode", "token")

    def __init__(self, request: Request, token: int, clock: Clock, now: float) -> None:
        self.token = token
        self.mode = request.mode
        self.limit = request.limit
        self.clock = clock
        self.ends = now + request.ttl
        self.label = request.label
        self.acquired_at = time.time()


class _Waiter:
    """One owner's place in the queue of one name."""

    __slots__ = ("clock", "limit", "mode", "seen", "told", "wake")

    def __init__(self, request: Request, clock: Clock, now: float) -> None:
        self.mode = request.mode
        self.limit = request.limit
        self.clock = clock
        self.wake = request.wake
        self.seen = now
        self.told: float | None = None  #: since when it could go, and knows


class _Name:
    """Who holds one name and who waits for it, by owner, oldest first."""

    __slots__ = ("holders", "waiters")

    def __init__(self) -> None:
        self.holders: dict[str, _Lease] = {}
        self.waiters: dict[str, _Waiter] = {}


class LockSpace:
    """What all providers of one space and prefix share."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.names: dict[str, _Name] = {}
        self.tokens = itertools.count(1)
        self.evicted: dict[int, None] = {}
        self._sweep_at = _SWEEP_AT

    def tidy(self, name: str, entry: _Name) -> list[Callable[[], None]]:
        """Drop what is over under `name`, and the name itself when nothing is left. Whom to wake, outside the mutex."""
        for owner, lease in list(entry.holders.items()):
            if lease.ends <= lease.clock():
                del entry.holders[owner]
        told = self._tell(entry) if entry.waiters else []
        if not entry.holders and not entry.waiters:
            self.names.pop(name, None)
        return told

    def sweep(self) -> list[Callable[[], None]]:
        """Drop names whose holders and waiters never came back; each name that was made pays for looking at two or so."""
        told: list[Callable[[], None]] = []
        if len(self.names) >= self._sweep_at:
            for name, entry in list(self.names.items()):
                told += self.tidy(name, entry)
            self._sweep_at = max(_SWEEP_AT, 2 * len(self.names))
        return told

    @staticmethod
    def _tell(entry: _Name) -> list[Callable[[], None]]:
        """Mark who at the front of the queue can go and was not told yet; pass over who was told and does not come."""
        holding, held = _holding(entry)
        told = []
        gone: list[str] = []
        ahead = 0
        writer_ahead = False
        for owner, waiter in entry.waiters.items():
            now = waiter.clock()
            # Once somebody was passed over, all behind had the same time to look again: whoever did not is gone, too.
            since = waiter.seen if gone else waiter.told
            if since is not None and since + PATIENCE <= now:
                gone.append(owner)
                continue
            if owner in entry.holders:
                continue  # an interrupt struck between its grant and the end of its wait
            if not admitted(waiter.mode, waiter.limit, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead):
                break
            ahead += 1
            writer_ahead = waiter.mode is Mode.EXCLUSIVE
            if waiter.told is None:
                waiter.told = now
                told.append(waiter.wake)
        for owner in gone:
            del entry.waiters[owner]
        return told


class MemoryLocks(LockProvider):
    """One view on a space, with the clock of whoever opened it."""

    capabilities = CAPABILITIES

    def __init__(self, shared: LockSpace, context: Context) -> None:
        self._space = shared
        self._names = shared.names
        self._mutex = shared.mutex
        self._clock = context.clock
        self._closed = False
        context.watch(self._clock_moved)

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take or queue, the whole batch under one mutex."""
        answers: list[Grant | Busy | NarrowboatError] = []
        told: list[Callable[[], None]] = []
        with self._mutex:
            self._check_open()
            now = self._clock()
            for request in requests:
                entry = self._names.get(request.name)
                if entry is None:
                    answers.append(self._take_new(request, now, told))
                else:
                    answers.append(self._take(request, entry, now, told))
        for wake in told:
            wake()
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start leases afresh; one that ran out is dropped here."""
        answers: list[Grant | NarrowboatError] = []
        told: list[Callable[[], None]] = []
        with self._mutex:
            self._check_open()
            now = self._clock()
            for grant in grants:
                entry = self._names.get(grant.name)
                lease = None if entry is None else entry.holders.get(grant.owner)
                if lease is not None and lease.token == grant.token and lease.ends > now:
                    lease.ends = now + grant.ttl
                    answers.append(grant)
                else:
                    answers.append(self._lost(grant, expired=lease is not None and lease.token == grant.token))
                    if entry is not None:
                        told += self._space.tidy(grant.name, entry)
        for wake in told:
            wake()
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free, and tell who is next. One that ran out is dropped and was not held."""
        answers: list[Released | NarrowboatError] = []
        told: list[Callable[[], None]] = []
        with self._mutex:
            self._check_open()
            for grant in grants:
                entry = self._names.get(grant.name)
                lease = None if entry is None else entry.holders.get(grant.owner)
                if entry is None or lease is None or lease.token != grant.token:
                    answers.append(Released.NOT_HELD)
                else:
                    answers.append(Released.RELEASED if lease.ends > self._clock() else Released.NOT_HELD)
                    if len(entry.holders) == 1 and not entry.waiters:
                        del self._names[grant.name]
                        continue
                    entry.waiters.pop(grant.owner, None)
                    del entry.holders[grant.owner]
                if entry is not None:
                    told += self._space.tidy(grant.name, entry)
        for wake in told:
            wake()
        return answers

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Remove the owners wherever they are; nothing of them can land later."""
        told: list[Callable[[], None]] = []
        with self._mutex:
            self._check_open()
            for request in requests:
                entry = self._names.get(request.name)
                if entry is not None:
                    entry.waiters.pop(request.owner, None)
                    entry.holders.pop(request.owner, None)
                    told += self._space.tidy(request.name, entry)
        for wake in told:
            wake()
        return [None] * len(requests)

    def holders(self, name: str | None) -> list[Holder]:
        """Whose lease runs, by token."""
        with self._mutex:
            self._check_open()
            names = sorted(self._names) if name is None else [name] if name in self._names else []
            return [
                Holder(
                    name=each,
                    token=lease.token,
                    label=lease.label,
                    mode=lease.mode,
                    limit=lease.limit,
                    acquired_at=lease.acquired_at,
                    expires_in=lease.ends - now,
                    waiters=len(self._names[each].waiters),
                )
                for each in names
                for lease in sorted(self._names[each].holders.values(), key=lambda lease: lease.token)
                if lease.ends > (now := lease.clock())
            ]

    def evict(self, name: str, token: int) -> bool:
        """Break that generation; its holder learns of it at its next renewal."""
        told: list[Callable[[], None]] = []
        found = False
        with self._mutex:
            self._check_open()
            entry = self._names.get(name)
            for owner, lease in list(entry.holders.items()) if entry is not None else []:
                if entry is not None and lease.token == token:
                    found = lease.ends > lease.clock()
                    self._remember_evicted(token)
                    del entry.holders[owner]
            if entry is not None:
                told = self._space.tidy(name, entry)
        for wake in told:
            wake()
        return found

    def ping(self) -> None:
        """Nothing can be down here; raises `Closed` after `close`."""
        self._check_open()

    def close(self) -> None:
        """Refuse further calls. The space stays."""
        self._closed = True

    def _take_new(self, request: Request, now: float, told: list[Callable[[], None]]) -> Grant:
        entry = _Name()
        token = next(self._space.tokens)
        entry.holders[request.owner] = _Lease(request, token, self._clock, now)
        self._names[request.name] = entry
        if len(self._names) >= _SWEEP_AT:
            told += self._space.sweep()
        return _granted(request, token)

    def _take(
        self, request: Request, entry: _Name, now: float, told: list[Callable[[], None]]
    ) -> Grant | Busy | NarrowboatError:
        owner = request.owner
        waiter = entry.waiters.get(owner)
        if waiter is not None:
            waiter.wake, waiter.seen = request.wake, now
            if waiter.told is not None:
                waiter.told = now
        told += self._space.tidy(request.name, entry)
        lease = entry.holders.get(owner)
        if lease is not None:  # an earlier attempt's, whose answer did not arrive
            lease.ends = now + request.ttl
            entry.waiters.pop(owner, None)
            return _granted(request, lease.token)
        other = _anybody(entry)
        if other is not None and disagree(request.mode, request.limit, other.mode, other.limit):
            return Conflict(conflict(request.name, request.mode, request.limit, other.mode, other.limit), backend=SCHEME)
        if self._may_go(request, entry, waiter):
            lease = _Lease(request, next(self._space.tokens), self._clock, now)
            entry.holders[owner] = lease
            entry.waiters.pop(owner, None)
            self._names[request.name] = entry  # tidying up may have dropped it
            return _granted(request, lease.token)
        if request.wait and owner not in entry.waiters:
            entry.waiters[owner] = _Waiter(request, self._clock, now)
            self._names[request.name] = entry
        return Busy(_retry_after(entry))

    @staticmethod
    def _may_go(request: Request, entry: _Name, waiter: _Waiter | None) -> bool:
        holding, held = _holding(entry)
        ahead, writer_ahead = len(entry.waiters), False
        if waiter is not None and request.owner in entry.waiters:
            if waiter.told is None:
                return False
            ahead = 0  # whoever was told has nobody before it who would have to go first
        elif entry.waiters:
            if not request.wait:
                return False
            writer_ahead = any(other.mode is Mode.EXCLUSIVE for other in entry.waiters.values())
        return admitted(request.mode, request.limit, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead)

    def _lost(self, grant: Grant, *, expired: bool) -> LeaseLost:
        evicted = grant.token in self._space.evicted
        reason = Reason.EVICTED if evicted else Reason.EXPIRED if expired else Reason.TAKEN
        return LeaseLost(
            f"lock {grant.name!r}: the lease with token {grant.token} is over ({reason.value}). "
            "Stop what it protects; acquire again.",
            name=grant.name,
            reason=reason,
            token=grant.token,
            backend=SCHEME,
        )

    def _remember_evicted(self, token: int) -> None:
        evicted = self._space.evicted
        evicted[token] = None
        while len(evicted) > _EVICTED_KEPT:
            del evicted[next(iter(evicted))]

    def _clock_moved(self) -> None:
        """A clock that is moved by hand wakes nobody by running on: let everybody look who can go now."""
        told: list[Callable[[], None]] = []
        with self._mutex:
            for name, entry in list(self._names.items()):
                told += self._space.tidy(name, entry)
        for wake in told:
            wake()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"these {SCHEME}:// locks were closed; open them again", backend=SCHEME)


def _holding(entry: _Name) -> tuple[Mode | None, int]:
    for lease in entry.holders.values():
        return lease.mode, len(entry.holders)
    return None, 0


def _anybody(entry: _Name) -> _Lease | _Waiter | None:
    """One of those who hold or wait; they all agree about the kind of lock."""
    for lease in entry.holders.values():
        return lease
    for waiter in entry.waiters.values():
        return waiter
    return None


def _granted(request: Request, token: int) -> Grant:
    return Grant(request.name, request.owner, token, request.ttl, request.mode, request.limit)


def _retry_after(entry: _Name) -> float:
    """Until the first lease ends or a waiter that was told has had its time: then another attempt finds it over."""
    soonest = LOOK_AGAIN
    for lease in entry.holders.values():
        soonest = min(soonest, lease.ends - lease.clock())
    for waiter in entry.waiters.values():
        if waiter.told is None:
            break
        soonest = min(soonest, waiter.told + PATIENCE - waiter.clock())
    return max(soonest, 0.0)


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    return MemoryLocks(space(LockSpace, space_name(url), options.prefix), context)


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    space_name(url)
    return CAPABILITIES


locks = LockBackend(
    scheme=SCHEME,
    summary="within one process: threads, tasks, tests; the reference",
    options=Options,
    capabilities=_capabilities,
    open=_open,
)
