"""Locks for asyncio: the twins of `narrowboat.locking`, with the same names, arguments, results and errors.

A lock belongs to the task that acquired it where nesting is asked for (`reentrant=True`); `on_lost` callbacks run on the
loop that acquired.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from narrowboat import _acquire, events
from narrowboat._acquire import Acquisition
from narrowboat._lease import Possession
from narrowboat._locks import LockCore, Terms, check_timeout
from narrowboat.aio._runtime import Asyncio
from narrowboat.capabilities import LockCapabilities
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Holder, LockProvider
from narrowboat.errors import InvalidArgument
from narrowboat.locking import UNSET, Mode, Seconds, Unset, in_order

P = ParamSpec("P")
R = TypeVar("R")


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
    return Locks(LockCore(url, require, clock, random, listeners, wrap, options))


class Locks:
    """All locks behind one URL; safe to share between tasks and loops. `await close()` it, or use `async with`."""

    def __init__(self, core: LockCore) -> None:
        self._core = core
        self._runtime = Asyncio(core.clock)

    @property
    def capabilities(self) -> LockCapabilities:
        """What this backend claims."""
        return self._core.capabilities

    def lock(
        self,
        name: str,
        *,
        ttl: Seconds = 30,
        timeout: Seconds | None = None,
        mode: Mode = "exclusive",
        limit: int | None = None,
        reentrant: bool = False,
        renew: bool = True,
        label: str | None = None,
    ) -> Lock:
        """A lock by this name, as `narrowboat.locking.Locks.lock`. Nothing is sent yet."""
        terms = Terms(
            self._core,
            name,
            ttl=ttl,
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
        timeout: Seconds | None = None,
        renew: bool = True,
        label: str | None = None,
    ) -> AllLocks:
        """Several locks at once, all or none, as `narrowboat.locking.Locks.all`."""
        made = [
            name if isinstance(name, Lock) else self.lock(name, ttl=ttl, timeout=timeout, renew=renew, label=label)
            for name in names
        ]
        return AllLocks(self._core, self._runtime, in_order(made), check_timeout(timeout))

    async def holders(self, name: str | None = None) -> list[Holder]:
        """Who holds `name`, oldest first; without a name, every name that is held."""
        return await _acquire.ask(self._core, self._runtime, self._core.ask_holders(name))

    async def evict(self, name: str, token: int) -> bool:
        """Break that generation and no other; its holder finds out by its next renewal. False when it is not there."""
        return await _acquire.ask(self._core, self._runtime, self._core.ask_evict(name, token))

    async def ping(self) -> None:
        """One round trip; raises `Unavailable` or `AccessDenied` when the backend cannot be used."""
        await _acquire.ask(self._core, self._runtime, self._core.ask_ping())

    async def close(self) -> None:
        """Release what is held (reason `closed`), wake who waits (`Closed`), end all threads. Idempotent."""
        if self._core.begin_close():
            await in_thread(self._core.finish_close)

    async def __aenter__(self) -> Locks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Locks {self._core.url}>"


class Held(Possession):
    """That a lock is ours. `await release()` it, or leave the `async with` that gave it."""

    __slots__ = ("_loop", "_runtime")
    _loop: asyncio.AbstractEventLoop
    _runtime: Asyncio

    async def renew(self) -> None:
        """Start the lease afresh now, as `narrowboat.locking.Held.renew`."""
        await _acquire.renew(self._core, self._runtime, self)

    async def release(self) -> None:
        """Free it and wake who is next, as `narrowboat.locking.Held.release`."""
        await _acquire.release(self._core, self._runtime, self)

    async def wait_lost(self, timeout: Seconds | None = None) -> bool:
        """Wait until it is lost: True; False when it was released, or after `timeout` seconds."""
        return await _acquire.wait_lost(self._core, self._runtime, self, check_timeout(timeout))

    def on_lost(self, callback: Callable[[Held], object]) -> None:
        """Call `callback(held)` once when it is lost, at once if it is. On the loop that acquired it; not on a release."""
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise InvalidArgument(f"on_lost({callback!r}): expected a plain function of one argument")

        def watcher() -> None:
            if self.lost:
                try:
                    self._loop.call_soon_threadsafe(callback, self)
                except RuntimeError:
                    pass  # that loop is closed: there is nobody left to tell

        if not self._watch(watcher):
            watcher()

    async def __aenter__(self) -> Held:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await leave(self.release, error)


class Lock:
    """A name and its terms. Acquire it with `async with`, `acquire` or `try_acquire`; safe to share between tasks.

    As a decorator it holds the lock during each call of a coroutine function.
    """

    def __init__(self, core: LockCore, runtime: Asyncio, terms: Terms) -> None:
        self._core = core
        self._runtime = runtime
        self._terms = terms
        self._entered: dict[object, list[Held]] = {}  # by task: `async with` on a shared lock keeps each task's own

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._terms.name

    async def acquire(self, timeout: Seconds | Unset | None = UNSET) -> Held:
        """Wait for the lock and take it; arguments and errors as `narrowboat.locking.Lock.acquire`."""
        acquisition = self._begin(self._terms.timeout if timeout is UNSET else check_timeout(timeout))
        try:
            held = await acquisition.run()
            assert held is not None  # only a try gives None
            return held
        except BaseException:
            acquisition.abandon()
            raise

    async def try_acquire(self) -> Held | None:
        """Take the lock if it is free and nobody waits for it; None when it is busy."""
        acquisition = self._begin(0.0)
        try:
            return await acquisition.run(trying=True)
        except BaseException:
            acquisition.abandon()
            raise

    def _begin(self, timeout: float | None) -> Acquisition[Held]:
        return Acquisition(self._core, self._runtime, self._terms, timeout, self._make)

    def _make(self, core: LockCore, grant: Grant, sent: float, renew: bool, caller: object) -> Held:
        held = Held(core, grant, sent, renew=renew, caller=caller)
        held._runtime = self._runtime
        held._loop = asyncio.get_running_loop()
        return held

    async def __aenter__(self) -> Held:
        held = await self.acquire()
        self._entered.setdefault(asyncio.current_task(), []).append(held)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        mine = self._entered[task]
        held = mine.pop()
        if not mine:
            del self._entered[task]
        await leave(held.release, error)

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

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} {self._terms.mode.value} ttl={self._terms.ttl:g}>"


class HeldAll:
    """Several possessions as one, in the order of their names."""

    def __init__(self, held: Sequence[Held]) -> None:
        self._held = tuple(held)

    def __getitem__(self, index: int) -> Held:
        return self._held[index]

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held)

    @property
    def lost(self) -> bool:
        """Whether any of them is lost."""
        return any(held.lost for held in self._held)

    def check(self) -> None:
        """Raise `LeaseLost` when any may no longer be ours."""
        for held in self._held:
            held.check()

    async def release(self) -> None:
        """Free all, last first, also when one of them turns out to be lost; that one's error is raised at the end."""
        first: Exception | None = None
        for held in reversed(self._held):
            try:
                await held.release()
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


class AllLocks:
    """Several locks to be taken together; see `Locks.all`."""

    def __init__(self, core: LockCore, runtime: Asyncio, locks: Sequence[Lock], timeout: float | None) -> None:
        self._core = core
        self._runtime = runtime
        self._locks = locks
        self._timeout = timeout
        self._entered: dict[object, list[HeldAll]] = {}

    async def acquire(self, timeout: Seconds | Unset | None = UNSET) -> HeldAll:
        """Wait for all and take them; on any error none is held. Raises as `Lock.acquire`."""
        held = await self._take(self._timeout if timeout is UNSET else check_timeout(timeout), trying=False)
        assert held is not None  # only a try gives None
        return held

    async def try_acquire(self) -> HeldAll | None:
        """Take them all if each is free; None when any is busy."""
        return await self._take(0.0, trying=True)

    async def _take(self, timeout: float | None, *, trying: bool) -> HeldAll | None:
        acquisitions = [lock._begin(timeout) for lock in self._locks]
        held = await _acquire.acquire_all(acquisitions, timeout, self._undo, trying=trying)
        return None if held is None else HeldAll(held)

    def _undo(self, held: Sequence[Held]) -> None:
        """Posted: a task that is being cancelled must not wait."""
        for one in reversed(held):
            _acquire.drop(self._core, self._runtime, one)

    async def __aenter__(self) -> HeldAll:
        held = await self.acquire()
        self._entered.setdefault(asyncio.current_task(), []).append(held)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        mine = self._entered[task]
        held = mine.pop()
        if not mine:
            del self._entered[task]
        await leave(held.release, error)


async def leave(release: Callable[[], Awaitable[None]], error: BaseException | None) -> None:
    """Release at the end of an `async with`. The body's own error goes on unchanged, with a note of what was met."""
    try:
        await release()
    except Exception as failure:
        if error is None:
            raise
        error.add_note(f"narrowboat: releasing the lock afterwards: {type(failure).__name__}: {failure}")


async def in_thread(function: Callable[[], None]) -> None:
    """Run something that blocks on a thread that ends with it; the default executor's would stay."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(_finish, done, error)
        except RuntimeError:
            pass  # the loop has ended meanwhile, and with it whoever waited

    thread = threading.Thread(target=work, name="narrowboat-close")
    thread.start()
    try:
        await asyncio.shield(done)
    finally:
        if done.done():
            thread.join()


def _finish(done: asyncio.Future[None], error: BaseException | None) -> None:
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
