"""Locks: leaving an acquire at any point, and who comes next."""

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
from narrowboat.conformance.faults.sweep import cut
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract import Busy, Grant, LockProvider, Request
from narrowboat.errors import LockTimeout, NarrowboatError
from narrowboat.layers.passing import PassingLocks

#: More points than an acquire can have: a sweep that reaches it does not end by itself, and that is an error.
_POINTS = 5000


@scenario("L26", alone=True)
async def a_cancelled_scope_takes_nothing(kit: Kit) -> None:
    """An acquire in a scope that is cancelled already, or interrupted at its very first step, takes nothing."""
    lock = kit.locks().lock("a")
    await (await lock.acquire(timeout=5)).release()

    result = await kit.spawn(cut(lock, "acquire", 0, timeout=5))
    assert result.struck
    assert isinstance(result.error, asyncio.CancelledError | KeyboardInterrupt), f"it went on: {result.error!r}"
    await kit.eventually(lambda: kit.free("a"), what="free after a cancelled acquire")

    async def cancelled_already() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await kit.locks(face="asyncio").lock("a").acquire(timeout=5)

    task = kit.spawn(cancelled_already())
    await asyncio.wait([task])
    assert task.cancelled()
    await kit.eventually(lambda: kit.free("a"), what="free after an acquire in a cancelled task")


@scenario("L29", tier="S", seconds=240)
async def cut_off_at_any_point_the_caller_holds_or_nobody_does(kit: Kit) -> None:
    """An acquire cut off at any point leaves it held by the caller or by nobody, and the next waiter is served in time."""
    mine, others = kit.locks(), kit.locks()
    lock, other = mine.lock("a", ttl=60), others.lock("a", ttl=60)
    await (await lock.acquire(timeout=5)).release()
    points = 0
    for delay in (0, 1, 3) if kit.face == "asyncio" else (0,):
        points += await _sweep_free(kit, lock, other, delay)
        points += await _sweep_busy(kit, lock, other, delay)
    kit.measure("points at which an acquire was cut off", points, "points")
    assert points > 5, "the sweep found no points"


async def _sweep_free(kit: Kit, lock: object, other: object, delay: int) -> int:
    """Of a free lock."""
    for point in range(_POINTS):
        result = await kit.spawn(cut(lock, "acquire", point, timeout=5, delay=delay))
        await _served(kit, result, other, point)
        if not result.struck:
            return point
    raise AssertionError("the sweep did not end")


async def _sweep_busy(kit: Kit, lock: object, other: object, delay: int) -> int:
    """Of a lock that is busy: the acquire queues and gives up by itself."""
    for point in range(_POINTS):
        held = await other.acquire(timeout=kit.upper(5))  # type: ignore[attr-defined]  # a Lock of either face
        result = await kit.spawn(cut(lock, "acquire", point, timeout=0.002, delay=delay))
        held.check()
        await held.release()
        await _served(kit, result, other, point)
        if not result.struck:
            return point
    raise AssertionError("the sweep did not end")


async def _served(kit: Kit, result: object, other: object, point: int) -> None:
    held = result.result  # type: ignore[attr-defined]  # a Cut
    if held is not None:
        held.check()
        await held.release()
    with kit.within(2.0, f"cut off at point {point}: the next waits"):
        try:
            got = await other.acquire(timeout=kit.upper(4))  # type: ignore[attr-defined]  # a Lock of either face
        except LockTimeout:
            raise AssertionError(f"cut off at point {point} ({result.error}): held by nobody, and nobody gets it") from None  # type: ignore[attr-defined]  # a Cut
    await got.release()


class _Bell(PassingLocks):
    """Stands between a driver and the one who waits at it: hears each wake-up, and with `mute` keeps it to itself."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self.mute = False
        self.rung = threading.Event()
        self.ring: Callable[[], None] = lambda: None  #: wakes who waits, by a spurious wake-up

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """With a bell that is heard here first."""
        self.ring = requests[-1].wake
        return super().attempt([request._replace(wake=functools.partial(self._hear, request.wake)) for request in requests])

    def _hear(self, wake: Callable[[], None]) -> None:
        self.rung.set()
        if not self.mute:
            wake()


@scenario("L30", "L35")
async def a_cancelled_head_does_not_strand_the_next(kit: Kit) -> None:
    """A waiter at the head that is cancelled while the lock is released to it does not strand who waits behind it."""
    holder, head, behind = kit.locks(), kit.locks(), kit.locks()
    for turns in range(8):
        held = await holder.lock("a").acquire(timeout=10)
        first = await kit.queued(head.lock("a").acquire(timeout=60), "a")
        second = await kit.queued(behind.lock("a").acquire(timeout=60), "a", 2)
        releasing = kit.spawn(_release(held))
        for _ in range(turns):
            await asyncio.sleep(0)
        await kit.cancel(first)
        await releasing
        await _left(first)
        await _served_soon(kit, second)


@scenario("L30")
async def a_head_that_leaves_at_its_turn_passes_it_on(kit: Kit) -> None:
    """A waiter that was told that it is its turn, and leaves before it has taken it, does not strand the next."""
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
    await kit.eventually(lambda: bell.rung.is_set() or first.done() or second.done(), within=10, what="anybody's turn")
    await kit.cancel(first, wake=bell.ring)  # nobody else's wait is ended: only the driver may do that here
    await _left(first)
    await _served_soon(kit, second)


async def _left(first: asyncio.Task[Any]) -> None:
    """Of a waiter that was cancelled: it has nothing, or it had been granted in that very moment and is the holder."""
    if not first.cancelled():
        await (await first).release()


async def _served_soon(kit: Kit, second: asyncio.Task[Any]) -> None:
    with kit.within(kit.claims.wake_bound, "nobody was woken by the release", measure="wait behind a cancelled head"):
        got = await kit.soon(second)
    await got.release()


async def _release(held: object) -> None:
    await held.release()  # type: ignore[attr-defined]  # a Held of either face


@scenario("L35", tier="T", faults={Fault.REPLY})
async def a_late_grant_is_given_back(kit: Kit) -> None:
    """A grant whose answer arrives after its caller has left is given back, and never kept alive by renewal."""
    faults = Faults()
    locks = kit.locks(faults=faults)
    await (await locks.lock("a").acquire(timeout=5)).release()
    gate = faults.hold("attempt")
    busy = kit.spawn(locks.lock("other").acquire(timeout=30))  # occupies the way to the driver
    assert await kit.blocking(gate.reached.wait, 10)
    late = faults.hold("attempt")
    waiting = kit.spawn(locks.lock("a", ttl=kit.ttl).acquire(timeout=30))
    gate.open()
    assert await kit.blocking(late.reached.wait, 10)
    assert not await kit.free("a"), "the grant has not landed: the scenario tests nothing"
    cancelling = kit.spawn(kit.cancel(waiting, within=20))
    await kit.sleep(0.05)
    late.open()
    await cancelling
    assert waiting.cancelled()
    await kit.eventually(lambda: kit.free("a"), within=3, what="the late grant given back")
    await (await busy).release()
    renewals = kit.seen.members["renew"]
    await kit.sleep(kit.ttl)
    assert kit.seen.members["renew"] == renewals, "somebody renews what nobody holds"


@scenario("L31", tier="S", seconds=240)
async def no_release_is_missed_by_who_is_just_queueing(kit: Kit) -> None:
    """A thousand releases race with a waiter that is just queueing: each waiter is served without a fallback's delay."""
    one, two = kit.locks(), kit.locks()
    lock, other = one.lock("a", ttl=60), two.lock("a", ttl=60)
    jitter = random.Random(31)
    rounds = max(50, int(1000 * kit.size))
    worst = 0.0
    for _ in range(rounds):
        held = await lock.acquire(timeout=30)
        waiting = kit.spawn(other.acquire(timeout=30))
        pause = jitter.random() * 0.002
        until = time.monotonic() + pause
        while time.monotonic() < until and not waiting.done():  # noqa: ASYNC110  # a jitter finer than a timer's
            await asyncio.sleep(0)
        begun = time.monotonic()
        await held.release()
        got = await waiting
        took = time.monotonic() - begun
        assert took < kit.upper(kit.claims.wake_bound), f"served {took:.3f} s after the release"
        worst = max(worst, took)
        await got.release()
    kit.measure("worst of the racing wake-ups", worst)


@scenario("L36", needs="order=fifo", refused=demand)
async def waiters_are_served_in_order(kit: Kit) -> None:
    """Waiters are served in the order in which they came, also those of several connections."""
    held = await kit.locks().lock("a").acquire(timeout=5)
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


@scenario("L37", tier="T", faults={Fault.REPLY}, seconds=120)
async def a_stopped_head_delays_by_a_bound(kit: Kit) -> None:
    """A waiter at the head that stands still delays those behind it by at most the declared bound."""
    faults = Faults()
    held = await kit.locks().lock("a").acquire(timeout=5)
    stopped = await kit.queued(kit.locks(faults=faults).lock("a").acquire(timeout=100), "a")
    behind = await kit.queued(kit.locks().lock("a").acquire(timeout=100), "a", 2)
    gate = faults.hold("attempt", before=True)  # from now on its attempts stand still, as those of a stopped process do
    begun = time.monotonic()
    await held.release()

    bound = kit.claims.dead_waiter_bound
    got = await kit.soon(behind, bound + 1)
    kit.measure("delay by a stopped waiter at the head", time.monotonic() - begun)

    gate.open()
    await kit.sleep(0.05)
    assert not stopped.done(), "the stopped waiter came back and was granted a lock that is held"
    got.check()
    await got.release()
    async with asyncio.timeout(kit.upper(bound + 1)):
        await (await stopped).release()


@scenario("L38", tier="S")
async def nobody_starves(kit: Kit) -> None:
    """Four contenders in a loop: each gets a fair part, none less than a fifth of its even share."""
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
async def a_withdraw_that_failed_is_tried_again(kit: Kit) -> None:
    """A waiter whose withdraw was lost on the way is withdrawn all the same, soon after."""
    faults = Faults()
    held = await kit.locks().lock("a").acquire(timeout=5)
    locks = kit.locks(faults=faults)
    faults.drop_request("withdraw", times=2)
    await fails(LockTimeout, locks.lock("a").acquire(timeout=0.1))
    await held.release()
    await kit.eventually(lambda: kit.free("a"), within=kit.claims.dead_waiter_bound, what="free, the waiter is gone")
    assert len(faults.struck) >= 1
