"""Locks: possessions that are released elsewhere, in doubt or twice, or are forgotten; and calls out of other calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from narrowboat import events
from narrowboat.capabilities import Expiry
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.faults.sweep import Cut, cut_block
from narrowboat.conformance.kit import Faults, plain
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import LockTimeout, NestedCall, Unavailable

#: Seconds of an operation timeout where no call is answered.
_OPERATION = 1.0


@scenario("L121")
async def a_with_is_left_where_it_was_not_entered(kit: LockKit) -> None:
    """A `with` whose end runs in another thread or task than its beginning releases its lock, or all its locks."""
    locks = kit.locks()
    for target in (locks.lock("a", ttl=60), locks.all("a", "b", ttl=60)):
        for enter, leave in _halves(kit, plain(target)):
            await kit.spawn(_call(kit, enter))
            assert not await kit.free("a"), "the `with` was entered, and the lock is not held"
            await kit.spawn(_call(kit, leave))
            for name in "ab":
                assert await kit.free(name), f"the `with` was left in another task, and {name} is held"
    await (await locks.all("a", "b").acquire(timeout=5)).release()


Call = Callable[[], Any]


def _halves(kit: LockKit, target: Any) -> list[tuple[Call, Call]]:
    """Ways to enter a `with` and to leave it elsewhere: an exit stack, and a generator that another task finishes."""

    def entered() -> Iterator[None]:
        with target:
            yield

    async def entered_async() -> AsyncIterator[None]:
        async with target:
            yield

    if kit.face == "sync":
        stack, generator = contextlib.ExitStack(), entered()
        return [(partial(stack.enter_context, target), stack.close), (partial(next, generator), partial(next, generator, None))]
    astack, agen = contextlib.AsyncExitStack(), entered_async()
    return [(partial(astack.enter_async_context, target), astack.aclose), (partial(anext, agen), partial(anext, agen, None))]


async def _call(kit: LockKit, call: Call) -> None:
    await (kit.blocking(call) if kit.face == "sync" else call())


@scenario("L122", tier="T", faults={Fault.REPLY})
async def a_release_in_doubt_ends_the_renewal(kit: LockKit) -> None:
    """A release without an answer ends the renewal: the lock is free after one ttl at the latest, for its own caller too."""
    faults, locks = kit.faulty()
    lock = locks.lock("a", ttl=kit.ttl)
    with raises(Unavailable):
        async with lock as held:
            faults.drop_request("release", times=2)
            if kit.claims.expiry is Expiry.LEASE:  # the lease ends by itself; a session goes on, and a withdraw frees it
                faults.drop_request("withdraw", times=1000)
    what = "time until a lock is free whose release was not answered"
    with kit.within(kit.ttl + kit.claims.expiry_lag + 1, what, measure=what):
        again = await lock.acquire(timeout=kit.upper(2 * kit.ttl + kit.claims.expiry_lag + 2))
    assert again.token > held.token
    faults.clear()
    await again.release()


@scenario("L123", faults={Fault.REPLY})
async def two_releases_at_once_are_one(kit: LockKit) -> None:
    """Two releases of one possession at the same time both succeed, and nobody is told of a loss."""
    faults, locks = kit.faulty()
    told: list[object] = []
    for _ in range(5):
        held = await locks.lock("a", ttl=60).acquire(timeout=5)
        held.on_lost(told.append)
        async with kit.held_up(faults, "release", held.release()) as first:
            second = kit.spawn(held.release())
            await asyncio.sleep(0.01)
        await asyncio.gather(first, second)
        assert not held.lost and held.reason is None
        assert await kit.free("a")
    await kit.sleep(0.1)
    assert not told, "the holder was told of a loss after a release in good order"


@scenario("L124", tier="T")
async def a_forgotten_possession_with_a_callback_ends(kit: LockKit) -> None:
    """A callback keeps no possession alive: a forgotten lock is free within its ttl, even if nothing collects garbage."""
    locks = kit.locks()
    gc.disable()
    try:
        (await locks.lock("a", ttl=kit.ttl).acquire(timeout=5)).on_lost(lambda lost: None)
        within = kit.ttl + kit.claims.expiry_lag + 1
        await kit.until_free("a", within=within, what="its possession, which has a callback, was forgotten")
    finally:
        gc.enable()


@scenario("L125", tier="T")
async def what_one_callback_raises_silences_no_other(kit: LockKit) -> None:
    """A listener or callback that raises, even `SystemExit`, keeps no other from its notice."""
    heard: list[events.Event] = []

    def bad(event: object) -> None:
        raise SystemExit(3)

    locks = kit.locks(listeners=[bad, heard.append])
    told: list[str] = []

    def leaves(held: Any) -> None:
        told.append(held.name)
        if kit.face == "sync":  # a loop treats an error as its own, and ends with a SystemExit
            raise SystemExit(3)

    possessions = [await locks.lock(name, ttl=kit.ttl, renew=False).acquire(timeout=5) for name in "abc"]
    for held in possessions:
        held.on_lost(leaves)
    await kit.eventually(lambda: sorted(told) == [*"abc"], within=kit.ttl + 5, what=lambda: f"only {told} were told")
    await (await locks.lock("d", ttl=60).acquire(timeout=5)).release()
    kinds = {type(event) for event in heard}
    assert {events.Acquired, events.Lost, events.Released} <= kinds, f"the second listener heard only of {kinds}"


@scenario("L126")
async def a_call_out_of_the_middle_of_another_never_hangs(kit: LockKit) -> None:
    """A release out of the middle of another call is done right after that call; every other call is a NestedCall at once."""
    faults, locks = kit.faulty()
    handlers = kit.locks(face="sync")
    ours = plain(await handlers.lock("ours", ttl=60).acquire(timeout=5))
    await (await locks.lock("warm", ttl=60).acquire(timeout=5)).release()
    x, refused = plain(handlers).lock("x"), 0
    calls: list[Callable[[], object]] = [x.acquire, x.try_acquire, plain(handlers).close, ours.renew]
    if kit.can("holders"):
        calls.append(plain(handlers).holders)

    def strikes(requests: object) -> None:
        nonlocal refused
        for call in calls:
            try:
                call()
            except NestedCall:
                refused += 1
        ours.check()
        ours.release()
        ours.release()

    faults.call("attempt", strikes)  # as a signal handler would, or a finaliser
    held = await kit.soon(locks.lock("a", ttl=60).acquire(timeout=5), 10)
    assert refused == len(calls), f"{refused} of {len(calls)} calls out of the middle of another were refused"
    await kit.until_free("ours", within=3, what="it was released in the middle of another call")
    assert not ours.lost
    await kit.lets_go(held)
    await (await handlers.lock("ours", ttl=60).acquire(timeout=5)).release()


def _no_answer(items: object) -> None:
    """What a server that is away does to a call: it ends after its operation timeout, and no earlier."""
    time.sleep(_OPERATION)
    raise Unavailable("no answer")


@scenario("L127", tier="T")
async def a_call_that_nobody_answers_ends_in_time(kit: LockKit) -> None:
    """A try, an acquire and a release without an answer end within their own time and one operation timeout."""
    faults = Faults()
    for what, own in (("try", 0.0), ("acquire", 0.5), ("release", 0.0)):
        locks = kit.locks(faults=faults, timeout=_OPERATION)
        held = await locks.lock(what, ttl=60).acquire(timeout=5)
        for operation in ("attempt", "release", "withdraw"):
            faults.call(operation, _no_answer, times=1000)
        lock = locks.lock("x", ttl=60, timeout=own)
        call: Callable[[], Any] = {"try": lock.try_acquire, "acquire": lock.acquire, "release": held.release}[what]
        unanswered = f"{what} that nobody answers"
        with kit.within(own + 1.5 * _OPERATION, unanswered, measure=unanswered):
            await fails((Unavailable, LockTimeout), call(), what=unanswered)
        faults.clear()
        await locks.close()
    await kit.until_free("x", what="the calls that asked for it had failed")


@scenario("L128", tier="S", alone=True, seconds=240)
async def a_block_cut_off_at_any_point_leaves_nothing(kit: LockKit) -> None:
    """A `with` of one lock or several that is cut off at any point of entering or leaving holds nothing soon after."""
    locks, others = kit.locks(), kit.locks().all("a", "b", ttl=60)
    await (await locks.all("a", "b", ttl=60).acquire(timeout=5)).release()
    points = 0
    for target in (locks.lock("a", ttl=60), locks.all("a", "b", ttl=60)):
        points += await kit.swept(partial(_cut_off, kit, plain(target), others))
    kit.measure("points at which a block was cut off", points, "points")
    assert points > 5, "the sweep found no points"


async def _cut_off(kit: LockKit, target: Any, others: Any, point: int, delay: int) -> Cut:
    result = await kit.spawn(cut_block(_block(kit, target), point, delay))
    await kit.serves_the_next(others, point, result)
    return result


def _block(kit: LockKit, target: Any) -> Callable[[], Any]:
    def block() -> None:
        with target:
            pass

    async def block_async() -> None:
        async with target:
            await asyncio.sleep(0)

    return block if kit.face == "sync" else block_async
