"""What both lock faces stand on: the driver, its two lanes, the renewal engine, and who holds what in this process.

`Locks` and `aio.Locks` are thin; everything that does not wait is here, everything that waits is in `_acquire`.
"""

from __future__ import annotations

import itertools
import os
import random as random_module
import threading
import unicodedata
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from narrowboat import events
from narrowboat._engine.driver import Driver, Plan, seconds, watch_forks
from narrowboat._engine.exchange import Call, Op
from narrowboat._engine.lane import lane
from narrowboat._locks.lease import Possession, State
from narrowboat._locks.renewal import LateWithdrawal, Renewal
from narrowboat._locks.turns import Turns
from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, WaitOrder
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.errors import AlreadyHeld, Closed, InvalidArgument, Reason, Unsupported
from narrowboat.registry import lock_backend

NAME_MAX = 1000
#: The share of an operation timeout within which a failure is so early that one more call is made. More, and calls end late;
#: less, and a lost reply is told as unknown where asking again would have told.
AT_ONCE = 0.2
LABEL_MAX = 200


def check_name(name: object, what: str = "lock name") -> str:
    """`name` if it is one: non-empty text of up to 1,000 characters without control characters or lone surrogates."""
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} {name!r}: expected text, got {type(name).__name__}")
    if not 1 <= len(name) <= NAME_MAX:
        shown = f"{name[:20]!r}... of {len(name)} characters" if name else "''"
        raise InvalidArgument(f"{what} {shown}: allowed are 1 to {NAME_MAX} characters")
    if not name.isprintable():
        for position, character in enumerate(name):
            if unicodedata.category(character) in ("Cc", "Cs"):
                raise InvalidArgument(
                    f"{what} {name!r}: character {position} is U+{ord(character):04X}; control characters and lone "
                    "surrogates are not allowed"
                )
    return name


class Terms:
    """What a lock's options come to, checked before anything is sent."""

    __slots__ = ("label", "limit", "mode", "name", "reentrant", "renew", "timeout", "ttl")

    def __init__(
        self,
        core: LockCore,
        name: str,
        *,
        ttl: Any,
        timeout: Any,
        mode: Any,
        limit: Any,
        reentrant: Any,
        renew: Any,
        label: Any,
    ) -> None:
        claims = core.capabilities
        self.name = check_name(name)
        self.ttl = _ttl(core.backend, claims, ttl)
        self.timeout = check_timeout(timeout)
        self.mode, self.limit = _mode(mode, limit)
        self.reentrant = _flag("reentrant", reentrant)
        self.renew = _flag("renew", renew)
        self.label = core.label if label is None else check_name(label, "label")[:LABEL_MAX]
        if self.reentrant and self.mode is Mode.SEMAPHORE:
            raise InvalidArgument("reentrant=True with limit=: a semaphore's permits belong to nobody, so nothing can nest")
        needed = {Mode.SHARED: claims.shared, Mode.SEMAPHORE: claims.semaphore}.get(self.mode, Support.NATIVE)
        if needed is Support.ABSENT:
            raise Unsupported(f"{core.backend} does not claim {self.mode.value} locks", backend=core.backend)


def _ttl(backend: str, claims: LockCapabilities, ttl: Any) -> float:
    """Seconds. Where a session is the lease, the longest time that the caller accepts until a dead holder's lock is free."""
    if claims.expiry is Expiry.LEASE:
        return seconds("ttl", ttl, low=claims.ttl_min, high=claims.ttl_max, allowed=_range(claims))
    wanted = seconds("ttl", ttl, low=0.001, high=claims.ttl_max, allowed=_range(claims))
    if wanted < claims.ttl_min:
        raise Unsupported(
            f"ttl={wanted:g} s: on {backend} a session is the lease, and the lock of a holder that died is free after up to "
            f"{claims.ttl_min:g} s. Accept that with ttl={claims.ttl_min:g} or more, or set a shorter ?session_ttl= in the URL "
            "where the server allows it",
            backend=backend,
        )
    return wanted


def _range(claims: LockCapabilities) -> str:
    return f"{claims.ttl_min:g} to {claims.ttl_max:g} seconds, as a number or a timedelta"


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what}={value!r}: expected True or False")
    return value


def _mode(mode: object, limit: object) -> tuple[Mode, int | None]:
    allowed = "'exclusive' or 'shared'; give limit=n for a semaphore"
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1_000_000:
            raise InvalidArgument(f"limit={limit!r}: expected a whole number from 1 to 1000000")
        if mode != "exclusive":
            raise InvalidArgument(f"limit={limit} with mode={mode!r}: a semaphore has no other mode, leave mode= away")
        return Mode.SEMAPHORE, limit
    if mode == "exclusive":
        return Mode.EXCLUSIVE, None
    if mode == "shared":
        return Mode.SHARED, None
    raise InvalidArgument(f"mode={mode!r}: allowed are {allowed}")


def check_timeout(timeout: object) -> float | None:
    """Seconds to wait: None for ever, 0 for exactly one try."""
    if timeout is None:
        return None
    return seconds("timeout", timeout, low=0.0, high=10 * 365 * 86400.0, allowed="0 or more seconds, or None for ever")


class LockCore:
    """See the module's text. Its attributes are for `_acquire`, `_renewal` and the two faces; nobody else's."""

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
        plan: Plan[LockProvider] = Plan(
            lock_backend, "NARROWBOAT_LOCKS_URL", url, require, clock, wrap, options, doubt=_doubts(weakref.ref(self))
        )
        self.url = plan.url
        self.backend = plan.url.scheme
        self.capabilities: LockCapabilities = plan.capabilities
        self.margin = self.capabilities.margin
        self.timeout = plan.timeout
        self.clock = plan.clock
        self.random = random if random is not None else random_module.random
        self.listeners = events.check(listeners)
        self.driver: Driver[LockProvider] = Driver(plan)
        self.ATTEMPT = Op("attempt", self._attempt, repeatable=True, distinct=_name_of)
        # Where one session carries them all, a failed renewal is nobody's in particular: one by one it fails as well.
        self.RENEW = Op("renew", self._renew, repeatable=self.capabilities.expiry is Expiry.LEASE)
        self.RELEASE = Op("release", self._release, repeatable=True, denies=lambda answer: answer is Released.NOT_HELD)
        self.WITHDRAW = Op("withdraw", self._withdraw, repeatable=True)
        self.AGAIN = Op("withdraw", self._again, repeatable=False, last=True)
        self.CALL = Op("call", self._call, repeatable=False)
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
        self.take = lane(f"narrowboat-{self.backend}-take", self.capabilities.concurrency, remote=remote)
        self.free = lane(f"narrowboat-{self.backend}-free", self.capabilities.concurrency, remote=remote)
        # Who only looks may look for long, at everything that is held: renewals and releases must not stand behind that.
        self.look = lane(f"narrowboat-{self.backend}-look", self.capabilities.concurrency, remote=remote)
        self.renewal = Renewal(self)
        # Turns taken here, where the backend does not queue fairly; a FIFO backend gets every waiter.
        self.turns = Turns() if self.capabilities.order is WaitOrder.ANY else None
        self.closed = False
        self.waiting: set[Any] = set()  # acquisitions under way, to be woken by close
        self._idle = threading.Event()
        self._held: dict[tuple[str, int], list[weakref.ref[Possession]]] = {}

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

    def _withdraw(self, requests: Sequence[Request]) -> list[Any]:
        try:
            answers = self.driver.get().withdraw(requests)
        except Closed:
            raise
        except Exception:
            for request in requests:
                self.renewal.withdraw_later(request)
            raise
        for request, answer in zip(requests, answers, strict=True):
            if answer is not None and answer.retryable:
                self.renewal.withdraw_later(request)
        return list(answers)

    def _call(self, calls: Sequence[Callable[[LockProvider], Any]]) -> list[Any]:
        return [call(self.driver.get()) for call in calls]

    def withdraw_again(self, late: Sequence[LateWithdrawal]) -> None:
        """One more try at withdraws that failed, all in one exchange, behind everything that somebody waits for."""

        def look(call: Call) -> None:
            for each, answer in zip(late, call.results, strict=True):
                if answer is not None and getattr(answer, "retryable", True) and not isinstance(answer, Closed):
                    self.renewal.withdraw_later(each.request, each)

        self.free.submit([Call(self.AGAIN, [each.request for each in late], sink=look)])

    def withdraw_later(self, request: Request) -> None:
        """Withdraw it, now or as soon as the backend answers; nobody waits for that. From any thread."""

        def look(call: Call) -> None:
            if getattr(call.results[0], "retryable", False):
                self.renewal.withdraw_later(request)

        self.free.submit([Call(self.WITHDRAW, (request,), sink=look)])

    def release_later(self, grant: Grant) -> None:
        """Release it, now or as soon as the backend answers; nobody waits for that. From any thread."""

        def look(call: Call) -> None:
            if getattr(call.results[0], "retryable", False):
                self.renewal.free(grant)

        self.free.submit([Call(self.RELEASE, (grant,), sink=look)])

    def in_time(self, begun: float) -> bool:
        """Whether a call that is made now still ends about one operation timeout after `begun`, whatever the backend does."""
        return self.clock() - begun < self.timeout * AT_ONCE

    def _again(self, requests: Sequence[Request]) -> list[Any]:
        return list(self.driver.get().withdraw(requests))

    def new_owner(self) -> str:
        """An owner id that no other acquire, of any process, has or will have."""
        return f"{self._owner}-{next(self._owners):x}"

    # -- who holds what in this process ---------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self.closed:
            raise Closed(f"{self.backend} locks: used after close()", backend=self.backend)

    def own(self, terms: Terms, caller: object) -> Possession | None:
        """What this caller already holds of that name and may nest in; `AlreadyHeld` where it would wait for itself."""
        entries = self._held.get((terms.name, id(caller)))
        if not entries:
            return None
        for reference in tuple(entries):
            possession = reference()
            if possession is None or possession._state is not State.HELD or possession.lost:
                continue
            if possession._caller() is not caller or not possession._is_callers():
                continue
            have = possession._grant.mode
            if terms.reentrant and (have is Mode.EXCLUSIVE or have is terms.mode):
                return possession
            if Mode.EXCLUSIVE in (have, terms.mode):
                upgrade = "; a shared lock cannot be upgraded, release it first" if have is Mode.SHARED else ""
                raise AlreadyHeld(
                    f"lock {terms.name!r}: this thread or task holds it already ({have.value}, token {possession.token}) "
                    f"and would wait for itself{upgrade or '; use reentrant=True to nest'}",
                    name=terms.name,
                    backend=self.backend,
                )
        return None

    def note(self, possession: Possession, caller: object) -> None:
        """Remember that `caller` holds it."""
        if possession._grant.mode is Mode.SEMAPHORE:
            return
        key = (possession._grant.name, id(caller))
        # Not the possession's own reference, which the renewal keeps: this one goes with its entry, and is then called no more.
        self._held.setdefault(key, []).append(weakref.ref(possession, lambda gone: self._drop(key, gone)))

    def forget(self, possession: Possession) -> None:
        """It is released or lost."""
        if possession._finalizer is not None:
            possession._finalizer.detach()
        caller = possession._caller()
        if caller is not None:
            self._drop((possession._grant.name, id(caller)), possession._ref)  # equal to the entry while both are alive

    def _drop(self, key: tuple[str, int], reference: weakref.ref[Possession]) -> None:
        # May run at any allocation (a weak reference's callback), so it takes no lock: single dict and list steps only.
        entries = self._held.get(key)
        if entries is not None:
            try:
                entries.remove(reference)
            except ValueError:
                pass
            if not entries:
                self._held.pop(key, None)

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
        """Release what is held, stop the lanes and threads, close the driver; blocks up to one operation timeout."""
        ends = self.clock() + self.timeout
        self._idle.wait(self.timeout)  # who waited withdraws through the lanes, so they stay open until then
        held = [p._grant for p in self.renewal.possessions() if self.renewal.lose(p, Reason.CLOSED)]
        if held:
            self.free.post(self.RELEASE, held)
        for each in (self.take, self.free, self.look):
            each.close(max(0.0, ends - self.clock()))
        self.renewal.close(1.0)
        self.driver.close()

    def forked(self) -> None:
        """Called in a forked child: nothing that the parent holds is ours."""
        possessions = self.renewal.possessions_in_child()
        closed = self.closed
        self._fresh()
        self.closed = closed
        self.driver.forget()
        for possession in possessions:
            self.renewal.lose(possession, Reason.FORKED)

    # -- the plain calls ------------------------------------------------------------------------------------------

    def ask_holders(self, name: str | None) -> Callable[[LockProvider], list[Holder]]:
        """Checked before it enters the lane."""
        self.check_open()
        if self.capabilities.holders is Support.ABSENT:
            raise Unsupported(f"{self.backend} cannot tell who holds a lock", backend=self.backend)
        if name is not None:
            check_name(name)
        return lambda driver: driver.holders(name)

    def ask_evict(self, name: str, token: int) -> Callable[[LockProvider], bool]:
        """Checked before it enters the lane."""
        self.check_open()
        if self.capabilities.evict is Support.ABSENT:
            raise Unsupported(f"{self.backend} cannot evict a holder", backend=self.backend)
        check_name(name)
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


def _name_of(request: Request) -> str:
    return request.name
