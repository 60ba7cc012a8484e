"""Locks: what happens to the server: restarts, kills, pauses, sessions it ends, records and rights that are taken away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from narrowboat.capabilities import WakeUp
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import AccessDenied, LeaseLost, LockTimeout, NarrowboatError, Reason, Unavailable

#: Seconds that one driver call may block in these scenarios.
OPERATION = 1.0


def _lease(kit: Kit) -> float:
    """Longer than a restart takes."""
    return max(kit.ttl, 20.0)


async def _back(kit: Kit) -> None:
    """Until the server answers again."""
    await kit.blocking(kit.server.start)
    await kit.eventually(lambda: kit.answers(kit.outside), within=30, what="the server answers after its start", every=0.05)


async def _ended(kit: Kit, end: str) -> None:
    """The server ends, in good order or killed, and is back again."""
    await kit.blocking(getattr(kit.server, end))
    await _back(kit)


@scenario("L87", tier="R", needs="survives=crash", refused=demand, faults={Fault.RESTART}, seconds=180)
async def held_across_a_restart(kit: Kit) -> None:
    """A lock held while the server restarts is kept, or its holder learns of the loss; at no time do two believe in it."""
    await _held_across(kit, "stop")


@scenario("L87", tier="R", needs="survives=crash", refused=demand, faults={Fault.KILL}, seconds=180)
async def held_across_a_kill(kit: Kit) -> None:
    """A lock held while the server is killed and started is kept, or its holder learns of the loss; never two believe in it."""
    await _held_across(kit, "kill")


async def _held_across(kit: Kit, end: str) -> None:
    held = await kit.locks(timeout=OPERATION).lock("a", ttl=_lease(kit)).acquire(timeout=5)
    begun = time.monotonic()
    await _ended(kit, end)
    kit.measure(f"server {end} to the first answer", time.monotonic() - begun)
    other = kit.locks()
    new: Any = None
    while new is None and time.monotonic() < begun + held.ttl * 0.7:  # by then it was renewed by the server that came back
        try:
            new = await other.lock("a", ttl=60).try_acquire()
        except Unavailable:
            pass
        await asyncio.sleep(0.01)
    if new is None and not held.lost:
        await held.renew()
        await held.release()
    elif new is not None:
        assert held.lost, f"after a {end} of the server the lock was granted to another while its holder believed in it"
        await fails(LeaseLost, held.release())
        assert not await kit.free("a"), "the first holder's release freed the next one's lock"
        await new.release()
    bound = max(held.ttl, kit.claims.ttl_min) + kit.claims.expiry_lag
    await kit.eventually(lambda: kit.free("a"), within=bound, what="free in the end", every=0.05)


@scenario("L88", tier="R", faults={Fault.RESTART}, seconds=180)
async def waiting_across_a_restart(kit: Kit) -> None:
    """Who waits while the server restarts gets the lock in the end, or an error that says why, and does not hang."""
    await _waiting_across(kit, "stop")


@scenario("L88", tier="R", faults={Fault.KILL}, seconds=180)
async def waiting_across_a_kill(kit: Kit) -> None:
    """Who waits while the server is killed and started gets the lock in the end, or an error, and does not hang."""
    await _waiting_across(kit, "kill")


async def _let_go(kit: Kit, held: Any) -> None:
    """Release it, again and again while the outcome is unknown: for so long it may be held still, and it is renewed."""

    async def answered() -> bool:
        try:
            await held.release()
        except Unavailable:
            return False
        except LeaseLost:
            pass
        return True

    await kit.eventually(answered, within=held.ttl + 6 * OPERATION, what="a release is answered", every=0.05)


async def _waiting_across(kit: Kit, end: str) -> None:
    held = await kit.locks(timeout=OPERATION).lock("a", ttl=_lease(kit)).acquire(timeout=5)
    limit = 60 + _lease(kit) + kit.claims.expiry_lag
    waiting = await kit.queued(kit.locks(timeout=OPERATION).lock("a").acquire(timeout=kit.upper(limit)), "a")
    await _ended(kit, end)
    begun = time.monotonic()
    await _let_go(kit, held)
    try:
        got = await waiting
    except (Unavailable, LockTimeout):
        pass  # it was told; and what it may have left is gone in the end
    else:
        kit.measure(f"wait after a {end} of the server", time.monotonic() - begun)
        got.check()
        await _let_go(kit, held)  # once more, as one who does not know: the next holder's lock is not touched
        assert not await kit.free("a")
        await got.release()
    bound = kit.claims.dead_waiter_bound + _lease(kit)
    await kit.eventually(lambda: kit.free("a"), within=bound, what="free in the end", every=0.05)


@scenario("L89", tier="R", faults={Fault.KILL}, seconds=180)
async def a_server_that_is_down_is_told(kit: Kit) -> None:
    """While the server is down every call ends in time with a typed error that can be tried again, never with a success."""
    locks = kit.locks(timeout=OPERATION)
    held = await locks.lock("held", ttl=_lease(kit)).acquire(timeout=5)
    kept = await locks.lock("kept", ttl=_lease(kit)).acquire(timeout=5)
    await kit.blocking(kit.server.kill)
    # A call is repeated once, and each time it may find the way taken by an exchange and its repetition.
    limit = 6 * OPERATION + 1.0
    fresh = kit.locks(timeout=OPERATION)
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("acquire", lambda: locks.lock("a").acquire(timeout=0.5)),
        ("try", lambda: locks.lock("a").try_acquire()),
        ("release", held.release),
        ("renew", kept.renew),
        ("ping", locks.ping),
        ("acquire on a new connection", lambda: fresh.lock("a").acquire(timeout=0.5)),
    )
    for what, call in calls:
        with kit.within(limit, f"{what} without a server", measure=f"{what} without a server"):
            error = await fails((Unavailable, LockTimeout), call(), what=f"{what} without a server")
        assert error.retryable
    await _back(kit)
    for each in (held, kept):  # a release of unknown outcome may be made again; until then it is still ours
        if not each.lost:
            await each.release()
    for name in ("a", "held", "kept"):
        await kit.eventually(lambda name=name: kit.free(name), within=_lease(kit) + 10, what=f"{name} free", every=0.05)  # type: ignore[misc]  # bound now
    again = await locks.lock("a").acquire(timeout=kit.upper(10))
    await again.release()


@scenario("L90", tier="R", faults={Fault.PAUSE}, seconds=180)
async def a_paused_server_is_bounded(kit: Kit) -> None:
    """While the server stands still every call ends within its operation timeout; what was under way harms nothing later."""
    locks = kit.locks(timeout=OPERATION)
    held = await locks.lock("held", ttl=_lease(kit)).acquire(timeout=5)
    await kit.blocking(kit.server.pause)
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("acquire", lambda: locks.lock("a", ttl=60).acquire(timeout=0.2)),
        ("try", lambda: locks.lock("b", ttl=60).try_acquire()),
        ("renew", held.renew),
    )
    for what, call in calls:
        with kit.within(6 * OPERATION + 1.0, what, measure=f"{what} while the server stands still"):
            await fails((Unavailable, LockTimeout), call(), what=f"{what} while the server stands still")
    await kit.blocking(kit.server.resume)
    await _back(kit)
    for name in ("a", "b"):  # the requests may be carried out now: they are found and undone
        bound = kit.claims.dead_waiter_bound + 10
        await kit.eventually(lambda name=name: kit.free(name), within=bound, what=f"{name} free", every=0.05)  # type: ignore[misc]  # bound now
    if not held.lost:
        await held.renew()
        await held.release()
    await kit.eventually(lambda: kit.free("held"), within=_lease(kit), what="held free", every=0.05)


# -- sessions, records, rights, clocks ----------------------------------------------------------------------------------


@scenario("L85", tier="R", faults={Fault.SESSION}, seconds=120)
async def a_session_ended_at_its_holder(kit: Kit) -> None:
    """When the server ends a holder's session another gets the lock, and the holder learns that it is lost."""
    locks = kit.locks()
    held = [await locks.lock(name, ttl=max(kit.ttl, 5.0)).acquire(timeout=5) for name in ("a", "b")]
    told = kit.told_of(held[0])
    waiting = await kit.queued(kit.locks().lock("a").acquire(timeout=kit.upper(60)), "a")
    begun = time.monotonic()
    await kit.blocking(kit.harness.end_session, kit.drivers[0])
    got = await waiting
    kit.measure("end of a session to the next grant", time.monotonic() - begun)
    await kit.eventually(lambda: told, within=held[0].ttl, what="the holder learns that its session ended")
    kit.measure("end of a session to the notice of loss", told[0] - begun)
    for each in held:
        assert each.reason in (Reason.SESSION_ENDED, Reason.TAKEN, Reason.EXPIRED), each.reason
        await fails(LeaseLost, each.release())
    got.check()
    await got.release()
    again = await locks.lock("a").acquire(timeout=kit.upper(20))  # on a new session
    await again.release()


@scenario("L86", tier="R", faults={Fault.SESSION}, seconds=120)
async def a_session_ended_at_a_waiter(kit: Kit) -> None:
    """When the server ends a waiter's session it queues again, or ends with an error; no ghost of it blocks the queue."""
    held = await kit.locks().lock("a", ttl=max(kit.ttl, 30.0)).acquire(timeout=5)
    waiting = await kit.queued(kit.locks().lock("a").acquire(timeout=kit.upper(60)), "a")
    await kit.blocking(kit.harness.end_session, kit.drivers[-1])
    behind = await kit.queued(kit.locks().lock("a").acquire(timeout=kit.upper(60)), "a", 2)
    await held.release()
    outcomes = []
    for task in (behind, waiting):
        try:
            got = await task
        except NarrowboatError as error:
            outcomes.append(error)
            continue
        got.check()
        await got.release()
    assert all(isinstance(error, Unavailable | LockTimeout) for error in outcomes), outcomes
    assert len(outcomes) < 2, "neither of the waiters got the lock"
    await kit.eventually(lambda: kit.free("a"), within=kit.claims.dead_waiter_bound + 5, what="no ghost in the queue")


@scenario("L33", tier="R", faults={Fault.DELETE}, seconds=120)
async def deleted_under_a_waiter(kit: Kit) -> None:
    """When what the backend keeps of a lock is deleted under a waiter, it gets the lock or an error, and does not hang."""
    held = await kit.locks().lock("a", ttl=max(kit.ttl, 2.0)).acquire(timeout=5)
    waiting = await kit.queued(kit.locks().lock("a").acquire(timeout=kit.upper(60)), "a")
    await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
    begun = time.monotonic()
    try:
        got = await waiting
    except (Unavailable, LockTimeout):
        pass
    else:
        assert held.lost or got.token > held.token
        kit.measure("deletion under a waiter to its grant", time.monotonic() - begun)
        got.check()
        await got.release()
    bound = held.ttl + kit.claims.dead_waiter_bound + kit.claims.expiry_lag
    await kit.eventually(lambda: kit.free("a"), within=bound, what="free in the end")


@scenario("L62", tier="R", faults={Fault.DELETE}, seconds=120)
async def deleted_under_its_holder(kit: Kit) -> None:
    """When what the backend keeps of a lock is deleted under its holder, it learns within its next renewals, or is told."""
    held = await kit.locks().lock("a", ttl=max(kit.ttl, 1.0)).acquire(timeout=5)
    told = kit.told_of(held)
    await held.renew()
    begun = time.monotonic()
    await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
    bound = kit.claims.wake_bound if kit.claims.loss is WakeUp.NOTIFIED else held.ttl + 1
    await kit.eventually(lambda: told, within=bound, what="the holder learns of the deletion")
    kit.measure("deletion to the holder's notice", told[0] - begun)
    assert held.lost
    await fails(LeaseLost, held.renew())
    await fails(LeaseLost, held.release())
    got = await kit.locks().lock("a").acquire(timeout=kit.upper(10))
    assert got.token > held.token
    await got.release()


@scenario("L103", tier="R", faults={Fault.CREDENTIALS}, seconds=120)
async def rights_revoked_while_held(kit: Kit) -> None:
    """Without the rights that it had, a holder learns in time, new calls are AccessDenied, and nothing is left behind."""
    locks = kit.locks(timeout=OPERATION)
    held = await locks.lock("a", ttl=max(kit.ttl, 2.0)).acquire(timeout=5)
    await kit.blocking(kit.harness.revoke)
    try:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: locks.lock("b").acquire(timeout=1),
            lambda: kit.locks(timeout=OPERATION).lock("c").try_acquire(),
        )
        for call in calls:
            error = await fails((AccessDenied, Unavailable), call(), what="an acquire without rights")
            assert isinstance(error, AccessDenied), f"rights revoked, and told as {error!r}"
        await kit.eventually(lambda: held.lost, within=held.ttl + 1, what="the holder learns")
    finally:
        await kit.blocking(kit.harness.permit)
    bound = held.ttl + kit.claims.expiry_lag + 5
    for name in ("a", "b", "c"):
        await kit.eventually(lambda name=name: kit.free(name), within=bound, what=f"{name} free")  # type: ignore[misc]  # bound now
    again = await locks.lock("a").acquire(timeout=kit.upper(10))
    await again.release()


@scenario("L100", tier="R", needs="fencing", refused=demand, faults={Fault.SERVER_CLOCK}, seconds=120)
async def the_servers_clock_jumps(kit: Kit) -> None:
    """When the server's wall clock jumps by an hour, either way, nobody holds twice, and tokens go on growing."""
    newest = -1
    for jump in (3600.0, -3600.0):
        held = await kit.locks().lock("a", ttl=max(kit.ttl, 2.0)).acquire(timeout=kit.upper(10))
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
    got = await kit.locks().lock("a").acquire(timeout=kit.upper(10))
    assert got.token > newest
    await got.release()
