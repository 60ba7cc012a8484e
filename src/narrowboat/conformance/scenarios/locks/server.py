"""Locks: a server that restarts, dies or pauses, ends sessions, loses records, revokes rights or changes its clock."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.capabilities import WakeUp
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import AccessDenied, LeaseLost, Reason, Unavailable

#: Seconds that one driver call may block in these scenarios.


def _lease(kit: LockKit) -> float:
    """Longer than a restart takes."""
    return max(kit.ttl, 20.0)


async def _back(kit: LockKit) -> None:
    """Let the server run again, whatever happened to it, and wait until it answers."""
    await kit.blocking(kit.server.resume)
    await kit.blocking(kit.server.start)
    await kit.eventually(lambda: kit.answers(kit.outside), within=30, what="the server answers after its start", every=0.05)


@scenario("L87", tier="R", needs="survives=crash", refused=demand, faults={Fault.RESTART, Fault.KILL}, seconds=300)
async def held_while_the_server_restarts(kit: LockKit) -> None:
    """A lock held while the server is stopped or killed, and started, is kept, or its loss is told; never do two hold it."""
    for end in ("stop", "kill"):
        held = await kit.locks(timeout=kit.operation).lock(end, ttl=_lease(kit)).acquire(timeout=5)
        begun = time.monotonic()
        await kit.blocking(getattr(kit.server, end))
        await _back(kit)
        kit.measure(f"server {end} to the first answer", time.monotonic() - begun)
        other = kit.locks().lock(end, ttl=60)
        new: Any = None
        while new is None and time.monotonic() < begun + held.ttl * 0.7:  # by then the server that came back has renewed it
            try:
                new = await other.try_acquire()
            except Unavailable:
                pass
            await asyncio.sleep(0.01)
        if new is None and not held.lost:
            await kit.lets_go(held)
        elif new is not None:
            assert held.lost, f"after a {end} of the server the lock was granted to another while its holder believed in it"
            await fails(LeaseLost, held.release())
            assert not await kit.free(end), "the first holder's release freed the next one's lock"
            await new.release()
        bound = max(held.ttl, kit.claims.ttl_min) + kit.claims.expiry_lag
        await kit.until_free(end, within=bound, what="its holders have released it, or its lease has ended")


@scenario("L88", tier="R", faults={Fault.RESTART, Fault.KILL}, seconds=300)
async def waiting_while_the_server_restarts(kit: LockKit) -> None:
    """A waiter at a server that is stopped or killed, and started, gets the lock or an error, and does not hang."""
    for end in ("stop", "kill"):
        held = await kit.locks(timeout=kit.operation).lock(end, ttl=_lease(kit)).acquire(timeout=5)
        limit = kit.upper(60 + _lease(kit) + kit.claims.expiry_lag)
        waiting = await kit.queued(kit.locks(timeout=kit.operation).lock(end).acquire(timeout=limit), end)
        await kit.blocking(getattr(kit.server, end))
        await _back(kit)
        begun = time.monotonic()
        await _let_go(kit, held)
        got = await kit.granted_or_told(waiting)
        if got is not None:
            kit.measure(f"wait after a {end} of the server", time.monotonic() - begun)
            got.check()
            await _let_go(kit, held)  # a second time, as by a holder in doubt: it must not touch the next holder's lock
            assert not await kit.free(end)
            await got.release()
        bound = kit.claims.dead_waiter_bound + _lease(kit)
        await kit.until_free(end, within=bound, what="its holder and its waiter have left")


async def _let_go(kit: LockKit, held: Any) -> None:
    """Release the lock, again and again while the outcome is unknown: until then it may be held, and is renewed."""

    async def answered() -> bool:
        try:
            await held.release()
        except Unavailable:
            return False
        except LeaseLost:
            pass
        return True

    await kit.eventually(answered, within=held.ttl + 6 * kit.operation, what="a release is answered", every=0.05)


@scenario("L89", tier="R", faults={Fault.KILL}, seconds=180)
async def a_server_that_is_down_is_told(kit: LockKit) -> None:
    """While the server is down every call ends in time with a typed error that can be tried again, never with a success."""
    locks = kit.locks(timeout=kit.operation)
    held = await locks.lock("held", ttl=_lease(kit)).acquire(timeout=5)
    kept = await locks.lock("kept", ttl=_lease(kit)).acquire(timeout=5)
    await kit.blocking(kit.server.kill)
    fresh = kit.locks(timeout=kit.operation)
    calls = {
        "acquire": lambda: locks.lock("a").acquire(timeout=0.5),
        "try": lambda: locks.lock("a").try_acquire(),
        "release": held.release,
        "renew": kept.renew,
        "ping": locks.ping,
        "acquire on a new connection": lambda: fresh.lock("a").acquire(timeout=0.5),
    }
    await kit.all_end(kit.operation, "without a server", calls)
    await _back(kit)
    for each in (held, kept):  # a release of unknown outcome may be repeated; until then the lock is still its holder's
        if not each.lost:
            await each.release()
    await kit.until_free("a", "held", "kept", within=_lease(kit) + 10, what="the server is back")
    await (await locks.lock("a").acquire(timeout=kit.upper(10))).release()


@scenario("L90", tier="R", faults={Fault.PAUSE}, seconds=180)
async def a_paused_server_is_bounded(kit: LockKit) -> None:
    """While the server stands still every call ends within its operation timeout, and does no harm when it is served later."""
    locks = kit.locks(timeout=kit.operation)
    held = await locks.lock("held", ttl=_lease(kit)).acquire(timeout=5)
    await kit.blocking(kit.server.pause)
    calls = {
        "acquire": lambda: locks.lock("a", ttl=60).acquire(timeout=0.2),
        "try": lambda: locks.lock("b", ttl=60).try_acquire(),
        "renew": held.renew,
    }
    await kit.all_end(kit.operation, "while the server stands still", calls)
    await _back(kit)
    undone = "the server may carry out the requests now, and the client finds and undoes them"
    await kit.until_free("a", "b", within=kit.claims.dead_waiter_bound + 10, what=undone)
    if not held.lost:
        await kit.lets_go(held)
    await kit.until_free("held", within=_lease(kit), what="its holder has released it, or its lease has ended")


# -- sessions, records, rights, clocks ----------------------------------------------------------------------------------


@scenario("L85", tier="R", faults={Fault.SESSION}, seconds=120)
async def a_session_ended_at_its_holder(kit: LockKit) -> None:
    """When the server ends a holder's session another gets the lock, and the holder learns that it is lost."""
    locks = kit.locks()
    held = [await locks.lock(name, ttl=max(kit.ttl, 5.0)).acquire(timeout=5) for name in ("a", "b")]
    reasons = (Reason.SESSION_ENDED, Reason.TAKEN, Reason.EXPIRED)
    waiting = await kit.waits(timeout=kit.upper(60))
    async with kit.loses(held[0], reasons, held[0].ttl, "end of a session to the notice of loss"):
        begun = time.monotonic()
        await kit.blocking(kit.harness.end_session, kit.drivers[0])
        got = await waiting
        kit.measure("end of a session to the next grant", time.monotonic() - begun)
    for each in held:
        assert each.reason in reasons, each.reason
        await fails(LeaseLost, each.release())
    await kit.lets_go(got)
    await (await locks.lock("a").acquire(timeout=kit.upper(20))).release()  # in a new session


@scenario("L86", tier="R", faults={Fault.SESSION}, seconds=120)
async def a_session_ended_at_a_waiter(kit: LockKit) -> None:
    """When the server ends a waiter's session, it queues again or ends with an error, and leaves nothing in the queue."""
    held = await kit.taken(ttl=max(kit.ttl, 30.0))
    waiting = await kit.waits(timeout=kit.upper(60))
    await kit.blocking(kit.harness.end_session, kit.drivers[-1])
    behind = await kit.waits(timeout=kit.upper(60), count=2)
    await held.release()
    granted = 0
    for task in (behind, waiting):
        if got := await kit.granted_or_told(task):
            granted += 1
            await kit.lets_go(got)
    assert granted, "neither of the waiters got the lock"
    await kit.until_free("a", within=kit.claims.dead_waiter_bound + 5, what="both waiters have left the queue")


@scenario("L33", tier="R", faults={Fault.DELETE}, seconds=120)
async def deleted_under_a_waiter(kit: LockKit) -> None:
    """When the backend's record of a lock is deleted under a waiter, it gets the lock or an error, and does not hang."""
    held = await kit.taken(ttl=max(kit.ttl, 2.0))
    waiting = await kit.waits(timeout=kit.upper(60))
    await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
    begun = time.monotonic()
    if got := await kit.granted_or_told(waiting):
        assert held.lost or got.token > held.token
        kit.measure("deletion under a waiter to its grant", time.monotonic() - begun)
        await kit.lets_go(got)
    bound = held.ttl + kit.claims.dead_waiter_bound + kit.claims.expiry_lag
    await kit.until_free("a", within=bound, what="its record was deleted")


@scenario("L62", tier="R", faults={Fault.DELETE}, seconds=120)
async def deleted_under_its_holder(kit: LockKit) -> None:
    """When the backend's record of a lock is deleted under its holder, the holder is told, or learns at its next renewals."""
    held = await kit.taken(ttl=max(kit.ttl, 1.0))
    await held.renew()
    bound = kit.claims.wake_bound if kit.claims.loss is WakeUp.NOTIFIED else held.ttl + 1
    async with kit.loses(held, [*Reason], bound, "deletion to the holder's notice"):
        await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
    await fails(LeaseLost, held.renew())
    await fails(LeaseLost, held.release())
    async with kit.lock(timeout=kit.upper(10)) as got:
        assert got.token > held.token


@scenario("L103", tier="R", faults={Fault.CREDENTIALS}, seconds=120)
async def rights_revoked_while_held(kit: LockKit) -> None:
    """A holder whose rights are revoked learns in time, its new calls are AccessDenied, and nothing is left behind."""
    locks = kit.locks(timeout=kit.operation)
    held = await locks.lock("a", ttl=max(kit.ttl, 2.0)).acquire(timeout=5)
    await kit.blocking(kit.harness.revoke)
    try:
        await fails(AccessDenied, locks.lock("b").acquire(timeout=1), what="an acquire without rights")
        await fails(AccessDenied, kit.locks(timeout=kit.operation).lock("c").try_acquire(), what="a try without rights")
        await kit.eventually(lambda: held.lost, within=held.ttl + 1, what="the holder learns")
    finally:
        await kit.blocking(kit.harness.permit)
    bound = held.ttl + kit.claims.expiry_lag + 5
    await kit.until_free("a", "b", "c", within=bound, what="the user has its rights again")
    await (await locks.lock("a").acquire(timeout=kit.upper(10))).release()


@scenario("L100", tier="R", needs="fencing", refused=demand, faults={Fault.SERVER_CLOCK}, seconds=120)
async def the_servers_clock_jumps(kit: LockKit) -> None:
    """When the server's wall clock jumps by an hour, either way, nobody holds twice, and tokens go on growing."""
    newest = -1
    for jump in (3600.0, -3600.0):
        held = await kit.taken(ttl=max(kit.ttl, 2.0), timeout=kit.upper(10))
        assert held.token > newest
        newest = held.token
        await kit.blocking(kit.harness.set_clock, jump)
        try:
            watch = time.monotonic() + held.ttl
            while time.monotonic() < watch:
                got = await kit.outside.lock("a", ttl=30).try_acquire()
                if got is not None:
                    assert held.lost, f"the server's clock jumped by {jump:g} s, and two believe in the lock"
                    assert got.token > newest
                    newest = got.token
                    await got.release()
                await kit.sleep(0.02)
        finally:
            await kit.blocking(kit.harness.set_clock, 0.0)
        if not held.lost:
            await held.release()
    async with kit.lock(timeout=kit.upper(10)) as got:
        assert got.token > newest
