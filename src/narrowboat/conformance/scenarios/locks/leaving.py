"""Locks: callers that leave an acquire at any point, and the waiters that come next."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.sweep import Cut, cut
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract import Busy, Grant, LockProvider, Request
from narrowboat.errors import LockTimeout, NarrowboatError
from narrowboat.layers.passing import PassingLocks


@scenario("L26", alone=True)
async def a_cancelled_scope_takes_nothing(kit: LockKit) -> None:
    """An acquire in a scope that is cancelled already, or interrupted at its very first step, takes nothing."""
    lock = kit.locks().lock("a")
    await (await lock.acquire(timeout=5)).release()
    result = await kit.spawn(cut(lock, "acquire", 0, timeout=5))
    assert result.struck
    assert isinstance(result.error, asyncio.CancelledError | KeyboardInterrupt), f"the acquire went on: {result.error!r}"
    await kit.until_free("a", what="its acquire was cancelled")

    async def cancelled_already() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await kit.locks(face="asyncio").lock("a").acquire(timeout=5)

    task = kit.spawn(cancelled_already())
    await asyncio.wait([task])
    assert task.cancelled()
    await kit.until_free("a", what="the task of its acquire was cancelled")


@scenario("L29", tier="S", seconds=240)
async def cut_off_at_any_point_the_caller_holds_or_nobody_does(kit: LockKit) -> None:
    """An acquire cut off at any point leaves the lock to its caller or to nobody, and the next waiter is served in time."""
    lock, other = kit.locks().lock("a", ttl=60), kit.locks().lock("a", ttl=60)
    await (await lock.acquire(timeout=5)).release()

    async def of_a_free_lock(point: int, delay: int) -> Cut:
        result = await kit.spawn(cut(lock, "acquire", point, timeout=5, delay=delay))
        await given_up(result, point)
        return result

    async def of_a_busy_lock(point: int, delay: int) -> Cut:
        held = await other.acquire(timeout=kit.upper(5))
        result = await kit.spawn(cut(lock, "acquire", point, timeout=0.002, delay=delay))  # it queues, and gives up by itself
        held.check()
        await held.release()
        await given_up(result, point)
        return result

    async def given_up(result: Cut, point: int) -> None:
        if result.result is not None:
            result.result.check()
            await result.result.release()
        await kit.serves_the_next(other, point, result)

    points = await kit.swept(of_a_free_lock) + await kit.swept(of_a_busy_lock)
    kit.measure("points at which an acquire was cut off", points, "points")
    assert points > 5, "the sweep found no points"


class _Bell(PassingLocks):
    """Stands between a driver and its waiter: hears each wake-up, and with `mute` does not pass it on."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self.mute = False
        self.rung = threading.Event()
        self.ring: Callable[[], None] = lambda: None  #: wakes the waiter, by a spurious wake-up

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """With a wake-up that is heard here first."""
        self.ring = requests[-1].wake
        return super().attempt([request._replace(wake=functools.partial(self._hear, request.wake)) for request in requests])

    def _hear(self, wake: Callable[[], None]) -> None:
        self.rung.set()
        if not self.mute:
            wake()


@scenario("L30", "L35")
async def a_cancelled_head_does_not_strand_the_next(kit: LockKit) -> None:
    """A waiter at the head that is cancelled while the lock is released to it does not strand the waiter behind it."""
    holder, head, behind = kit.locks(), kit.locks(), kit.locks()
    for turns in range(8):
        held = await holder.lock("a").acquire(timeout=10)
        first = await kit.queued(head.lock("a").acquire(timeout=60), "a")
        second = await kit.queued(behind.lock("a").acquire(timeout=60), "a", 2)
        releasing = kit.spawn(held.release())
        for _ in range(turns):
            await asyncio.sleep(0)
        await kit.cancel(first)
        await releasing
        await _left(first)
        await _served_soon(kit, second)


@scenario("L30")
async def a_head_that_leaves_at_its_turn_passes_it_on(kit: LockKit) -> None:
    """A waiter that was woken for its turn, and leaves before it takes the lock, does not strand the next waiter."""
    bells: list[_Bell] = []

    def listen(driver: LockProvider) -> _Bell:
        bells.append(_Bell(driver))
        return bells[-1]

    holder, head, behind = kit.locks(), kit.locks(wrap=listen), kit.locks()
    held = await holder.lock("a").acquire(timeout=10)
    first = await kit.queued(head.lock("a").acquire(timeout=60), "a")
    second = await kit.queued(behind.lock("a").acquire(timeout=60), "a", 2)
    (bell,) = bells
    bell.mute = True
    bell.rung.clear()
    await held.release()
    await kit.eventually(lambda: bell.rung.is_set() or first.done() or second.done(), within=10, what="a waiter's turn")
    await kit.cancel(first, wake=bell.ring)  # it wakes this waiter alone: only the driver may wake the other one here
    await _left(first)
    await _served_soon(kit, second)


async def _left(first: asyncio.Task[Any]) -> None:
    """A waiter that was cancelled has nothing; or it was granted the lock in that very moment, and releases it."""
    if not first.cancelled():
        await (await first).release()


async def _served_soon(kit: LockKit, second: asyncio.Task[Any]) -> None:
    with kit.within(kit.claims.wake_bound, "the wait behind a cancelled head", measure="wait behind a cancelled head"):
        got = await kit.soon(second)
    await got.release()


@scenario("L35", tier="T", faults={Fault.REPLY})
async def a_late_grant_is_given_back(kit: LockKit) -> None:
    """A grant whose answer arrives after its caller has left is given back, and is never renewed."""
    faults, locks = kit.faulty()
    await (await locks.lock("a").acquire(timeout=5)).release()
    # The acquire of the other lock occupies the way to the driver, and the late one waits behind it.
    async with kit.held_up(faults, "attempt", locks.lock("other").acquire(timeout=30)) as busy:
        late = faults.hold("attempt")
        waiting = kit.spawn(locks.lock("a", ttl=kit.ttl).acquire(timeout=30))
    assert await kit.blocking(late.reached.wait, 10)
    assert not await kit.free("a"), "the grant has not landed: the scenario tests nothing"
    cancelling = kit.spawn(kit.cancel(waiting, within=20))
    await kit.sleep(0.05)
    late.open()
    await cancelling
    assert waiting.cancelled()
    await kit.until_free("a", within=3, what="the late grant was to be given back")
    await (await busy).release()
    renewals = kit.seen.members["renew"]
    await kit.sleep(kit.ttl)
    assert kit.seen.members["renew"] == renewals, "a lock that nobody holds is renewed"


@scenario("L31", tier="S", seconds=240)
async def no_release_is_missed_by_who_is_just_queueing(kit: LockKit) -> None:
    """A thousand releases race with a waiter that is just queueing, and each waiter is served without a fallback's delay."""
    lock, other = kit.locks().lock("a", ttl=60), kit.locks().lock("a", ttl=60)
    jitter = random.Random(31)
    rounds = max(50, int(1000 * kit.size))
    worst = 0.0
    for _ in range(rounds):
        held = await lock.acquire(timeout=30)
        waiting = kit.spawn(other.acquire(timeout=30))
        until = time.monotonic() + jitter.random() * 0.002
        while time.monotonic() < until and not waiting.done():  # noqa: ASYNC110  # a jitter finer than a timer's
            await asyncio.sleep(0)
        await held.release()
        begun = time.monotonic()  # a release that takes its time, on a slow disk, is no wait of the next one
        got = await waiting
        took = time.monotonic() - begun
        assert took < kit.upper(kit.claims.wake_bound), f"a waiter was served {took:.3f} s after the release"
        worst = max(worst, took)
        await got.release()
    kit.measure("worst of the racing wake-ups", worst, bound=kit.claims.wake_bound)


@scenario("L36", needs="order=fifo", refused=demand)
async def waiters_are_served_in_order(kit: LockKit) -> None:
    """Waiters are served in the order in which they came, even those of several connections."""
    held = await kit.taken()
    faces = [kit.locks() for _ in range(3)]
    served: list[int] = []

    async def wait(number: int) -> None:
        got = await faces[number % 3].lock("a").acquire(timeout=60)
        served.append(number)
        await got.release()

    waiting = []
    for number in range(12):
        waiting.append(kit.spawn(wait(number)))
        await kit.until_waiting("a", number + 1)
    assert await faces[0].lock("a").try_acquire() is None
    await held.release()
    await asyncio.gather(*waiting)
    assert served == list(range(12)), f"served in the order {served}"


#: Seconds after a release in which each backend that claims an order keeps the lock for the waiter that it has told.
KEPT = 0.25


@scenario("L36", tier="T", needs="order=fifo", refused=demand, faults={Fault.REPLY})
async def nobody_overtakes_who_is_on_the_way(kit: LockKit) -> None:
    """A free lock whose first waiter is on its way goes neither to a try nor to a waiter that comes now."""
    for turn in range(3):
        name = f"a{turn}"
        faults, locks = kit.faulty()
        behind, trying = kit.locks().lock(name), kit.locks().lock(name)
        held = await kit.taken(name)
        assert await trying.try_acquire() is None  # and it is connected
        first = await kit.queued(locks.lock(name).acquire(timeout=60), name)
        second = await kit.queued(behind.acquire(timeout=60), name, 2)
        gate = faults.hold("attempt", before=True)
        await held.release()
        released = time.monotonic()
        assert await kit.blocking(gate.reached.wait, 10), "the first waiter was not woken"
        tried = await trying.try_acquire()
        at = time.monotonic()
        third = kit.spawn(trying.acquire(timeout=60)) if tried is None else None
        await kit.sleep(0.05)
        early = time.monotonic() - released < KEPT  # where the machine stood still, others need not wait any longer
        assert tried is None or at - released >= KEPT, "a try overtook the waiter that was told"
        assert not early or not second.done(), "a waiter overtook the one that was told"
        assert not early or third is None or not third.done(), "a newcomer overtook the waiter that was told"
        gate.open()
        if tried is not None:
            await tried.release()
        for waiting in filter(None, (first, second, third)):
            await (await kit.soon(waiting, 30)).release()


@scenario("L37", tier="T", faults={Fault.REPLY}, seconds=120)
async def a_stopped_head_delays_by_a_bound(kit: LockKit) -> None:
    """A waiter at the head that stands still delays the waiters behind it by at most the declared bound."""
    faults, locks = kit.faulty()
    held = await kit.taken()
    stopped = await kit.queued(locks.lock("a").acquire(timeout=100), "a")
    behind = await kit.waits(timeout=100, count=2)
    gate = faults.hold("attempt", before=True)  # from now on its attempts stand still, as those of a stopped process do
    begun = time.monotonic()
    await held.release()
    bound = kit.claims.dead_waiter_bound
    got = await kit.soon(behind, bound + 1)
    kit.measure("delay by a stopped waiter at the head", time.monotonic() - begun, bound=bound)
    gate.open()
    await kit.sleep(0.05)
    assert not stopped.done(), "the stopped waiter came back and was granted a lock that is held"
    await kit.lets_go(got)
    await (await kit.soon(stopped, bound + 1)).release()


@scenario("L38", tier="S")
async def nobody_starves(kit: LockKit) -> None:
    """Of four contenders in a loop, none gets less than a fifth of an even share."""
    contenders = 4
    faces = [kit.locks() for _ in range(contenders)]
    counts = [0] * contenders
    until = time.monotonic() + max(0.5, 2.0 * kit.size)

    async def contend(number: int) -> None:
        lock = faces[number].lock("a", timeout=30)
        while time.monotonic() < until:
            async with lock:
                counts[number] += 1
                await asyncio.sleep(0)

    await kit.together(*(contend(number) for number in range(contenders)))
    share = min(counts) / (sum(counts) / contenders)
    kit.measure("smallest share of four contenders", share, "of an even share")
    assert share >= 0.2, f"the shares were {counts}"


@scenario("L28", tier="T", faults={Fault.REPLY})
async def a_withdraw_that_failed_is_tried_again(kit: LockKit) -> None:
    """A waiter whose withdraw was lost on the way is withdrawn all the same, soon after."""
    faults, locks = kit.faulty()
    held = await kit.taken()
    faults.drop_request("withdraw", times=2)
    await fails(LockTimeout, locks.lock("a").acquire(timeout=0.1))
    await held.release()
    await kit.until_free("a", within=kit.claims.dead_waiter_bound, what="its waiter had given up")
    assert len(faults.struck) >= 1
