"""Locks in the memory of one process: the reference implementation, for tests and for threads and tasks of one program.

A space is a dict from names to who holds and who waits, under one mutex. A name that nobody holds or waits for is not in
it. Leases run by the clock of whoever holds them, so that tests can own time. Waiters are served in the order in which
they came; a lease that ran out is met, and its place given on, by the next attempt, which `Busy.retry_after` brings about.

It excludes nobody in another process, and forgets everything with this one.

An interrupt may strike between any two steps. So a name is made and dropped in one step, an owner is looked for in both
places where it can be, and every call that meets a name tidies it up: drops what is over and tells who can go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.driver.admission import admitted, conflict, disagree, lost
from narrowboat.dsn import Url
from narrowboat.errors import Closed, Conflict, LeaseLost, NarrowboatError, Reason
from narrowboat_memory.names import PATIENCE, Lease, LockSpace, Name, Waiter, anybody, holding_of, retry_after
from narrowboat_memory.options import SCHEME, Options, space_name
from narrowboat_memory.space import space

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
    at_least=Support.NATIVE,
    dead_waiter_bound=PATIENCE + 1.0,
)


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
                    if entry is not None and now + grant.ttl < lease.ends and entry.waiters:
                        told.append(next(iter(entry.waiters.values())).wake)  # it looks again when the lease would have ended
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
                    self._space.remember_evicted(token)
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
        entry = Name()
        token = next(self._space.tokens)
        entry.holders[request.owner] = Lease(request, token, self._clock, now)
        self._names[request.name] = entry
        self._space.until_sweep -= 1
        if self._space.until_sweep < 0:
            told += self._space.sweep()
        return _granted(request, token)

    def _take(
        self, request: Request, entry: Name, now: float, told: list[Callable[[], None]]
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
        other = anybody(entry)
        if other is not None and disagree(request.mode, request.limit, other.mode, other.limit):
            return Conflict(conflict(request.name, request.mode, request.limit, other.mode, other.limit), backend=SCHEME)
        if self._may_go(request, entry, waiter):
            lease = Lease(request, next(self._space.tokens), self._clock, now)
            entry.holders[owner] = lease
            entry.waiters.pop(owner, None)
            self._names[request.name] = entry  # tidying up may have dropped it
            return _granted(request, lease.token)
        if request.wait and owner not in entry.waiters:
            entry.waiters[owner] = Waiter(request, self._clock, now)
            self._names[request.name] = entry
        return Busy(retry_after(entry, owner))

    @staticmethod
    def _may_go(request: Request, entry: Name, waiter: Waiter | None) -> bool:
        holding, held = holding_of(entry)
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
        return lost(grant, reason, backend=SCHEME)

    def _clock_moved(self) -> None:
        """A clock that is moved by hand wakes nobody by running on: let everybody look who can go now."""
        told: list[Callable[[], None]] = []
        with self._mutex:
            for name, entry in list(self._names.items()):
                if entry.waiters:
                    told += self._space.tidy(name, entry)
        for wake in told:
            wake()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"these {SCHEME}:// locks were closed; open them again", backend=SCHEME)


def _granted(request: Request, token: int) -> Grant:
    return Grant(request.name, request.owner, token, request.ttl, request.mode, request.limit)


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
    example="memory://shop",
)
