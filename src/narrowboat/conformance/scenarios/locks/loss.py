"""Locks: a loss is noticed, whatever brought it about, and what was lost can do no harm."""

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
from narrowboat.conformance.kit import Kit, plain
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import forks, holder, waiter, zombie
from narrowboat.demo.stock import Stock
from narrowboat.errors import LeaseLost, NarrowboatError, Reason

#: What a holder may be told when somebody broke its lock: not every backend can tell who it was.
BROKEN = (Reason.EVICTED, Reason.TAKEN, Reason.SESSION_ENDED)
#: What a holder may be told whose lease ran out while it, or its renewal, stood still.
ENDED = (Reason.EXPIRED, Reason.PAUSED, Reason.SESSION_ENDED, Reason.TAKEN)


async def evicts(kit: Kit) -> None:
    """The call that is refused where eviction is not claimed."""
    await kit.locks().evict("a", 1)


@scenario("L62", "L66", tier="T", needs="evict", refused=evicts)
async def an_evicted_holder_is_told(kit: Kit) -> None:
    """Who was evicted is told within the next renewal, renewing or releasing says lost, and the new holder is untouched."""
    ttl = max(kit.ttl, 1.0)
    held = await kit.locks().lock("a", ttl=ttl).acquire(timeout=5)
    told = kit.told_of(held)
    begun = time.monotonic()
    assert await kit.outside.evict("a", held.token) is True
    new = await kit.outside.lock("a", ttl=30).acquire(timeout=kit.upper(5))
    await kit.eventually(lambda: told, within=ttl, what="the evicted holder is told")
    kit.measure("eviction to the holder's notice", told[0] - begun)
    assert held.lost
    assert held.reason in BROKEN, held.reason
    await _is_lost(held, BROKEN)
    await kit.stays(new, "the evicted holder's calls freed the new holder's lock")
    await new.release()
    await kit.sleep(0.05)
    assert len(told) == 1, f"on_lost was called {len(told)} times"


@scenario("L62", tier="T", needs=("evict", "loss=notified"), refused=demand)
async def an_evicted_holder_need_not_wait_for_its_renewal(kit: Kit) -> None:
    """Where a holder is told of its loss, it knows within the bound: just granted, held for a while, and renewed by nobody."""
    locks = kit.locks()
    beside = await locks.lock("beside").acquire(timeout=5)
    for what, seconds, renew in (("just granted", 0.0, True), ("held for a while", 1.0, True), ("not renewed", 1.0, False)):
        held = await locks.lock(what, ttl=max(kit.ttl, 6 * kit.claims.wake_bound), renew=renew).acquire(timeout=5)
        told = kit.told_of(held)
        if seconds:
            await kit.sleep(seconds)
        if seconds and renew:
            await held.renew()  # or the next one could be due by chance
        begun = time.monotonic()
        assert await kit.outside.evict(what, held.token) is True
        bound = kit.claims.wake_bound
        await kit.eventually(lambda told=told: told, within=bound, what=f"an evicted holder is told: {what}")  # type: ignore[misc]  # bound now
        kit.measure(f"eviction to the holder's notice, {what}", told[0] - begun)
        assert held.reason in BROKEN, held.reason
        await _is_lost(held, BROKEN)
        beside.check()
    await beside.renew()
    await beside.release()


async def _is_lost(held: Any, reasons: tuple[Reason, ...]) -> None:
    """Every call of a possession that was lost says so, by the same typed error, again and again."""
    for call in (held.renew, held.release, held.release):
        error = await fails(LeaseLost, call())
        assert (error.name, error.token) == (held.name, held.token)
        assert error.reason in reasons, error.reason
    with raises(LeaseLost):
        held.check()
    assert held.expires_in == 0


@scenario("L66", "L64", tier="T")
async def a_lease_that_ran_out_is_lost_for_good(kit: Kit) -> None:
    """After the end of a lease every call says LeaseLost, and whoever asks or subscribes only then is told at once."""
    held = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
    got = await kit.locks().lock("a", ttl=30).acquire(timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
    assert held.lost, "another was let in before the lease ended by its holder's own clock"
    assert held.reason in ENDED, held.reason
    told: list[Any] = []
    held.on_lost(told.append)
    await kit.eventually(lambda: told, within=1, what="who subscribes after the loss is told")
    with kit.within(1.0, "waiting for what has happened"):
        assert await held.wait_lost(10) is True
        assert await held.wait_lost(0) is True
    await _is_lost(held, ENDED)
    await got.renew()
    await got.release()


@scenario("L63")
async def a_release_is_no_loss(kit: Kit) -> None:
    """A release in time is no loss: no callback, no reason, and who waits for the loss is told that there was none."""
    locks = kit.locks()
    told: list[Any] = []
    for attempt in range(3):
        held = await locks.lock("a", ttl=max(kit.ttl, 1.0)).acquire(timeout=5)
        held.on_lost(told.append)
        waiting = kit.spawn(held.wait_lost(30))
        assert await held.wait_lost(0.02 * attempt) is False, "lost, it says, while it is held"
        await held.release()
        assert await waiting is False, "who waits for a loss took a release for one"
        assert not held.lost
        assert held.reason is None
        held.on_lost(told.append)
    assert await kit.free("a")
    await kit.sleep(0.05)
    assert not told, "on_lost was called for a release"

    last = await locks.lock("a").acquire(timeout=5)  # the control: the same callbacks do come when it is lost
    last.on_lost(told.append)
    await locks.close()
    await kit.eventually(lambda: told, within=2, what="on_lost when the provider is closed")


@scenario("L65")
async def closing_what_is_watched_is_safe(kit: Kit) -> None:
    """Closing the provider of a watched possession tells its watchers `closed`, and hangs and raises nothing."""
    locks = kit.locks()
    held = await locks.lock("a").acquire(timeout=5)
    told: list[Any] = []
    held.on_lost(lambda lost: told.append(lost.reason))
    waiting = [kit.spawn(held.wait_lost(60)) for _ in range(3)]
    await kit.sleep(0.05)
    await locks.close()
    for task in waiting:
        assert await task is True, "closed, and who waits for the loss was told that there is none"
    await kit.eventually(lambda: told, within=2, what="on_lost after a close")
    assert told == [Reason.CLOSED]
    assert (held.lost, held.reason) == (True, Reason.CLOSED)
    assert await kit.free("a")
    await fails(NarrowboatError, held.release())
    with raises(LeaseLost):
        held.check()


@scenario("L65")
async def a_callback_that_fails_harms_nobody(kit: Kit) -> None:
    """A watcher that raises keeps neither other watchers nor the next holder from what is theirs."""
    locks = kit.locks()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # told of what a callback raises, rightly
    held = await locks.lock("a").acquire(timeout=5)
    told: list[Any] = []

    def fails(lost: object) -> None:
        raise ValueError("a watcher's own error")

    held.on_lost(fails)
    held.on_lost(told.append)
    other = await locks.lock("b", ttl=max(kit.ttl, 1.0)).acquire(timeout=5)
    await locks.close()
    await kit.eventually(lambda: told, within=2, what="the second watcher is told although the first one raised")
    assert other.lost
    assert await kit.free("a")
    assert await kit.free("b")


# -- standing still ---------------------------------------------------------------------------------------------------


@scenario("L67", "L68", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_stopped_holder_learns_at_its_first_look(kit: Kit) -> None:
    """A process stopped past its lease knows at its first look that the lock is lost, and cannot touch the next holder's."""
    child = await kit.child(zombie, url=kit.locks_url, face=kit.face, name="a", ttl=kit.ttl)
    told = await child.event("held")
    child.stop()
    stopped = time.monotonic()
    new = await kit.locks().lock("a", ttl=60).acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 5))
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
        assert outcome["error"] == "LeaseLost", f"{call} of a lost lock: {outcome['error']}"
    await kit.stays(new, "the stopped holder's calls freed the next holder's lock")
    child.tell("end")
    assert await child.exit() == 0
    assert not await kit.free("a"), "the end of the stopped process freed the next holder's lock"
    await new.release()


@scenario("L80", tier="P", needs=("scope=host", "fencing"), refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_guarded_record_refuses_the_stopped_holder(kit: Kit) -> None:
    """A record that compares tokens refuses the write of a holder that was stopped past its lease, and takes the next one's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stock.db")
        stock = Stock.create(path, items=1, stock=2)
        child = await kit.child(zombie, url=kit.locks_url, face=kit.face, name="item", ttl=kit.ttl, record=str(path))
        await child.event("held")
        child.stop()
        new = await kit.locks().lock("item", ttl=60).acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 5))
        assert stock.sell(0, "new", left=1, token=new.token).value == "sold"
        child.resume()
        wrote = await child.event("wrote")
        assert wrote["outcome"] == "stale", f"the older token's write was {wrote['outcome']}"
        assert (stock.left(), stock.sales()) == ({0: 1}, {"new": 0})
        child.tell("end")
        await new.release()
        stock.close()


@scenario("L69", tier="T")
async def a_holder_whose_program_stood_still_learns(kit: Kit) -> None:
    """When the holder's event loop, or its thread, stood still past the lease, it knows at its first look and does no harm."""
    other = plain(kit.locks(face="sync"))
    got: list[Any] = []
    patience = kit.upper(kit.ttl * 2 + kit.claims.expiry_lag + 10)
    held = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
    told = kit.told_of(held)
    left: list[float] = []  # of the holder's lease when another was let in, seen at that very moment: a busy machine is late

    def takes() -> None:
        got.append(other.lock("a", ttl=60).acquire(timeout=patience))
        left.append(held.expires_in)

    thread = threading.Thread(target=takes, name="conformance-other")
    thread.start()
    if kit.face == "asyncio":
        thread.join()  # the event loop stands still
    else:
        await kit.blocking(thread.join)
    valid = not held.lost
    resumed = time.monotonic()
    assert got, "nobody got the lock: the scenario tests nothing"
    assert not valid and left == [0.0], (
        "another was let in before the lease ended: the holder that stood still takes it for its own"
    )
    assert held.reason in ENDED, held.reason
    await kit.eventually(lambda: told, within=1, what="on_lost after the standstill")
    kit.measure("end of a standstill to the notice of loss", max(0.0, told[0] - resumed))
    await _is_lost(held, ENDED)
    got[0].check()
    await kit.blocking(got[0].renew)
    assert not await kit.free("a")
    await kit.blocking(got[0].release)


class _Jumping(SystemClock):
    """The machine's clock, which can jump ahead as it does when the machine slept: without telling anybody."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return super().__call__() + self.slept


@scenario("L72", tier="T")
async def a_machine_that_slept_has_lost_its_locks(kit: Kit) -> None:
    """After the boot clock jumped past the lease, as after a suspend, the first look says lost, and so does every call."""
    for renew in (True, False):
        clock = _Jumping()
        name = f"renewed {renew}"
        locks = kit.locks(clock=clock, url=kit.harness.locks_url(f"{kit.namespace}{renew:d}"))
        held = await locks.lock(name, ttl=max(kit.ttl, 1.0), renew=renew).acquire(timeout=5)
        told: list[Any] = []
        held.on_lost(lambda lost, told=told: told.append(lost.reason))  # type: ignore[misc]  # bound now
        held.check()
        clock.slept = held.ttl * 3
        assert held.lost, "the machine slept for three leases, and the holder takes the lock for its own"
        assert held.reason is Reason.PAUSED, held.reason
        assert held.expires_in == 0
        await kit.eventually(lambda told=told: told, within=held.ttl, what="on_lost after the machine slept")  # type: ignore[misc]  # bound now
        await _is_lost(held, (Reason.PAUSED,))
        again = await locks.lock(name).acquire(timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
        assert again.token > held.token
        again.check()
        await again.release()


@scenario("L99", tier="T", alone=True)
async def the_wall_clock_decides_nothing(kit: Kit) -> None:
    """A client whose wall clock jumps by an hour, either way, neither loses a lock early nor holds one for longer."""
    true = time.time
    other = kit.locks().lock("a")
    for jump in (3600.0, -3600.0):
        held = await kit.locks().lock("a", ttl=kit.ttl).acquire(timeout=5)
        with mock.patch("time.time", lambda jump=jump: true() + jump):
            begun = time.monotonic()
            while time.monotonic() - begun < held.ttl * 1.5:
                held.check()
                assert await other.try_acquire() is None, f"the wall clock jumped by {jump:g} s, and the lock is free"
                await kit.sleep(0.02)
            await held.release()
            sent = time.monotonic()
            left = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
        granted = time.monotonic()  # from here on the clock is right again: another jump, the other way
        got = await other.acquire(timeout=kit.upper(left.ttl + kit.claims.expiry_lag + 5))
        now = time.monotonic()
        early = kit.excludes(left.ttl) - (now - sent)
        assert early <= 0, f"free {early:.3f} s early after a jump of the wall clock"
        late = now - granted - left.ttl
        assert late < kit.upper(kit.claims.expiry_lag), f"free {late:.3f} s late after a jump of the wall clock"
        assert left.lost
        await got.release()


# -- processes that fork, end and are killed ----------------------------------------------------------------------------


@scenario("L73", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_fork_does_not_hold_its_parents_lock(kit: Kit) -> None:
    """A forked child neither believes it holds its parent's lock, nor renews, nor frees it, and can lock for itself."""
    ttl = max(kit.ttl, 1.0)
    child = await kit.child(forks, url=kit.locks_url, face=kit.face, name="a", ttl=ttl)
    await child.event("held")
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
async def a_holder_that_ended_without_release(kit: Kit) -> None:
    """A holder that ends without a release, by returning or by exit, frees the lock no later than its lease and the lag."""
    for end in ("return", "exit"):
        child = await kit.child(holder, url=kit.locks_url, face=kit.face, name=end, ttl=kit.ttl, end=end)
        told = await child.event("held")
        waiting = await kit.queued(kit.locks().lock(end).acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 20)), end)
        child.tell("go")
        await child.exit()
        ended = time.monotonic()
        got = await waiting
        took = time.monotonic() - ended
        kit.measure(f"end of a holder without release, by {end}, to the next grant", took)
        assert took <= kit.ttl + kit.upper(kit.claims.expiry_lag), f"{end}: free {took:.3f} s after its holder's end"
        assert got.token > told["token"]
        await got.release()


@scenario("L83", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_killed_holder_frees_its_lock(kit: Kit) -> None:
    """The lock of a holder that was killed goes to who waits: no later than its lease and the declared lag."""
    for round in range(3 if kit.claims.expiry is Expiry.LEASE else 1):
        name = f"a{round}"
        child = await kit.child(holder, url=kit.locks_url, face=kit.face, name=name, ttl=kit.ttl)
        told = await child.event("held")
        waiting = await kit.queued(
            kit.locks().lock(name).acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 20)), name
        )
        killed = child.kill()
        got = await waiting
        took = time.monotonic() - killed
        kit.measure("kill of a holder to the next grant", took)
        assert took <= kit.ttl + kit.upper(kit.claims.expiry_lag), f"free {took:.3f} s after its holder was killed"
        assert got.token > told["token"]
        await got.release()


@scenario("L84", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_killed_waiter_blocks_nobody(kit: Kit) -> None:
    """A waiter that was killed is never granted the lock, and delays those behind it by no more than the declared bound."""
    held = await kit.locks().lock("a", ttl=max(kit.ttl, 2.0)).acquire(timeout=5)
    child = await kit.child(waiter, url=kit.locks_url, face=kit.face, name="a", ttl=kit.ttl)
    await child.event("waiting")
    behind = await kit.queued(
        kit.locks().lock("a").acquire(timeout=kit.upper(kit.claims.dead_waiter_bound + kit.ttl + 30)), "a"
    )
    child.kill()
    await child.exit()
    released = time.monotonic()
    await held.release()
    got = await behind
    took = time.monotonic() - released
    kit.measure("delay by a killed waiter at the head", took)
    assert took <= kit.upper(kit.claims.dead_waiter_bound + 1), f"a killed waiter delayed the next by {took:.3f} s"
    await got.release()
    await kit.eventually(lambda: kit.free("a"), within=kit.claims.dead_waiter_bound, what="free, with no ghost in the queue")
