"""Locks: left elsewhere, left in doubt, left twice, forgotten; called from where nobody expects it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

from narrowboat import events
from narrowboat.capabilities import Expiry
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.faults.sweep import cut_block
from narrowboat.conformance.kit import Faults, Kit, plain
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import LockTimeout, NestedCall, Unavailable

#: More points than a block can have: a sweep that reaches it does not end by itself.
_POINTS = 5000
#: Seconds of an operation timeout where no call is answered.
_OPERATION = 1.0


@scenario("L121")
async def a_with_is_left_where_it_was_not_entered(kit: Kit) -> None:
    """A `with` whose end runs in another thread or task than its beginning releases what it entered, one lock or several."""
    locks = kit.locks()
    for target in (locks.lock("a", ttl=60), locks.all("a", "b", ttl=60)):
        for manager in (_generator(kit, plain(target)), _stack(kit, plain(target))):
            await kit.spawn(_call(kit, manager, "enter"))
            assert not await kit.free("a"), "it was not entered"
            await kit.spawn(_call(kit, manager, "exit", None, None, None))
            assert await kit.free("a"), "left in another task, and still held"
            assert await kit.free("b"), "left in another task, and still held"
    await (await locks.all("a", "b").acquire(timeout=5)).release()


def _generator(kit: Kit, target: Any) -> Any:
    """A `with` in a generator that is finished by whoever finishes it."""

    @contextlib.contextmanager
    def entered() -> Any:
        with target as held:
            yield held

    @contextlib.asynccontextmanager
    async def entered_async() -> Any:
        async with target as held:
            yield held

    return entered() if kit.face == "sync" else entered_async()


def _stack(kit: Kit, target: Any) -> Any:
    """An exit stack, which calls the two by itself."""

    class Stack(contextlib.ExitStack):
        def __enter__(self) -> Any:
            return self.enter_context(target)

    class AsyncStack(contextlib.AsyncExitStack):
        async def __aenter__(self) -> Any:
            return await self.enter_async_context(target)

    return Stack() if kit.face == "sync" else AsyncStack()


async def _call(kit: Kit, manager: Any, what: str, *args: Any) -> Any:
    if kit.face == "sync":
        return await kit.blocking(getattr(manager, f"__{what}__"), *args)
    return await getattr(manager, f"__a{what}__")(*args)


@scenario("L122", tier="T", faults={Fault.REPLY})
async def a_release_in_doubt_ends_the_renewal(kit: Kit) -> None:
    """A release that nobody answers ends the renewal: free after one ttl at the latest, for its own thread or task as well."""
    faults = Faults()
    locks = kit.locks(faults=faults)
    lock = locks.lock("a", ttl=kit.ttl)
    with raises(Unavailable):
        async with lock as held:
            faults.drop_request("release", times=2)
            if kit.claims.expiry is Expiry.LEASE:  # the lease ends by itself; a session goes on, and a withdraw frees it
                faults.drop_request("withdraw", times=1000)
    with kit.within(
        kit.ttl + kit.claims.expiry_lag + 1,
        "a lock whose release was not answered is renewed by somebody",
        measure="time until a lock is free whose release was not answered",
    ):
        again = await lock.acquire(timeout=kit.upper(2 * kit.ttl + kit.claims.expiry_lag + 2))
    assert again.token > held.token
    faults.clear()
    await again.release()


@scenario("L123", faults={Fault.REPLY})
async def two_releases_at_once_are_one(kit: Kit) -> None:
    """Two releases of one possession at the same time both end well, and nobody is told of a loss."""
    faults = Faults()
    locks = kit.locks(faults=faults)
    told: list[object] = []
    for _ in range(5):
        held = await locks.lock("a", ttl=60).acquire(timeout=5)
        held.on_lost(told.append)
        gate = faults.hold("release")
        first = kit.spawn(held.release())
        assert await kit.blocking(gate.reached.wait, 10)
        second = kit.spawn(held.release())
        await asyncio.sleep(0.01)
        gate.open()
        await asyncio.gather(first, second)
        assert not held.lost and held.reason is None
        assert await kit.free("a")
    await kit.sleep(0.1)
    assert not told, "told of a loss of what was released in good order"


@scenario("L124", tier="T")
async def a_forgotten_possession_with_a_callback_ends(kit: Kit) -> None:
    """Who waits to be told of a loss keeps no possession alive: forgotten, it is free within its ttl, without a collection."""
    locks = kit.locks()
    gc.disable()
    try:
        await _forget(locks, kit.ttl)
        bound = kit.ttl + kit.claims.expiry_lag + 1
        await kit.eventually(lambda: kit.free("a"), within=bound, every=0.05, what="a forgotten lock with a callback is free")
    finally:
        gc.enable()


async def _forget(locks: Any, ttl: float) -> None:
    held = await locks.lock("a", ttl=ttl).acquire(timeout=5)
    held.on_lost(lambda lost: None)
    del held


@scenario("L125", tier="T")
async def what_one_callback_raises_silences_no_other(kit: Kit) -> None:
    """Listeners and callbacks that raise, `SystemExit` included: every other one is told."""
    heard: list[events.Event] = []

    def bad(event: object) -> None:
        raise SystemExit(3)

    locks = kit.locks(listeners=[bad, heard.append])
    told: list[str] = []

    def leaves(held: Any) -> None:
        told.append(held.name)
        if kit.face == "sync":  # on a loop an error is the loop's, and SystemExit ends it
            raise SystemExit(3)

    possessions = [await locks.lock(name, ttl=kit.ttl, renew=False).acquire(timeout=5) for name in "abc"]
    for held in possessions:
        held.on_lost(leaves)
    await kit.eventually(lambda: sorted(told) == ["a", "b", "c"], within=kit.ttl + 5, what=lambda: f"told only {told}")
    await (await locks.lock("d", ttl=60).acquire(timeout=5)).release()
    kinds = {type(event) for event in heard}
    assert {events.Acquired, events.Lost, events.Released} <= kinds, f"heard only of {kinds}"


@scenario("L126")
async def a_call_out_of_the_middle_of_another_never_hangs(kit: Kit) -> None:
    """A release that strikes inside a call of its thread is done right after; every other call is a NestedCall at once."""
    faults = Faults()
    locks, handlers = kit.locks(faults=faults), kit.locks(face="sync")
    ours = plain(await handlers.lock("ours", ttl=60).acquire(timeout=5))
    await (await locks.lock("warm", ttl=60).acquire(timeout=5)).release()
    met: list[type[BaseException] | None] = []

    def strikes() -> None:
        calls: tuple[Callable[[], object], ...] = (
            plain(handlers).lock("x").acquire,
            plain(handlers).lock("x").try_acquire,
            plain(handlers).close,
            ours.renew,
            *([plain(handlers).holders] if kit.can("holders") else []),
        )
        for call in calls:
            try:
                call()
                met.append(None)
            except NestedCall as error:
                met.append(type(error))
        ours.check()
        ours.release()
        ours.release()

    faults.call("attempt", lambda requests: strikes())  # as a signal handler would, or a finaliser
    async with asyncio.timeout(kit.upper(10)):
        held = await locks.lock("a", ttl=60).acquire(timeout=5)
    assert met == [NestedCall] * (5 if kit.can("holders") else 4), f"met {met}"
    await kit.eventually(lambda: kit.free("ours"), within=3, what="what was released in the middle of another call is free")
    assert not ours.lost
    held.check()
    await held.release()
    await (await handlers.lock("ours", ttl=60).acquire(timeout=5)).release()


def _no_answer(items: object) -> None:
    """Of a server that is away: the call ends after its operation timeout, and no earlier."""
    time.sleep(_OPERATION)
    raise Unavailable("no answer")


@scenario("L127", tier="T")
async def a_call_that_nobody_answers_ends_in_time(kit: Kit) -> None:
    """A try, an acquire and a release that nobody answers end within their own time and one operation timeout."""
    faults = Faults()
    for what, own in (("try", 0.0), ("acquire", 0.5), ("release", 0.0)):
        locks = kit.locks(faults=faults, timeout=_OPERATION)
        held = await locks.lock(what, ttl=60).acquire(timeout=5)
        for operation in ("attempt", "release", "withdraw"):
            faults.call(operation, _no_answer, times=1000)
        lock = locks.lock("x", ttl=60, timeout=own)
        call: Callable[[], Awaitable[Any]] = {"try": lock.try_acquire, "acquire": lock.acquire, "release": held.release}[what]
        with kit.within(own + 1.5 * _OPERATION, what, measure=f"{what} that nobody answers"):
            await fails((Unavailable, LockTimeout), call(), what=f"{what} that nobody answers")
        faults.clear()
        await locks.close()
    await kit.eventually(lambda: kit.free("x"), within=5, what="what was asked for in vain is free")


@scenario("L128", tier="S", alone=True, seconds=240)
async def a_block_cut_off_at_any_point_leaves_nothing(kit: Kit) -> None:
    """A `with` of one lock or of several, cut off at any point of entering and leaving: nobody holds, soon, and it goes on."""
    locks, others = kit.locks(), kit.locks()
    await (await locks.all("a", "b", ttl=60).acquire(timeout=5)).release()
    points = 0
    for target in (locks.lock("a", ttl=60), locks.all("a", "b", ttl=60)):
        for delay in (0, 1, 3) if kit.face == "asyncio" else (0,):
            for point in range(_POINTS):
                result = await kit.spawn(cut_block(_block(kit, plain(target)), point, delay))
                with kit.within(2, f"cut off at point {point}: free late"):
                    try:
                        held = await others.all("a", "b", ttl=60).acquire(timeout=kit.upper(4))
                    except LockTimeout:
                        raise AssertionError(f"cut off at point {point} ({result.error}): held by nobody") from None
                await held.release()
                if not result.struck:
                    points += point
                    break
    kit.measure("points at which a block was cut off", points, "points")
    assert points > 5, "the sweep found no points"


def _block(kit: Kit, target: Any) -> Callable[[], Any]:
    def block() -> None:
        with target:
            pass

    async def block_async() -> None:
        async with target:
            await asyncio.sleep(0)

    return block if kit.face == "sync" else block_async
