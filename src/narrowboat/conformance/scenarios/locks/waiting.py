"""Locks: waiting, timeouts, cancellation."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta
from typing import Any

from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument, LockTimeout, Unsupported


@scenario("L19", tier="T")
async def a_timeout_is_typed_and_on_time(kit: LockKit) -> None:
    """An acquire that times out raises LockTimeout with the lock's name, not before the time is up and not much later."""
    async with kit.lock("the name") as held:
        lock = kit.locks().lock("the name", timeout=0.3)
        for given in ({}, {"timeout": 0.3}, {"timeout": timedelta(seconds=0.3)}):
            begun = time.monotonic()
            error = await fails(LockTimeout, lock.acquire(**given))
            took = time.monotonic() - begun
            assert isinstance(error, TimeoutError)
            assert error.name == "the name"
            assert "the name" in str(error)
            assert took >= 0.3, f"the acquire gave up {0.3 - took:.4f} s early"
            assert took < kit.upper(0.3 + 1.0), f"the acquire gave up after {took:.3f} s"
            kit.measure("overshoot of a timeout", took - 0.3)
        held.check()


@scenario("L20", tier="T")
async def zero_tries_once_and_none_waits(kit: LockKit) -> None:
    """`timeout=0` makes exactly one attempt; `timeout=None` still waits after a while, and then gets the lock."""
    held = await kit.taken()
    other = kit.locks().lock("a")
    before = kit.seen.members["attempt"]
    with kit.within(1.0, "timeout=0"), raises(LockTimeout):
        await other.acquire(timeout=0)
    assert kit.seen.members["attempt"] == before + 1, "timeout=0 did not make exactly one attempt"

    waiting = await kit.queued(other.acquire(timeout=None), "a")
    done, _ = await asyncio.wait([waiting], timeout=1.0)
    assert not done, "timeout=None gave up"
    await held.release()
    await (await waiting).release()


@scenario("L21")
async def a_waiter_gets_it_on_release(kit: LockKit) -> None:
    """A waiter has the lock soon after the holder's release, and not before."""
    held = await kit.taken()
    waiting = await kit.waits(timeout=30)
    assert not waiting.done()
    await held.release()
    other = await kit.soon(waiting)
    assert other.token > held.token
    await other.release()


@scenario("L22", tier="T")
async def a_waiter_gets_it_on_expiry(kit: LockKit) -> None:
    """A waiter gets the lock of a holder that went away without a release soon after the end of the lease, and not before."""
    lease = await kit.abandoned()
    async with kit.lock(timeout=kit.upper(kit.ttl + 30)):
        late = kit.ended_on_time(lease)
        kit.measure("wait after the end of an abandoned lease", late, bound=kit.claims.expiry_lag)
        assert lease.held.lost


@scenario("L23", tier="T", alone=True)
async def a_release_wakes_at_once(kit: LockKit) -> None:
    """A released lock reaches its waiter within the declared bound, which is neither a poll interval nor a lease."""
    one, two = kit.locks(), kit.locks()
    for _ in range(20):
        held = await one.lock("a").acquire(timeout=10)

        async def wait() -> float:
            got = await two.lock("a").acquire(timeout=30)
            at = time.monotonic()
            await got.release()
            return at

        waiting = await kit.queued(wait(), "a")
        begun = time.monotonic()
        await held.release()
        latency = await waiting - begun
        kit.measure("wake-up after release", latency, bound=kit.claims.wake_bound)
        assert latency < kit.upper(kit.claims.wake_bound), f"the waiter was woken {latency:.3f} s after the release"


@scenario("L24", tier="T", alone=True)
async def a_short_timeout_is_not_overshot(kit: LockKit) -> None:
    """A timeout that is shorter than any poll interval or lease is not overshot by one of them."""
    async with kit.lock(ttl=30):
        lock = kit.locks().lock("a", ttl=30)
        await fails(LockTimeout, lock.acquire(timeout=0.01))  # the first call also connects
        took = []
        for _ in range(5):
            begun = time.monotonic()
            with kit.within(2.0, "a timeout of 20 ms", least=0.02), raises(LockTimeout):
                await lock.acquire(timeout=0.02)
            took.append(time.monotonic() - begun)
    # One of them may have met a slow disk. Each of them is overshot where a poll interval is waited for.
    middle = sorted(took)[2]
    assert middle < kit.upper(0.02 + 0.5), f"timeouts of 20 ms took {middle:.3f} s in the middle of five"


@scenario("L25")
async def nonsense_times_are_refused(kit: LockKit) -> None:
    """Negative, NaN, infinite, huge or wrongly typed timeouts and leases are refused before anything is sent."""
    locks = kit.locks()
    nonsense: list[Any] = [-1, -0.001, math.nan, math.inf, -math.inf, 1e300, "5", b"5", True, [], timedelta(seconds=-1)]
    for value in nonsense:
        with raises(InvalidArgument, what=f"ttl={value!r}"):
            locks.lock("a", ttl=value)
        with raises(InvalidArgument, what=f"timeout={value!r}"):
            locks.lock("a", timeout=value)
        await fails(InvalidArgument, locks.lock("a").acquire(timeout=value), what=f"acquire({value!r})")
    nonsense = [0, None, kit.claims.ttl_max * 2, kit.claims.ttl_min / 2]
    for value in nonsense:
        with raises(InvalidArgument, Unsupported, what=f"ttl={value!r}"):  # the latter where a session is the lease
            locks.lock("a", ttl=value)
    assert not kit.seen.calls, f"the driver was used: {dict(kit.seen.calls)}"
    await (await locks.lock("a", ttl=timedelta(seconds=30)).acquire(timeout=timedelta(seconds=5))).release()


@scenario("L27", "L28")
async def a_cancelled_waiter_leaves_promptly_and_without_a_trace(kit: LockKit) -> None:
    """A waiter that is cancelled, or whose timeout has passed, ends promptly and keeps no place in the queue."""
    held = await kit.taken()
    locks = kit.locks()
    waiting = await kit.queued(locks.lock("a").acquire(timeout=60), "a")
    if kit.can("holders"):
        seen = await kit.holder("a")
        assert seen.waiters in (None, 1), f"there is one waiter, and holders() shows {seen.waiters}"
    with kit.within(1.0, "the end of a cancelled waiter", measure="end of a cancelled waiter"):
        await kit.cancel(waiting)
    assert waiting.cancelled()
    await fails(LockTimeout, locks.lock("a").acquire(timeout=0.1))
    await kit.eventually(lambda: kit.seen.waiting("a") == 0, what="the driver was told that nobody waits")
    if kit.can("holders"):

        async def nobody() -> bool:
            seen = await kit.holder("a")
            return not seen.waiters

        await kit.eventually(nobody, what="no waiter left in the backend")
    held.check()
    await held.release()
    assert await kit.free("a"), "a waiter that had left got the lock, or blocks the queue"


@scenario("L34")
async def a_lock_is_usable_after_a_failed_acquire(kit: LockKit) -> None:
    """The same `Lock` works again after an acquire that timed out or was cancelled."""
    held = await kit.taken()
    lock = kit.locks().lock("a", timeout=0.05)
    await fails(LockTimeout, lock.acquire())
    waiting = await kit.queued(lock.acquire(timeout=60), "a")
    await kit.cancel(waiting)
    with raises(LockTimeout):
        async with lock:
            pass
    await held.release()
    again = await kit.soon(lock.acquire(timeout=30), 2)  # well before the end of the delay by a waiter that has gone
    assert not await kit.free("a")
    await again.release()
    async with lock:
        assert not await kit.free("a")
    assert await kit.free("a")
