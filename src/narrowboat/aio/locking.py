"""Locks for asyncio: the twins of `narrowboat.locking`, with the same names, arguments, results and errors.

A lock belongs to the task that acquired it where nesting is asked for (`reentrant=True`); `on_lost` callbacks run on the
loop that acquired.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Never, ParamSpec, TypeVar

from narrowboat._engine.holdable import AsyncOnly, no_such_argument
from narrowboat._engine.later_events import events
from narrowboat._locks import release
from narrowboat._locks.blocks import Block, Entered, noted, per_block
from narrowboat._locks.composite import HeldTogether, in_order
from narrowboat._locks.core import LockCore
from narrowboat._locks.faces import AllLocksFace, Lockable, LockFace, LocksFace, watch
from narrowboat._locks.possession import Possession
from narrowboat._locks.terms import check_timeout
from narrowboat.aio._runtime import Asyncio
from narrowboat.aio._threads import finish
from narrowboat.aio.electable import Electable
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Holder, LockProvider
from narrowboat.dsn import hidden, hidden_secrets
from narrowboat.locking import UNSET, Mode, Seconds, Unset

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entered)


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
    """Locks on the backend that `url` names, for asyncio. Arguments and errors as `narrowboat.locks`."""
    url, options = hidden(url), hidden_secrets(options)
    core = LockCore(url, require, clock, random, listeners, wrap, options)
    return Locks(core, Asyncio(core.clock))


class Locks(Electable, AsyncOnly, LocksFace[Asyncio]):
    """All locks behind one URL; safe to share between tasks and loops. `await close()` it, or use `async with`."""

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
        """A lock by this name, as `narrowboat.locking.Locks.lock`. Nothing is sent yet."""
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
        """Several locks at once, all or none, as `narrowboat.locking.Locks.all`."""
        alike = functools.partial(self.lock, ttl=ttl, at_least=at_least, timeout=timeout, renew=renew, label=label)
        made = [name if isinstance(name, Lock) else alike(name) for name in names]
        return AllLocks(self._core, self._runtime, in_order(made), check_timeout(timeout))

    async def holders(self, name: str | None = None) -> list[Holder]:
        """Who holds `name`, oldest first; without a name, every name that is held."""
        return await release.ask(self._core, self._runtime, self._core.ask_holders(name))

    async def evict(self, name: str, token: int) -> bool:
        """Break that generation and no other; its holder finds out by its next renewal. False when it is not there."""
        return await release.ask(self._core, self._runtime, self._core.ask_evict(name, token))

    async def ping(self) -> None:
        """One round trip; raises `Unavailable` or `AccessDenied` when the backend cannot be used."""
        await release.ask(self._core, self._runtime, self._core.ask_ping())

    async def close(self) -> None:
        """Release what is held (reason `closed`), wake who waits (`Closed`), end all threads. Idempotent."""
        if self._core.begin_close():
            await finish(self._core)

    async def __aenter__(self) -> Locks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Held(Possession):
    """That a lock is ours. `await release()` it, or leave the `async with` that gave it."""

    __slots__ = ("_loop", "_runtime")
    _core: LockCore
    _loop: asyncio.AbstractEventLoop
    _runtime: Asyncio

    async def renew(self) -> None:
        """Start the lease afresh now, as `narrowboat.locking.Held.renew`."""
        await release.renew(self._core, self._runtime, self)

    async def release(self) -> None:
        """Free it and wake who is next, as `narrowboat.locking.Held.release`."""
        await release.release(self._core, self._runtime, self)

    async def wait_lost(self, timeout: Seconds | None = None) -> bool:
        """Wait until it is lost: True; False when it was released, or after `timeout` seconds."""
        return await release.wait_lost(self._core, self._runtime, self, check_timeout(timeout))

    def on_lost(self, callback: Callable[[Held], object]) -> None:
        """Call `callback(held)` once when it is lost, at once if it is. On the loop that acquired it; not on a release."""
        watch(self, callback, _tell)

    async def __aenter__(self) -> Held:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.release()
        except Exception as failure:
            if not noted(failure, error):
                raise


def _tell(callback: Callable[[Held], object], held: Any) -> None:
    if held.lost:
        try:
            held._loop.call_soon_threadsafe(callback, held)
        except RuntimeError:
            pass  # that loop is closed: there is nobody left to tell


class With(Block[Any]):
    """Leaves an `async with`."""

    async def __call__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        """At its end."""
        entered = self.entered
        if entered is None or self.left:
            entered = self.by_hand(asyncio.current_task())
        if not self.spent and not (entered._depth > 1 and entered._step_out(self)):
            try:
                await entered.release()
            except BaseException as failure:
                if not self.survives(failure, error):
                    raise
        self.left = True


class Acquirable(AsyncOnly, Lockable[E]):
    """What is taken with an `async with`, `acquire` or `try_acquire`: a lock, or several together."""

    async def acquire(self, timeout: Seconds | Unset | None = UNSET, **habits: Never) -> E:
        """Wait for the lock and take it; of several, all. Arguments and errors as `narrowboat.Lock.acquire`."""
        if habits:
            raise no_such_argument(habits)
        acquisition = self._begin(self._timeout if timeout is UNSET else check_timeout(timeout))
        try:
            held = await acquisition.run()
            assert held is not None  # only a try gives None
            return held
        except BaseException:
            acquisition.abandon()
            raise

    async def try_acquire(self) -> E | None:
        """Take it if it is free and nobody waits for it; None when it, or any of several, is busy."""
        acquisition = self._begin(0.0)
        try:
            return await acquisition.run(trying=True)
        except BaseException:
            acquisition.abandon()
            raise

    def __aenter__(self) -> Coroutine[Any, Any, E]:
        return self._enter(self._blocks.opened(threading.get_ident()))

    async def _enter(self, block: Block[E] | None) -> E:
        task = asyncio.current_task()
        acquisition = self._begin(self._timeout)
        try:
            held = await acquisition.run()
            assert held is not None  # only a try gives None
            if block is not None:
                block.entered = held
                held._entered_by(block)
            else:
                self._blocks.enter(task, held)
            return held
        except BaseException:
            self._blocks.undo(block, task, acquisition.held)
            acquisition.abandon()
            raise

    @per_block(With)
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what this `async with` has entered, from whatever task or loop."""
        await With(self)(kind, error, trace)  # not looked up as a `with` does: it is no block that is entered next


class Lock(Acquirable[Held], LockFace[Asyncio, Held]):
    """A name and its terms. Acquire it with `async with`, `acquire` or `try_acquire`; safe to share between tasks.

    As a decorator it holds the lock during each call of a coroutine function.
    """

    _holds: ClassVar[type[Held]] = Held  # what it gives

    def _make(self, core: LockCore, grant: Grant, sent: float, renew: bool, caller: object) -> Held:
        held = self._holds(core, grant, sent, renew=renew, caller=caller)
        held._runtime = self._runtime
        held._loop = asyncio.get_running_loop()
        return held

    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Hold the lock during each call of the coroutine function."""
        if not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"lock {self.name!r}: expected a coroutine function, got {function!r}; for plain functions use "
                "narrowboat.locks, inside generators an `async with`"
            )

        @functools.wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self:
                return await function(*args, **kwargs)

        return locked


class HeldAll(HeldTogether[Held]):
    """Several possessions as one, in the order of their names."""

    async def release(self) -> None:
        """Free all, last first, also when one of them turns out to be lost; that one's error is raised at the end."""
        try:
            await self._release()
        except BaseException:
            self._leave_behind()
            raise


class AllLocks(Acquirable[HeldAll], AllLocksFace[Asyncio, HeldAll, Held]):
    """Several locks to be taken together, all or none; see `Locks.all`."""

    def _make(self, held: Sequence[Held]) -> HeldAll:
        return HeldAll(self._core, self._runtime, held)
