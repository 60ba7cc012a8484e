"""Locks: a holder notices its loss, whatever caused it, and can do no harm with a lock that it has lost."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from narrowboat.capabilities import Expiry
from narrowboat.clock import SystemClock
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.kit import plain
from narrowboat.conformance.lock_kit import BROKEN, ENDED, LockKit, evicts
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import forks, holder, waiter, zombie
from narrowboat.demo.stock import Stock
from narrowboat.errors import LeaseLost, NarrowboatError, Reason


@scenario("L62", "L66", tier="T", needs="evict", refused=evicts)
async def an_evicted_holder_is_told(kit: LockKit) -> None:
    """An evicted holder is told within its next renewal; its later calls say lost, and do not touch the new holder."""
    ttl = max(kit.ttl, 1.0)
    held = await kit.taken(ttl=ttl)
    async with kit.loses(held, BROKEN, ttl, "eviction to the holder's notice") as told:
        assert await kit.outside.evict("a", held.token) is True
        new = await kit.outside.lock("a", ttl=30).acquire(timeout=kit.upper(5))
    await kit.says_lost(held, BROKEN)
    await kit.keeps(new, "the evicted holder's calls freed the new holder's lock")
    await kit.sleep(0.05)
    assert len(told) == 1, f"on_lost was called {len(told)} times"


@scenario("L62", tier="T", needs=("evict", "loss=notified"), refused=demand)
async def an_evicted_holder_need_not_wait_for_its_renewal(kit: LockKit) -> None:
    """A backend that notifies tells an evicted holder within the bound: one just granted, one held a while, one not renewed."""
    locks = kit.locks()
    beside = await locks.lock("beside").acquire(timeout=5)
    bound = kit.claims.wake_bound
    for what, seconds, renew in (("just granted", 0.0, True), ("held for a while", 1.0, True), ("not renewed", 1.0, False)):
        held = await locks.lock(what, ttl=max(kit.ttl, 6 * bound), renew=renew).acquire(timeout=5)
        await kit.sleep(seconds)
        if seconds and renew:
            await held.renew()  # otherwise the next renewal could be due by chance
        async with kit.loses(held, BROKEN, bound, f"eviction to the holder's notice, {what}"):
            assert await kit.outside.evict(what, held.token) is True
        await kit.says_lost(held, BROKEN)
        beside.check()
    await kit.lets_go(beside)


@scenario("L66", "L64", tier="T")
async def a_lease_that_ran_out_is_lost_for_good(kit: LockKit) -> None:
    """After the end of a lease every call says LeaseLost, and a caller that asks or subscribes only then is told at once."""
    held = await kit.taken(ttl=kit.ttl, renew=False)
    got = await kit.taken(ttl=30, timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
    kit.is_lost(held, ENDED, "another was let in before the lease ended by its holder's own clock")
    told = kit.told_of(held)
    await kit.eventually(lambda: told, within=1, what="a subscriber that comes after the loss is told")
    with kit.within(1.0, "a wait for a loss that has happened already"):
        assert await held.wait_lost(10) is True
        assert await held.wait_lost(0) is True
    await kit.says_lost(held, ENDED)
    await kit.lets_go(got)


@scenario("L63")
async def a_release_is_no_loss(kit: LockKit) -> None:
    """A release in time is no loss: no callback runs, there is no reason, and waiting for the loss says that there was none."""
    locks = kit.locks()
    told: list[Any] = []
    for attempt in range(3):
        held = await locks.lock("a", ttl=max(kit.ttl, 1.0)).acquire(timeout=5)
        held.on_lost(told.append)
        waiting = kit.spawn(held.wait_lost(30))
        assert await held.wait_lost(0.02 * attempt) is False, "wait_lost() says lost while the lock is held"
        await held.release()
        assert await waiting is False, "wait_lost() took a release for a loss"
        assert not held.lost
        assert held.reason is None
        held.on_lost(told.append)
    assert await kit.free("a")
    await kit.sleep(0.05)
    assert not told, "on_lost was called for a release"

    last = await locks.lock("a").acquire(timeout=5)  # the control: the same callbacks run when the lock is lost
    last.on_lost(told.append)
    await locks.close()
    await kit.eventually(lambda: told, within=2, what="on_lost when the provider is closed")


@scenario("L65")
async def closing_what_is_watched_is_safe(kit: LockKit) -> None:
    """Closing the provider of a watched possession tells its watchers `closed`, and neither hangs nor raises."""
    locks = kit.locks()
    held = await locks.lock("a").acquire(timeout=5)
    told: list[Any] = []
    held.on_lost(lambda lost: told.append(lost.reason))
    waiting = [kit.spawn(held.wait_lost(60)) for _ in range(3)]
    await kit.sleep(0.05)
    await locks.close()
    for task in waiting:
        assert await task is True, "the provider was closed, and wait_lost() said that there was no loss"
    await kit.eventually(lambda: told, within=2, what="on_lost after a close")
    assert told == [Reason.CLOSED]
    assert (held.lost, held.reason) == (True, Reason.CLOSED)
    assert await kit.free("a")
    await fails(NarrowboatError, held.release())
    with raises(LeaseLost):
        held.check()


@scenario("L65")
async def a_callback_that_fails_harms_nobody(kit: LockKit) -> None:
    """A watcher that raises keeps neither the other watchers from their notice nor the next holder from the lock."""
    locks = kit.locks()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # it gets the error of the watcher, rightly
    held = await locks.lock("a").acquire(timeout=5)

    def fails(lost: object) -> None:
        raise ValueError("a watcher's own error")

    held.on_lost(fails)
    told = kit.told_of(held)
    other = await locks.lock("b", ttl=max(kit.ttl, 1.0)).acquire(timeout=5)
    await locks.close()
    await kit.eventually(lambda: told, within=2, what="the second watcher is told although the first one raised")
    assert other.lost
    assert await kit.free("a")
    assert await kit.free("b")


# -- standing still ---------------------------------------------------------------------------------------------------


@scenario("L67", "L68", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_stopped_holder_learns_at_its_first_look(kit: LockKit) -> None:
    """A process stopped past its lease knows at its first look that the lock is lost, and cannot touch the next holder's."""
    child, told = await kit.started(zombie, name="a", ttl=kit.ttl)
    child.stop()
    stopped = time.monotonic()
    new = await _next_holder(kit, "a")
    granted = time.monotonic()
    kit.measure("stop of a holder to the next grant", granted - stopped)
    assert new.token > told["token"]
    resumed = child.resume()

    noticed = await child.event("noticed")
    over = noticed["valid"] - granted
    assert over < 0, f"{over:.3f} s after the lock was granted to another, the stopped holder still took it for its own"
    assert noticed["reason"] in [reason.value for reason in ENDED], noticed["reason"]
    lost = await child.event("lost")
    kit.measure("SIGCONT to the notice of loss", lost["at"] - resumed)
    assert lost["at"] - resumed < kit.upper(1.0), f"on_lost came {lost['at'] - resumed:.3f} s after SIGCONT"
    for call in ("renew", "release"):
        outcome = await child.event(call)
        assert outcome["error"] == "LeaseLost", f"{call} of a lost lock ended with {outcome['error']}"
    await kit.stays(new, "the stopped holder's calls freed the next holder's lock")
    child.tell("end")
    assert await child.exit() == 0
    assert not await kit.free("a"), "the end of the stopped process freed the next holder's lock"
    await new.release()


async def _next_holder(kit: LockKit, name: str) -> Any:
    """The next possession of `name`, once its stopped holder's lease is over."""
    return await kit.taken(name, ttl=60, timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 5))


@scenario("L80", tier="P", needs=("scope=host", "fencing"), refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_guarded_record_refuses_the_stopped_holder(kit: LockKit) -> None:
    """A record that compares tokens refuses the write of a holder that was stopped past its lease, and takes the next one's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stock.db")
        stock = Stock.create(path, items=1, stock=2)
        child, _ = await kit.started(zombie, name="item", ttl=kit.ttl, record=str(path))
        child.stop()
        new = await _next_holder(kit, "item")
        assert stock.sell(0, "new", left=1, token=new.token).value == "sold"
        child.resume()
        wrote = await child.event("wrote")
        assert wrote["outcome"] == "stale", f"the older token's write was {wrote['outcome']}"
        assert (stock.left(), stock.sales()) == ({0: 1}, {"new": 0})
        child.tell("end")
        await new.release()
        stock.close()


@scenario("L69", tier="T")
async def a_holder_whose_program_stood_still_learns(kit: LockKit) -> None:
    """A holder whose event loop or thread stood still past the lease knows at its first look, and does no harm."""
    other = plain(kit.locks(face="sync"))
    got: list[Any] = []
    patience = kit.upper(kit.ttl * 2 + kit.claims.expiry_lag + 10)
    held = await kit.taken(ttl=kit.ttl, renew=False)
    told = kit.told_of(held)
    left: list[float] = []  # of the lease, read at the moment of the other's grant: the scenario itself may look late

    def takes() -> None:
        got.append(other.lock("a", ttl=60).acquire(timeout=patience))
        left.append(held.expires_in)

    thread = threading.Thread(target=takes, name="conformance-other")
    thread.start()
    await kit.stands_still(thread.join)
    valid = not held.lost
    resumed = time.monotonic()
    assert got, "nobody got the lock: the scenario tests nothing"
    assert not valid and left == [0.0], "another was let in while the holder that stood still took the lock for its own"
    kit.is_lost(held, ENDED)
    await kit.is_told(told, resumed, 1, "end of a standstill to the notice of loss")
    await kit.says_lost(held, ENDED)
    got[0].check()
    await kit.blocking(got[0].renew)
    assert not await kit.free("a")
    await kit.blocking(got[0].release)


class _Jumping(SystemClock):
    """The machine's clock, which can jump ahead without notice, as it does when the machine was suspended."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return super().__call__() + self.slept


@scenario("L72", tier="T")
async def a_machine_that_slept_has_lost_its_locks(kit: LockKit) -> None:
    """After the boot clock jumped past the lease, as after a suspend, the first look says lost, and so does every call."""
    for renew in (True, False):
        clock = _Jumping()
        name = f"renewed {renew}"
        locks = kit.locks(clock=clock, url=kit.harness.locks_url(f"{kit.namespace}{renew:d}"))
        held = await locks.lock(name, ttl=max(kit.ttl, 1.0), renew=renew).acquire(timeout=5)
        held.check()
        async with kit.loses(held, {Reason.PAUSED}, held.ttl, "jump of the boot clock to the notice of loss"):
            clock.slept = held.ttl * 3
            kit.is_lost(held, {Reason.PAUSED})
            assert held.expires_in == 0
        await kit.says_lost(held, {Reason.PAUSED})
        again = await locks.lock(name).acquire(timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
        assert again.token > held.token
        await kit.lets_go(again)


@scenario("L99", tier="T", alone=True)
async def the_wall_clock_decides_nothing(kit: LockKit) -> None:
    """A client whose wall clock jumps by an hour, either way, neither loses a lock early nor holds one for longer."""
    true = time.time
    other = kit.locks().lock("a")
    for jump in (3600.0, -3600.0):
        held = await kit.taken(ttl=kit.ttl)
        with mock.patch("time.time", lambda jump=jump: true() + jump):
            why = f"the wall clock jumped by {jump:g} s, and another got the lock"
            await kit.stays_held(held, other, held.ttl * 1.5, why)
            await held.release()
            lease = await kit.abandoned()
        # From here on the clock is right again: it has jumped the other way, within the lease.
        got = await other.acquire(timeout=kit.upper(lease.held.ttl + kit.claims.expiry_lag + 5))
        kit.ended_on_time(lease, ", after a jump of the wall clock")
        assert lease.held.lost
        await got.release()


# -- processes that fork, end and are killed ----------------------------------------------------------------------------


@scenario("L73", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_fork_does_not_hold_its_parents_lock(kit: LockKit) -> None:
    """A forked child neither believes that it holds its parent's lock, nor renews nor frees it, and can lock for itself."""
    ttl = max(kit.ttl, 1.0)
    child, _ = await kit.started(forks, name="a", ttl=ttl)
    fork = await child.event("fork", within=30 + ttl)
    assert (fork["lost"], fork["reason"], fork["check"]) == (True, Reason.FORKED.value, Reason.FORKED.value)
    assert fork["works"]
    parent = await child.event("parent", within=30 + 3 * ttl)
    assert parent["fork"] == 0, "the fork ended with an error"
    assert not parent["lost"], "the parent lost its lock through the fork"
    assert not parent["taken"], "the lock was free after the fork had ended"
    assert await child.exit() == 0
    assert await kit.free("a")


@scenario("L82", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_holder_that_ended_without_release(kit: LockKit) -> None:
    """A holder that ends without a release, by returning or by exit, frees the lock no later than its lease and the lag."""
    for end in ("return", "exit"):
        await _ends(kit, end, end, f"end of a holder without release, by {end}, to the next grant")


@scenario("L83", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_killed_holder_frees_its_lock(kit: LockKit) -> None:
    """The lock of a killed holder goes to the next waiter no later than its lease and the declared lag."""
    for round in range(3 if kit.claims.expiry is Expiry.LEASE else 1):
        await _ends(kit, f"a{round}", "kill", "kill of a holder to the next grant")


async def _ends(kit: LockKit, name: str, end: str, measure: str) -> None:
    """The process that holds `name` ends without a release, and the next waiter gets the lock in time."""
    child, told = await kit.started(holder, name=name, ttl=kit.ttl, end=end)
    waiting = await kit.waits(name, timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 20))
    if end == "kill":
        ended = child.kill()
    else:
        child.tell("go")
        await child.exit()
        ended = time.monotonic()
    got = await waiting
    kit.died_on_time(ended, measure)
    assert got.token > told["token"]
    await got.release()


@scenario("L84", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_killed_waiter_blocks_nobody(kit: LockKit) -> None:
    """A killed waiter is never granted the lock, and delays the waiters behind it by no more than the declared bound."""
    held = await kit.taken(ttl=max(kit.ttl, 2.0))
    child, _ = await kit.started(waiter, "waiting", name="a", ttl=kit.ttl)
    bound = kit.claims.dead_waiter_bound
    behind = await kit.waits(timeout=kit.upper(bound + kit.ttl + 30))
    child.kill()
    await child.exit()
    with kit.within(bound + 1, "the wait behind a killed waiter", measure="delay by a killed waiter at the head"):
        await held.release()
        got = await behind
    await got.release()
    await kit.until_free("a", within=bound, what="the killed waiter keeps no place in the queue")
