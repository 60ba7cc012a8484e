"""What a scenario is handed: one backend on one face, in a namespace of its own.

What a scenario opens through its kit is tapped, and is closed at the scenario's end. It has the asyncio face's names and
`await`s, whichever face is under test. Lower bounds of time are asserted as they are. Upper bounds go through `upper`, which
extends them by the time for which the machine stood still. A scenario does not sleep for what it can wait for: it uses
`eventually`, `until_waiting` and a child's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

import narrowboat
import narrowboat.aio
from narrowboat._engine.validity import MARGIN, MARGIN_SHARE
from narrowboat.capabilities import BrokerCapabilities, Expiry, LockCapabilities, Support, WaitOrder
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.faults.server import Server
from narrowboat.conformance.faults.tap import Seen, tapped
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.measured import Measured, missed
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.users.faces import in_my_thread, unwrap, worker_of, wrap
from narrowboat.conformance.users.opening import opened
from narrowboat.conformance.watch import watch
from narrowboat.conformance.watch.stretch import PAUSED_SHARE, SHORT, stretch
from narrowboat.contract import Holder
from narrowboat.errors import NarrowboatError
from narrowboat.layers.faults import Faults

T = TypeVar("T")


class Kit:
    """See the module's text. `size` scales the rounds of stress scenarios, 1.0 being the full size."""

    def __init__(self, harness: Harness, face: str, half: str, *, size: float = 1.0) -> None:
        self.harness = harness
        self.face = face
        self.half = half
        self.size = size
        self.watch = watch()
        self.begun = time.monotonic()
        #: how many times longer its short leases are than on a machine that never stands still
        self.stretch = stretch(self.watch, self.begun)
        self._shortest: float | None = None
        self.namespace = harness.namespace()
        self.seen = Seen()
        self.measured: list[Measured] = []
        self._opened: list[Any] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._children: list[Child] = []
        self._networks: list[Network] = []
        self.drivers: list[Any] = []  #: the backend's own drivers, of every face opened here, in the order of first use
        self._outside: Any = None
        self._shaken = False

    # -- what is under test ---------------------------------------------------------------------------------------

    @property
    def locks_url(self) -> str:
        """The URL of the scenario's locks, for children and for other faces."""
        return self.harness.locks_url(self.namespace)

    @property
    def broker_url(self) -> str:
        """The URL of the scenario's messages."""
        return self.harness.broker_url(self.namespace)

    @property
    def claims(self) -> LockCapabilities:
        """The claims of the lock half."""
        return self.harness.lock_claims

    @property
    def broker_claims(self) -> BrokerCapabilities:
        """The claims of the message half."""
        return self.harness.broker_claims

    def can(self, *names: str) -> bool:
        """Whether the scenario's half makes all these claims, such as "holders" or "dead_letters"."""
        claims = self.claims if self.half == "locks" else self.broker_claims
        return all(getattr(claims, name) is not Support.ABSENT for name in names)

    def locks(
        self, *, face: str | None = None, url: str | None = None, faults: Faults | None = None, **arguments: Any
    ) -> narrowboat.aio.Locks:
        """A new `Locks` in this scenario's namespace. `face` is for mixed faces; other arguments go to `narrowboat.locks`."""
        arguments["wrap"] = self._wrap(arguments.get("wrap"), faults)
        entry = narrowboat if (face or self.face) == "sync" else narrowboat.aio
        made = entry.locks(url if url is not None else self.locks_url, **arguments)
        return cast("narrowboat.aio.Locks", self._keep(made))

    def broker(
        self, *, face: str | None = None, url: str | None = None, faults: Faults | None = None, **arguments: Any
    ) -> narrowboat.aio.Messaging:
        """A new broker in this scenario's namespace. Its arguments are those of `locks`."""
        arguments["wrap"] = self._wrap(arguments.get("wrap"), faults)
        made = opened(url if url is not None else self.broker_url, face or self.face, **arguments)
        return cast("narrowboat.aio.Messaging", self._keep(made))

    def _keep(self, made: Any) -> Any:
        wrapped = wrap(made)
        self._opened.append(wrapped)
        return wrapped

    def _wrap(self, own: Callable[[Any], Any] | None, faults: Faults | None) -> Callable[[Any], Any]:
        """Layers from the driver outwards: the harness's own (a mutant), the tap, the faults, the scenario's."""

        def layers(driver: Any) -> Any:
            self.drivers.append(driver)
            if self.harness.wrap is not None:
                driver = self.harness.wrap(driver)
            driver = tapped(self.seen, driver)
            if faults is not None:
                driver = faults.wrap(driver)
            return driver if own is None else own(driver)

        return layers

    # -- tasks ----------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Another user of the backend: a task, and on the sync face a thread."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """Do all of it at once, each as its own user. The first error is raised after all have ended."""
        tasks = [self.spawn(each) for each in work]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast("list[T]", results)

    async def cancel(self, task: asyncio.Task[Any], *, within: float = 5.0, wake: Callable[[], None] | None = None) -> None:
        """Cancel it, or on the sync face interrupt its thread as Ctrl-C would, and wait until it has ended.

        `wake` ends that thread's wait for the driver. By default all waits of this process end, those of neighbours too.
        """
        begun = time.monotonic()
        struck = False
        again = begun + within
        while not task.done():
            assert not self.over(begun, within), f"a task did not end within {within:g} s after it was cancelled"
            worker = worker_of(task)
            if struck and worker is not None and (worker.missed or time.monotonic() > again):
                struck = False  # it came too late, or in a weak reference's callback, where CPython swallows it
            if not struck and worker is not None and worker.busy:
                again = time.monotonic() + 1.0
                struck = worker.interrupt()  # False: the thread's result is on its way to the task, and must not be dropped
            elif not struck:
                struck = task.cancel()
            if worker is not None:
                (wake or self.seen.wake_all)()
            await asyncio.wait([task], timeout=0.01 if struck else 0.001)

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Run a plain function in this task's own thread, off the loop."""
        return cast("T", await in_my_thread(function, *args))

    async def soon(self, work: Awaitable[T], within: float = 5.0) -> T:
        """The result of `work`, which may take `within` seconds and the pauses of the machine."""
        limit = asyncio.timeout(self.upper(within))
        try:
            async with limit:
                return await work
        except TimeoutError:  # of the limit, or of the work itself
            if limit.expired():
                raise AssertionError(missed(within, "a call was to end, and has not")) from None
            raise

    # -- time -----------------------------------------------------------------------------------------------------

    def check_ttl(self, effective: float, asked: float) -> None:
        """The lease shown is the one that was asked for, or, where a session is the lease, one that ends within it."""
        if self.claims.expiry is Expiry.SESSION:
            assert 0 < effective <= asked, f"asked for at most {asked:g} s, got {effective:g} s"
        else:
            assert effective == asked, f"asked for {asked:g} s, got {effective:g} s"

    def excludes(self, lease: float) -> float:
        """Seconds for which an unrenewed lease of `lease` seconds excludes others at least, from before its request.

        Where a session is the lease, its holder gives up a margin earlier by its own clock, and so frees the lock.
        """
        margin = max(MARGIN, lease * MARGIN_SHARE) + self.claims.margin
        return lease - margin if self.claims.expiry is Expiry.SESSION else lease

    @property
    def ttl(self) -> float:
        """A short lease in seconds that this backend can keep. Pauses of the machine do not end it."""
        return self.lease(self.claims.ttl_min)

    @property
    def operation(self) -> float:
        """Seconds that a driver call may block where a network or server breaks: short, because scenarios wait for so long."""
        return (1.0 if self.half == "locks" else 2.0) * self.stretch

    def lease(self, least: float, usual: float = SHORT) -> float:
        """A short lease of `least` seconds or more. It has `usual` seconds on a machine that does not stand still."""
        lease = max(least, usual * self.stretch)
        self._shortest = min(lease, self._shortest or lease)
        return lease

    def upper(self, seconds: float) -> float:
        """An upper bound for a time that ends now, extended by the pauses of the machine in that time and by nothing else.

        Before a wait it is extended by the pauses of as long a time just before. Never use it for a lower bound.
        """
        return self.watch.extended(seconds)

    def over(self, begun: float, seconds: float) -> bool:
        """Whether `seconds` seconds have passed since `begun`, not counting pauses of the machine."""
        return time.monotonic() - begun >= seconds and self.watch.spent(begun) >= seconds

    def excuse(self) -> str:
        """Why a failure proves nothing: pauses of the machine took too much of a short lease. "" when they did not."""
        if self._shortest is None:
            return ""
        stood = self.watch.stood(self.begun, time.monotonic(), self._shortest)
        if stood <= self._shortest * PAUSED_SHARE:
            return ""
        return f"the machine stood still for {stood:.2g} s of a lease of {self._shortest:g} s"

    async def sleep(self, seconds: float) -> None:
        """Let real time pass. Use it only where the passing of time is itself tested."""
        await asyncio.sleep(seconds)

    async def answers(self, face: Any) -> bool:
        """Whether a ping of `face`, locks or a broker, is answered."""
        try:
            await face.ping()
        except NarrowboatError:
            return False
        return True

    async def eventually(
        self,
        probe: Callable[[], Any | Awaitable[Any]],
        *,
        within: float = 5.0,
        what: str | Callable[[], str] = "",
        every: float = 0.005,
    ) -> Any:
        """Wait until `probe()` is true, and return what it gave.

        `AssertionError` with `what` after `within` seconds, not counting pauses of the machine. `what` is a sentence that says
        what is waited for, and may be a function where it shows what was seen.
        """
        begun = time.monotonic()
        while True:
            value = probe()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            if self.over(begun, within):
                raise AssertionError(missed(within, what() if callable(what) else what or probe))
            await asyncio.sleep(every + (time.monotonic() - begun) / 50)  # a long wait is no load on those beside it

    @contextlib.contextmanager
    def within(self, seconds: float, what: str, *, least: float = 0.0, measure: str = "") -> Iterator[None]:
        """The block takes less than `seconds` and pauses of the machine, and not less than `least` seconds.

        `what` names the block in the error. `measure` is the name under which the report shows its time.
        """
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        if measure:
            self.measure(measure, took, bound=seconds)
        assert took >= least, f"{what}: it took {took:.4f} s, and {least:g} s at least was owed"
        assert took < seconds or took < self.upper(seconds), missed(seconds, f"{what}: it took {took:.3f} s")

    def measure(self, what: str, value: float, unit: str = "s", *, bound: float | None = None) -> None:
        """Put a number into the report, under a name such as "wake-up after release", beside the bound that it must keep.

        `bound` is what the backend declares, without what pauses of the machine add to it.
        """
        self.measured.append(Measured(what, value, unit, bound))

    # -- looking from outside -------------------------------------------------------------------------------------

    @property
    def outside(self) -> narrowboat.aio.Locks:
        """A connection of its own to the same namespace, to see what others see."""
        if self._outside is None:
            self._outside = self.locks()
        return cast("narrowboat.aio.Locks", self._outside)

    async def peek(self, name: str) -> list[Holder]:
        """Who holds `name`, as another connection sees it."""
        return list(await self.outside.holders(name))

    async def free(self, name: str, **terms: Any) -> bool:
        """Whether another connection can take `name` now. It takes the lock and releases it."""
        held = await self.outside.lock(name, ttl=max(self.claims.ttl_min, 5.0), **terms).try_acquire()
        if held is None:
            return False
        await held.release()
        return True

    async def stays(self, held: Any, why: str = "somebody else can have the lock") -> None:
        """The holder of `held` still has it: it can be renewed, and nobody else gets in. `why` is the error otherwise."""
        held.check()
        await held.renew()
        assert not await self.free(held.name), why

    def told_of(self, held: Any) -> list[float]:
        """The times at which its holder is told of the loss of `held`. The list is filled when that happens."""
        told: list[float] = []
        held.on_lost(lambda lost: told.append(time.monotonic()))
        return told

    async def queued(self, work: Coroutine[Any, Any, T], name: str, count: int = 1) -> asyncio.Task[T]:
        """`spawn(work)`, an acquire, once it is one of `count` that wait for `name`; see `until_waiting`."""
        task = self.spawn(work)
        await self.until_waiting(name, count)
        return task

    async def until_waiting(self, name: str, count: int = 1) -> None:
        """Wait until `count` users of this process wait for `name` at the backend (one, where it keeps no queue)."""
        wanted = count if self.claims.order is WaitOrder.FIFO else min(count, 1)
        await self.eventually(lambda: self.seen.waiting(name) >= wanted, what=f"{count} waiting for {name!r}")

    # -- processes ------------------------------------------------------------------------------------------------

    async def child(self, program: Callable[..., Any], *, env: dict[str, str] | None = None, **arguments: Any) -> Child:
        """A process that runs `program(link, **arguments)`. If it still lives at the end of the scenario, it is killed."""
        child = await Child.start(program, arguments, self.watch, env or {}, [self.harness.url])
        self._children.append(child)
        return child

    # -- networks and servers -------------------------------------------------------------------------------------

    async def network(self) -> Network:
        """A new network: `kit.locks(url=network.url)` goes through it. The scenario declares `Fault.PROXY`."""
        url = self.locks_url if self.half == "locks" else self.broker_url
        made = await self.blocking(self.harness.network, url)
        self._networks.append(made)
        return made

    @property
    def server(self) -> Server:
        """The server's process. It runs again when the scenario, which declares the fault, has ended."""
        assert self.harness.server is not None, "a scenario that uses the server declares the fault that it makes"
        self._shaken = True
        return self.harness.server

    # -- the end --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the children, faces and tasks that the scenario left. `AssertionError` when a face or a task does not end."""
        if self._shaken and self.harness.server is not None:
            await self.blocking(self.harness.server.resume)
            await self.blocking(self.harness.server.start)
        for network in self._networks:
            await self.blocking(network.heal)  # a face that is closed below may have a last call for the server
        await asyncio.gather(*(child.close() for child in self._children))
        own = asyncio.current_task()
        stuck = []
        for face in reversed(self._opened):
            closing = asyncio.create_task(_close(face))
            done, _ = await asyncio.wait([closing], timeout=self.upper(15))
            if not done:
                stuck.append(repr(face))
            elif (error := closing.exception()) is not None:
                raise error
        left = [task for task in self._tasks if not task.done() and task is not own]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.upper(5))
        stuck += [repr(task) for task in left if not task.done()]
        for network in self._networks:
            await self.blocking(network.close)
        self.harness.cleanup(self.namespace)
        assert not stuck, f"did not end when closed: {', '.join(stuck)}"


async def _close(face: Any) -> None:
    closed = face.close()
    if inspect.isawaitable(closed):
        await closed


def plain(value: Any) -> Any:
    """The object of the face under test itself, for code outside the kit."""
    return unwrap(value)


__all__ = ["Faults", "Kit", "plain"]
