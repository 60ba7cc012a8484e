"""Locks: what a network does to a connection, brought about by a proxy in front of the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.capabilities import WaitOrder
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import LeaseLost, LockTimeout, NarrowboatError, Reason, Unavailable

PROXY = {Fault.PROXY}

#: Seconds that one driver call may block in these scenarios: short, so that they are.
OPERATION = 1.0
#: Why a holder that is cut off from its server may be told that its lock is lost.
CUT_OFF = (Reason.EXPIRED, Reason.PAUSED, Reason.SESSION_ENDED)


async def _through(kit: Kit, network: Network) -> tuple[Any, Faults]:
    """Locks that go through `network`, with their first connection made, and the plan of what strikes which call."""
    plan = Faults()
    locks = kit.locks(url=network.url, timeout=OPERATION, faults=plan)
    await locks.ping()
    return locks, plan


def _lease(kit: Kit) -> float:
    """Long enough for a renewal to fail once and be made again."""
    return max(kit.ttl, 4 * OPERATION)


@scenario("L32", tier="N", faults=PROXY, seconds=120)
async def a_lost_notification_delays_by_a_bound(kit: Kit) -> None:
    """A waiter whose connection was cut while it waited, at the moment of the release too, gets the lock all the same."""
    network = await kit.network()
    locks, _ = await _through(kit, network)
    bound = kit.claims.wake_bound + kit.claims.expiry_lag + kit.claims.dead_waiter_bound + 4 * OPERATION
    for cut in ("before", "while", "after"):
        held = await kit.locks().lock("a", ttl=60).acquire(timeout=5)
        waiting = await kit.queued(locks.lock("a").acquire(timeout=kit.upper(bound + 30)), "a")
        if cut == "before":
            await kit.blocking(network.reset)
        elif cut == "while":
            await kit.blocking(network.cut)
        released = time.monotonic()
        await held.release()
        if cut == "while":
            await kit.blocking(network.heal)
        elif cut == "after":
            await kit.blocking(network.reset)
        got = await waiting
        took = time.monotonic() - released
        kit.measure(f"wake-up of a waiter whose connection was cut {cut} the release", took)
        assert took < kit.upper(bound), f"cut {cut} the release: served after {took:.3f} s"
        await got.release()


@scenario("L70", tier="N", faults=PROXY, seconds=120)
async def a_holder_cut_off_knows_in_time(kit: Kit) -> None:
    """A holder that cannot reach its server knows of its loss before the server can give the lock to another."""
    for fault in ("cut", "black_hole"):
        network = await kit.network()
        locks, _ = await _through(kit, network)
        held = await locks.lock(fault, ttl=_lease(kit)).acquire(timeout=5)
        told = kit.told_of(held)
        await kit.eventually(lambda: kit.seen.members["renew"] > 0, within=held.ttl, what="a renewal")
        await kit.blocking(getattr(network, fault))
        begun = time.monotonic()
        new = await kit.locks().lock(fault, ttl=60).acquire(timeout=kit.upper(held.ttl * 2 + kit.claims.expiry_lag + 10))
        assert held.lost, f"{fault}: another was granted the lock, and its first holder takes it for its own"
        assert held.reason in CUT_OFF, held.reason
        await kit.eventually(lambda told=told: told, within=2, what="on_lost")  # type: ignore[misc]  # bound now
        kit.measure(f"network {fault} to the notice of loss", told[0] - begun)
        await kit.blocking(network.heal)
        await fails(LeaseLost, held.release())
        await kit.stays(new, "the holder that was cut off freed the next one's lock")
        await new.release()


@scenario("L90", tier="N", faults=PROXY, seconds=120)
async def a_black_hole_is_bounded(kit: Kit) -> None:
    """While nothing comes through every call ends within its operation timeout, and all is well afterwards."""
    network = await kit.network()
    locks, _ = await _through(kit, network)
    held = await locks.lock("held", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    lone = await locks.lock("lone", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    await kit.blocking(network.black_hole)
    # A call is repeated once, and each time it may find the way taken by an exchange and its repetition.
    limit = 6 * OPERATION + 1.0
    for what, call in (
        ("ping", locks.ping),
        ("acquire", lambda: locks.lock("free").acquire(timeout=0.2)),
        ("try", lambda: locks.lock("free").try_acquire()),
        ("renew", held.renew),
        ("release", lone.release),
    ):
        with kit.within(limit, f"{what} in a black hole", measure=f"{what} in a black hole"):
            error = await fails(NarrowboatError, call(), what=f"{what} in a black hole")
        assert isinstance(error, Unavailable | LockTimeout), f"{what}: {error!r}"
    await kit.blocking(network.heal)
    await kit.eventually(lambda: kit.answers(locks), within=5 * OPERATION, what="a ping after the network has healed")
    if held.ttl < 30 and held.lost:  # a session that cannot be made longer has ended meanwhile, and its holder knows
        assert held.reason is Reason.EXPIRED, held.reason
    else:
        held.check()
        await held.renew()
        await held.release()
    await kit.eventually(lambda: kit.free("held"), within=kit.claims.expiry_lag + 5, what="free")
    await kit.eventually(lambda: kit.free("free"), within=kit.claims.dead_waiter_bound + 5, what="what timed out is not held")


@scenario("L91", "L94", tier="N", faults=PROXY, seconds=120)
async def an_acquire_whose_connection_breaks(kit: Kit) -> None:
    """An acquire whose request or reply is lost on the wire is made again and granted once, and nobody waits for itself."""
    network = await kit.network()
    locks, plan = await _through(kit, network)
    for turn, strike in enumerate((network.drop_request, network.drop_reply, lambda: network.drop_reply(keep=3))):
        before = network.dropped
        plan.call("attempt", lambda items, strike=strike: strike())  # type: ignore[misc]  # bound now
        with kit.within(3 * OPERATION + 1.0, "it waited for itself"):
            held = await locks.lock(f"a{turn}", ttl=max(10.0, kit.ttl)).acquire(timeout=kit.upper(10))
        assert network.dropped > before, "nothing was lost: the scenario tests nothing"
        held.check()
        assert not await kit.free(f"a{turn}")
        await held.renew()
        await held.release()
        assert await kit.free(f"a{turn}"), "a second possession was left behind"
    network.heal()


@scenario("L91", "L94", tier="N", faults=PROXY, seconds=120)
async def a_try_whose_connection_breaks_leaves_nothing(kit: Kit) -> None:
    """Tries and short acquires whose requests or replies are lost end as granted, busy or unavailable, and leave nothing."""
    network = await kit.network()
    locks, plan = await _through(kit, network)
    for turn, strike in enumerate((network.drop_request, network.drop_reply)):
        for times in (1, 3):
            name = f"a{turn}{times}"
            plan.call("attempt", lambda items, strike=strike, times=times: [strike() for _ in range(times)])  # type: ignore[misc]  # bound now
            held = None
            try:
                held = await locks.lock(name, ttl=60).try_acquire()
            except Unavailable:
                pass
            await kit.blocking(network.heal)
            if held is not None:
                held.check()
                assert not await kit.free(name)
                await held.release()
            await kit.eventually(lambda name=name: kit.free(name), within=10, what="free, whatever became of it")  # type: ignore[misc]  # bound now


@scenario("L92", "L96", tier="N", faults=PROXY, seconds=120)
async def a_release_whose_connection_breaks(kit: Kit) -> None:
    """A release whose request or reply is lost on the wire is made again: it succeeds, and the lock is free at once."""
    network = await kit.network()
    locks, plan = await _through(kit, network)
    for turn, strike in enumerate((network.drop_request, network.drop_reply)):
        name = f"a{turn}"
        held = await locks.lock(name, ttl=60).acquire(timeout=5)
        before = network.dropped
        plan.call("release", lambda items, strike=strike: strike())  # type: ignore[misc]  # bound now
        await held.release()
        assert network.dropped > before, "nothing was lost: the scenario tests nothing"
        assert not held.lost
        assert await kit.free(name), "released, it said, and it is not free"


@scenario("L96", tier="N", faults=PROXY, seconds=120)
async def a_withdraw_whose_connection_breaks(kit: Kit) -> None:
    """A waiter that gives up while the connection breaks leaves no place in the queue and no grant behind."""
    network = await kit.network()
    locks, plan = await _through(kit, network)
    for turn, strike in enumerate((network.drop_request, network.drop_reply)):
        name = f"a{turn}"
        held = await kit.locks().lock(name, ttl=60).acquire(timeout=5)
        plan.call("withdraw", lambda items, strike=strike: strike())  # type: ignore[misc]  # bound now
        await fails((LockTimeout, Unavailable), locks.lock(name, ttl=60).acquire(timeout=0.2))
        await held.release()
        bound = kit.claims.dead_waiter_bound + 2 * OPERATION
        await kit.eventually(lambda name=name: kit.free(name), within=bound, what="free, and no ghost in the queue")  # type: ignore[misc]  # bound now


@scenario("L93", tier="N", faults=PROXY, seconds=120)
async def a_renewal_whose_connection_breaks(kit: Kit) -> None:
    """Renewals whose requests or replies are lost on the wire are made again in time, and the lock is kept."""
    network = await kit.network()
    locks, plan = await _through(kit, network)
    held = await locks.lock("a", ttl=_lease(kit)).acquire(timeout=5)
    for strike in (network.drop_request, network.drop_reply):
        before = network.dropped
        plan.call("renew", lambda items, strike=strike: strike())  # type: ignore[misc]  # bound now
        await kit.eventually(lambda before=before: network.dropped > before, within=held.ttl, what="a renewal lost")  # type: ignore[misc]  # bound now
        begun = time.monotonic()
        while time.monotonic() - begun < held.ttl * 0.8:
            held.check()
            await kit.sleep(0.02)
        assert not await kit.free("a")
    await held.release()


@scenario("L97", tier="N", faults=PROXY, seconds=120)
async def broken_connections_poison_nothing(kit: Kit) -> None:
    """After each of twenty resets, in the middle of work and between it, the next calls work on a new connection."""
    network = await kit.network()
    locks, _ = await _through(kit, network)
    opened = network.accepted
    held = await locks.lock("kept", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    for turn in range(20):
        await kit.blocking(network.reset)
        if turn % 2:
            await asyncio.sleep(0.02)
        got = await locks.lock(f"a{turn}", ttl=max(10.0, kit.ttl)).acquire(timeout=kit.upper(10))
        assert not await kit.free(f"a{turn}")
        await got.release()
        assert await kit.free(f"a{turn}")
        held.check()
    await held.renew()
    await held.release()
    kit.measure("connections opened for each reset", (network.accepted - opened) / 20, "connections")
    assert network.connections < 10, f"{network.connections} connections are open"


@scenario("L101", tier="N", faults=PROXY, seconds=120)
async def a_one_way_partition(kit: Kit) -> None:
    """When only requests, or only replies, are lost, calls are bounded, the holder learns in time, and nobody holds twice."""
    for way in ("up", "down"):
        network = await kit.network()
        locks, _ = await _through(kit, network)
        held = await locks.lock(way, ttl=_lease(kit)).acquire(timeout=5)
        await kit.blocking(lambda way=way, network=network: network.black_hole(up=way == "up", down=way == "down"))
        with kit.within(4 * OPERATION + 1.0, "an acquire in a partition"):
            await fails(
                (Unavailable, LockTimeout),
                locks.lock(f"other {way}", ttl=_lease(kit)).acquire(timeout=0.2),
                what="an acquire in a partition",
            )
        # Renewals may still arrive where only replies are lost, so the lock may outlive its holder's belief in it, never
        # the reverse.
        await kit.eventually(lambda held=held: held.lost, within=held.ttl + 1, what="the holder learns")  # type: ignore[misc]  # bound now
        assert held.reason in CUT_OFF, held.reason
        new = await kit.locks().lock(way).acquire(timeout=kit.upper(2 * held.ttl + kit.claims.expiry_lag + 10))
        await kit.blocking(network.heal)
        await kit.eventually(lambda locks=locks: kit.answers(locks), within=10, what="a ping after the partition")  # type: ignore[misc]  # bound now
        await kit.stays(new, "what was under way during the partition freed the next holder's lock")
        await new.release()
        bound = kit.claims.dead_waiter_bound + held.ttl + 5
        await kit.eventually(lambda way=way: kit.free(f"other {way}"), within=bound, what="what timed out is not held")  # type: ignore[misc]  # bound now


@scenario("L102", tier="N", faults=PROXY, seconds=180)
async def a_slow_network(kit: Kit) -> None:
    """With 200 ms each way, with replies in pieces of one byte, and at 64 KiB a second: slower, and all else the same."""
    for slow in ({"latency": 0.2}, {"piece": 1}, {"rate": 65536.0, "piece": 1024}):
        network = await kit.network()
        await kit.blocking(lambda network=network, slow=slow: network.slow(**slow))
        locks = kit.locks(url=network.url, timeout=10)
        held = await locks.lock("a", ttl=max(kit.ttl, 6.0)).acquire(timeout=30)
        assert await kit.outside.lock("a").try_acquire() is None
        tried = await locks.lock("b").try_acquire()
        assert tried is not None
        await tried.release()
        waiting = await kit.queued(kit.locks(url=network.url, timeout=10).lock("a").acquire(timeout=60), "a")
        await kit.sleep(held.ttl / 2)
        held.check()
        released = time.monotonic()
        await held.release()
        got = await waiting
        kit.measure(f"hand-over on a slow network ({', '.join(slow)})", time.monotonic() - released)
        assert got.token > held.token
        await got.release()
        await locks.close()


@scenario("L104", tier="N", faults=PROXY, seconds=120)
async def a_second_fault_while_reconnecting(kit: Kit) -> None:
    """A second fault that strikes while the first is being recovered from, and a third, change nothing in the end."""
    network = await kit.network()
    locks, _ = await _through(kit, network)
    held = await locks.lock("kept", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    busy = await kit.locks().lock("busy", ttl=60).acquire(timeout=5)
    waiting = await kit.queued(locks.lock("busy").acquire(timeout=kit.upper(90)), "busy")
    for _ in range(3):
        await kit.blocking(network.cut)
        await kit.sleep(0.05)
        await kit.blocking(network.heal)
        await kit.sleep(0.02)
        await kit.blocking(network.reset)
    await kit.eventually(lambda: kit.answers(locks), within=10, what="a ping after the faults")
    released = time.monotonic()
    await busy.release()
    if waiting.done() and waiting.exception() is not None:
        assert isinstance(waiting.exception(), Unavailable), f"a waiter ended with {waiting.exception()!r}"
        assert await kit.free("busy")
    else:
        got = await waiting
        bound = kit.claims.wake_bound + kit.claims.dead_waiter_bound + 2 * OPERATION
        assert time.monotonic() - released < kit.upper(bound)
        await got.release()
    held.check()
    await held.renew()
    await held.release()
    if kit.can("holders") and kit.claims.order is WaitOrder.FIFO:
        assert await kit.peek("busy") == []
