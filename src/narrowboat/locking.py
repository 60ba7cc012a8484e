"""Locks in the user's hands: `Locks` for a URL, `Lock` for a name and its terms, `Held` for the possession.

    locks = narrowboat.locks("sqlite:///shop.db")
    with locks.lock("invoice:42", ttl=30) as held:
        save(invoice, fence=held.token)

A `Lock` is only a name with its terms: make it, share it, throw it away. What matters is `Held`: it is gained by waiting
one's turn, renews itself, tells when it is lost and why, and is the only thing that can be released. The asyncio twins of
all three are in `narrowboat.aio`; the loops behind both are in `_locks`.
"""

from __future__ import annotations

import enum
import functools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Never, ParamSpec, TypeVar

from narrowboat._engine.holdable import SyncOnly, no_such_argument
from narrowboat._engine.inside import guarded
from narrowboat._engine.later import kind, unrun
from narrowboat._engine.later_events import events
from narrowboat._engine.place import Place, here, in_loop
from narrowboat._engine.runtime import Blocking, run
from narrowboat._locks import release
from narrowboat._locks.blocks import Block, Entered, noted, per_block
from narrowboat._locks.composite import HeldTogether, in_order
from narrowboat._locks.core import LockCore
from narrowboat._locks.faces import AllLocksFace, Lockable, LockFace, LocksFace, watch
from narrowboat._locks.possession import Possession
from narrowboat._locks.terms import check_timeout
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Holder, LockProvider
from narrowboat.dsn import hidden, hidden_secrets
from narrowboat.electable import Electable

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entered)

Seconds = float | timedelta
Mode = Literal["exclusive", "shared"]


class Unset(enum.Enum):
    """The default of an argument for which None means something."""

    UNSET = "the lock's own"


UNSET: Final = Unset.UNSET


def locks(
    url: str | None = None,
    *,
    require: str | Mapping[str, object] | None = None,
    clock: Clock | None = None,
    random: Callable[[], float] | None = None,
    listeners: Sequence[events.Listener] = (),
    wrap: Callable[[LockProvider], LockProvider] | None = None,
    **options: object,
) -> Locks:
    """Locks on the backend that `url` names. Connects at the first call, not here.

    Args:
        url: such as `memory://`, `sqlite:///shop.db`, `redis://host/0?prefix=shop`; None reads NARROWBOAT_LOCKS_URL.
        require: what the backend must promise, such as `"fencing,survives=power"`; see `narrowboat.capabilities`.
        clock: for tests; the machine's own unless given.
        random: for tests; numbers in [0, 1) for jitter.
        listeners: called with each record of `narrowboat.events`.
        wrap: puts a layer between the core and the driver; see `narrowboat.layers`.
        options: the backend's options; they beat the URL's.

    Raises:
        ConfigurationError: the URL, an option or the installation cannot work.
        Unsupported: the backend does not promise what is required.
    """
    url, options = hidden(url), hidden_secrets(options)
    core = LockCore(url, require, clock, random, listeners, wrap, options)
    return Locks(core, Blocking(core.clock))


class Locks(Electable, SyncOnly, LocksFace[Blocking]):
    """All locks behind one URL; safe to share between threads. `close()` it, or use it in a `with`."""

    def lock(
        self,
        name: str,
        *,
        ttl: Seconds = 30,
        at_least: Seconds = 0,
        timeout: Seconds | None = None,
        mode: Mode = "exclusive",
        limit: int | None = None,
        reentrant: bool = False,
        renew: bool = True,
        label: str | None = None,
    ) -> Lock:
        """A lock by this name. Nothing is sent yet.

        Args:
            name: any text of 1 to 1,000 characters without control characters.
            ttl: seconds after which the lock is free if its holder dies.
            at_least: seconds for which the name stays taken after this grant, whatever becomes of the holder: released,
                closed or killed. Nobody gets it before, the one who released it neither. 0 for no such minimum.
            timeout: seconds that `with` and `acquire()` wait; None waits for ever, 0 tries once.
            mode: "exclusive", or "shared", which excludes only the exclusive.
            limit: makes it a semaphore of this many permits; all contenders must agree on it.
            reentrant: the thread that holds it may acquire it again; the outermost release frees it. In a pool that copies
                the context for each of its jobs, the job that holds it.
            renew: keep the lease alive in the background until it is released.
            label: for people, shown by `holders`; host and process id unless given.

        Raises:
            InvalidArgument: an argument outside what is allowed.
            Unsupported: the backend does not claim this mode, or claims no `at_least`.
        """
        terms = self._terms(
            name,
            ttl=ttl,
            at_least=at_least,
            timeout=timeout,
            mode=mode,
            limit=limit,
            reentrant=reentrant,
            renew=renew,
            label=label,
        )
        return Lock(self._core, self._runtime, terms)

    def all(
        self,
        *names: str | Lock,
        ttl: Seconds = 30,
        at_least: Seconds = 0,
        timeout: Seconds | None = None,
        renew: bool = True,
        label: str | None = None,
    ) -> AllLocks:
        """Several locks at once, all or none, always taken in the order of their names, so that two callers never deadlock.

        Args:
            names: names, for exclusive locks with the other arguments, or `Lock`s with terms of their own.
            ttl: as for `lock`.
            at_least: as for `lock`, for each name from its own grant. Names that are given back because another was busy
                are free at once.
            timeout: seconds for all of them together.
            renew: as for `lock`.
            label: as for `lock`.
        """
        alike = functools.partial(self.lock, ttl=ttl, at_least=at_least, timeout=timeout, renew=renew, label=label)
        made = [name if isinstance(name, Lock) else alike(name) for name in names]
        return AllLocks(self._core, self._runtime, in_order(made), check_timeout(timeout))

    def holders(self, name: str | None = None) -> list[Holder]:
        """Who holds `name`, oldest first; without a name, every name that is held."""
        return run(release.ask(self._core, self._runtime, self._core.ask_holders(name)))

    def evict(self, name: str, token: int) -> bool:
        """Break that generation and no other; its holder finds out by its next renewal. False when it is not there."""
        return run(release.ask(self._core, self._runtime, self._core.ask_evict(name, token)))

    def ping(self) -> None:
        """One round trip; raises `Unavailable` or `AccessDenied` when the backend cannot be used."""
        run(release.ask(self._core, self._runtime, self._core.ask_ping()))

    def close(self) -> None:
        """Release what is held (reason `closed`), wake who waits (`Closed`), end all threads. Idempotent."""
        guarded(self._close)

    def _close(self) -> None:
        if self._core.begin_close():
            self._core.finish_close()

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Held(Possession):
    """That a lock is ours. `release()` it, or leave the `with` that gave it; see `Possession` for what it tells."""

    __slots__ = ("_place", "_runtime")
    _core: LockCore
    _place: Place
    _runtime: Blocking

    def _is_callers(self) -> bool:
        return self._place is here() or in_loop()

    def renew(self) -> None:
        """Start the lease afresh now, whatever the renewal does; a full ttl is left.

        Raises:
            LeaseLost: it was lost or released before; it is not revived.
            Unavailable: unknown whether it was renewed; it is still ours until its deadline.
        """
        run(release.renew(self._core, self._runtime, self))

    def release(self) -> None:
        """Free it and wake who is next. A second release does nothing; so does one inside a `with` that then ends.

        A lock with `at_least` is ours no more from now on, and free when that is over.

        It may be called from a signal handler or a finaliser that strikes in the middle of another call of this thread: then
        it is done as soon as that has ended, and raises nothing. At the very end of the interpreter, when Python has stopped
        all other threads wherever they stood, nothing is sent: it is free after its ttl.

        Raises:
            LeaseLost: it had been lost before; nothing of anybody else's was touched.
            Unavailable: unknown; it is not renewed any more, free after its ttl at the latest, and may be released again.
        """
        if sys.is_finalizing():
            self._leave_behind()
        else:
            run(release.release(self._core, self._runtime, self), self._leave_behind)

    def wait_lost(self, timeout: Seconds | None = None) -> bool:
        """Wait until it is lost: True; False when it was released, or after `timeout` seconds."""
        return run(release.wait_lost(self._core, self._runtime, self, check_timeout(timeout)))

    def on_lost(self, callback: Callable[[Held], object]) -> None:
        """Call `callback(held)` once when it is lost, at once if it is. On a thread kept for that; not on a release."""
        watch(self, callback, _tell)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.release()
        except Exception as failure:
            if not noted(failure, error):
                raise


def _tell(callback: Callable[[Held], object], held: Any) -> None:
    if held.lost:
        held._core.call_back(functools.partial(callback, held))


class With(Block[Any]):
    """Leaves a `with`."""

    def __call__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        """At its end."""
        entered = self.entered
        if entered is None or self.left:
            entered = self.by_hand(threading.get_ident())
        if not self.spent and not (entered._depth > 1 and entered._step_out(self)):
            try:
                entered.release()
            except BaseException as failure:
                if not self.survives(failure, error):
                    raise
        self.left = True


class Acquirable(SyncOnly, Lockable[E]):
    """What is taken with a `with`, `acquire` or `try_acquire`: a lock, or several together."""

    def acquire(self, timeout: Seconds | Unset | None = UNSET, **habits: Never) -> E:
        """Wait for the lock and take it; of several, all: on any error none is held.

        Args:
            timeout: seconds; None waits for ever, 0 tries once; the lock's own unless given.
            habits: none; other libraries' arguments are refused with what to write here.

        Raises:
            LockTimeout: still busy; nothing is held and nothing waits.
            AlreadyHeld: this thread holds it and would wait for itself.
            Conflict: its holders disagree on the semaphore's size.
            Unavailable: the backend cannot be reached; nothing is held once it is back.
            Closed: the provider was closed meanwhile.
        """
        if habits:
            raise no_such_argument(habits)
        acquisition = self._begin(self._timeout if timeout is UNSET else check_timeout(timeout))
        try:  # in this very function: an interrupt can strike between a helper's return and ours
            held = run(acquisition.run())
            assert held is not None  # only a try gives None
            return held
        except BaseException:
            acquisition.abandon()
            raise

    def try_acquire(self) -> E | None:
        """Take it if it is free and nobody waits for it; None when it, or any of several, is busy."""
        acquisition = self._begin(0.0)
        try:
            held = run(acquisition.run(trying=True))
            return held  # noqa: RET504  # a statement of its own, or an interrupt after the call would not be met here
        except BaseException:
            acquisition.abandon()
            raise

    def __enter__(self) -> E:
        me = threading.get_ident()
        block = self._blocks.opened(me)
        acquisition = self._begin(self._timeout)
        try:
            held = run(acquisition.run())
            assert held is not None  # only a try gives None
            if block is not None:
                block.entered = held
                held._entered_by(block)
            else:
                self._blocks.enter(me, held)
            return held
        except BaseException:
            self._blocks.undo(block, me, acquisition.held)
            acquisition.abandon()
            raise

    @per_block(With)
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release what this `with` has entered, from whatever thread."""
        With(self)(kind, error, trace)  # not looked up as a `with` does: it is no block that is entered next


class Lock(Acquirable[Held], LockFace[Blocking, Held]):
    """A name and its terms. Acquire it with `with`, `acquire` or `try_acquire`; safe to share between threads.

    As a decorator it holds the lock during each call of a plain function.
    """

    _holds: ClassVar[type[Held]] = Held  # what it gives

    def _make(self, core: LockCore, grant: Grant, sent: float, renew: bool, caller: object) -> Held:
        held = self._holds(core, grant, sent, renew=renew, caller=caller)
        held._runtime = self._runtime
        held._place = here()
        return held

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Hold the lock during each call of `function`, which does its work in that call."""
        if not callable(function) or kind(function) != "plain":
            raise self._refused(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                result = function(*args, **kwargs)
                if unrun(result):
                    raise self._refused(function)
                return result

        return locked

    def _refused(self, function: object) -> TypeError:
        return TypeError(
            f"lock {self.name!r}: expected a plain function, got {function!r}; a coroutine or generator does its work after "
            "the call, when the lock is released: use narrowboat.aio for coroutines, a `with` inside generators"
        )


class HeldAll(HeldTogether[Held]):
    """Several possessions as one, in the order of their names."""

    def release(self) -> None:
        """Free all, last first, also when one of them turns out to be lost; that one's error is raised at the end."""
        try:
            if sys.is_finalizing():
                self._leave_behind()
            else:
                run(self._release(), self._leave_behind)
        except BaseException:
            self._leave_behind()  # interrupted, at whatever point: nothing that is still held stays so
            raise


class AllLocks(Acquirable[HeldAll], AllLocksFace[Blocking, HeldAll, Held]):
    """Several locks to be taken together, all or none; see `Locks.all`."""

    def _make(self, held: Sequence[Held]) -> HeldAll:
        return HeldAll(self._core, self._runtime, held)
