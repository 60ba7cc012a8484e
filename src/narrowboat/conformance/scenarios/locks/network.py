"""Locks: what a network does to a connection, brought about by a proxy in front of the server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from narrowboat.capabilities import Support, WaitOrder
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.lock_kit import CUT_OFF, LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import LeaseLost, LockTimeout, Reason, Unavailable

PROXY = {Fault.PROXY}


class _Path:
    """Locks that reach their server through a network, which can lose what one call sends or is answered."""

    def __init__(self, kit: LockKit, network: Network) -> None:
        self.network = network
        self._plan = Faults()
        self.locks: Any = kit.locks(url=network.url, timeout=kit.operation, faults=self._plan)
        self.losses: tuple[Callable[..., None], ...] = (network.drop_request, network.drop_reply)

    @contextlib.contextmanager
    def losing(self, operation: str, loss: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        """Let the next call of `operation` meet a `loss`, which must come to be in the block. Gives whether it has."""
        before = self.network.dropped

        def lost() -> bool:
            return self.network.dropped > before

        self._plan.call(operation, lambda items: loss())
        yield lost
        assert lost(), f"no {operation} lost anything on the wire: the scenario tests nothing"


async def _path(kit: LockKit) -> _Path:
    """A path through a network of its own, with its first connection made."""
    path = _Path(kit, await kit.network())
    await path.locks.ping()
    return path


def _lease(kit: LockKit) -> float:
    """Long enough for a renewal to fail once and be made again."""
    return max(kit.ttl, 4 * kit.operation)


@scenario("L32", tier="N", faults=PROXY, seconds=120)
async def a_lost_notification_delays_by_a_bound(kit: LockKit) -> None:
    """A waiter whose connection was cut before, during or after the release gets the lock within a bound."""
    path = await _path(kit)
    bound = kit.claims.wake_bound + kit.claims.expiry_lag + kit.claims.dead_waiter_bound + 4 * kit.operation
    for cut in ("before", "while", "after"):
        held = await kit.taken(ttl=60)
        waiting = await kit.queued(path.locks.lock("a").acquire(timeout=kit.upper(bound + 30)), "a")
        if cut == "before":
            await kit.blocking(path.network.reset)
        elif cut == "while":
            await kit.blocking(path.network.cut)
        what = f"wake-up of a waiter whose connection was cut {cut} the release"
        with kit.within(bound, what, measure=what):
            await held.release()
            if cut == "while":
                await kit.blocking(path.network.heal)
            elif cut == "after":
                await kit.blocking(path.network.reset)
            got = await waiting
        await got.release()


@scenario("L32", tier="N", faults=PROXY, seconds=120)
async def a_waiter_that_is_connected_again_is_told_again(kit: LockKit) -> None:
    """After its connection was cut and made again, a waiter looks no more often than before: it is told, and does not poll."""
    path = await _path(kit)
    held = await kit.taken(ttl=max(120.0, kit.ttl))
    waiting = await kit.queued(path.locks.lock("a").acquire(timeout=kit.upper(100)), "a")

    async def looks() -> int:
        before = kit.seen.members["attempt"]
        await kit.sleep(4.0)
        return kit.seen.members["attempt"] - before

    await kit.sleep(1.0)  # what it takes to begin
    usual = await looks()
    await kit.blocking(path.network.cut)
    await kit.sleep(0.3)
    await kit.blocking(path.network.heal)

    async def calm() -> bool:
        return await looks() <= usual + 2

    await kit.eventually(calm, within=25, what=f"a waiter that made {usual} attempts in 4 s makes no more than that")
    with kit.within(kit.claims.wake_bound + kit.claims.expiry_lag + 2 * kit.operation, "the wake-up after it was connected"):
        await held.release()
        got = await waiting
    await got.release()


@scenario("L70", tier="N", faults=PROXY, seconds=120)
async def a_holder_cut_off_knows_in_time(kit: LockKit) -> None:
    """A holder that cannot reach its server knows of its loss before the server can give the lock to another."""
    for fault in ("cut", "black_hole"):
        path = await _path(kit)
        held = await path.locks.lock(fault, ttl=_lease(kit)).acquire(timeout=5)
        await kit.eventually(lambda: kit.seen.members["renew"] > 0, within=held.ttl, what="a renewal")
        async with kit.loses(held, CUT_OFF, 2, f"network {fault} to the notice of loss"):
            await kit.blocking(getattr(path.network, fault))
            new = await kit.taken(fault, ttl=60, timeout=kit.upper(held.ttl * 2 + kit.claims.expiry_lag + 10))
            assert held.lost, f"{fault}: another was granted the lock, and its first holder takes it for its own"
        await kit.blocking(path.network.heal)
        await fails(LeaseLost, held.release())
        await kit.keeps(new, "the holder that was cut off freed the next one's lock")


@scenario("L90", tier="N", faults=PROXY, seconds=120)
async def a_black_hole_is_bounded(kit: LockKit) -> None:
    """While the network is a black hole every call ends in time, and all goes well afterwards."""
    path = await _path(kit)
    locks = path.locks
    held = await locks.lock("held", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    lone = await locks.lock("lone", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    await kit.blocking(path.network.black_hole)
    calls = {
        "ping": locks.ping,
        "acquire": lambda: locks.lock("free").acquire(timeout=0.2),
        "try": lambda: locks.lock("free").try_acquire(),
        "renew": held.renew,
        "release": lone.release,
    }
    await kit.all_end(kit.operation, "in a black hole", calls)
    await kit.blocking(path.network.heal)
    await kit.eventually(lambda: kit.answers(locks), within=5 * kit.operation, what="a ping after the network has healed")
    if held.ttl < 30 and held.lost:  # a session that cannot be longer has ended meanwhile, and its holder knows
        assert held.reason is Reason.EXPIRED, held.reason
    else:
        await kit.lets_go(held)
    await kit.until_free("held", within=kit.claims.expiry_lag + 5, what="it was released, or its session has ended")
    await kit.until_free("free", within=kit.claims.dead_waiter_bound + 5, what="the acquire had timed out")


@scenario("L91", "L94", tier="N", faults=PROXY, seconds=120)
async def an_acquire_whose_connection_breaks(kit: LockKit) -> None:
    """An acquire whose request or reply is lost on the wire is repeated, granted once, and never waits for itself."""
    path = await _path(kit)
    for turn, loss in enumerate((*path.losses, lambda: path.network.drop_reply(keep=3))):
        name = f"a{turn}"
        with kit.within(3 * kit.operation + 1.0, "the acquire waited for its own grant"), path.losing("attempt", loss):
            held = await path.locks.lock(name, ttl=max(10.0, kit.ttl)).acquire(timeout=kit.upper(10))
        await kit.keeps(held)


def _in_a_row(loss: Callable[[], None], times: int) -> None:
    """Let so many exchanges in a row meet the `loss`: the next connection may meet it as well."""
    for _ in range(times):
        loss()


@scenario("L91", "L94", tier="N", faults=PROXY, seconds=120)
async def a_try_whose_connection_breaks_leaves_nothing(kit: LockKit) -> None:
    """A try whose requests or replies are lost on the wire ends as granted, busy or unavailable, and leaves nothing."""
    path = await _path(kit)
    for turn, loss in enumerate(path.losses):
        for times in (1, 3):
            name = f"a{turn}{times}"
            held = None
            with path.losing("attempt", functools.partial(_in_a_row, loss, times)):
                try:
                    held = await path.locks.lock(name, ttl=60).try_acquire()
                except Unavailable:
                    pass
            await kit.blocking(path.network.heal)
            if held is not None:
                held.check()
                assert not await kit.free(name)
                await held.release()
            await kit.until_free(name, within=10, what="the try was released, or had failed")


@scenario("L92", "L96", tier="N", faults=PROXY, seconds=120)
async def a_release_whose_connection_breaks(kit: LockKit) -> None:
    """A release whose request or reply is lost on the wire is repeated: it succeeds, and the lock is free at once."""
    path = await _path(kit)
    for turn, loss in enumerate(path.losses):
        held = await path.locks.lock(f"a{turn}", ttl=60).acquire(timeout=5)
        with path.losing("release", loss):
            await held.release()
        assert not held.lost
        assert await kit.free(held.name), "the release succeeded, and the lock is not free"


@scenario("L96", tier="N", faults=PROXY, seconds=120)
async def a_withdraw_whose_connection_breaks(kit: LockKit) -> None:
    """A waiter that gives up while the connection breaks leaves no place in the queue and no grant behind."""
    path = await _path(kit)
    # Who waits behind a shared holder leaves a trace on each backend, or it would starve. Elsewhere it may leave none.
    mode = "exclusive" if kit.claims.shared is Support.ABSENT else "shared"
    for turn, loss in enumerate(path.losses):
        held = await kit.taken(f"a{turn}", ttl=60, mode=mode)
        with path.losing("withdraw", loss):
            await fails((LockTimeout, Unavailable), path.locks.lock(held.name, ttl=60).acquire(timeout=0.2))
            await held.release()
            bound = kit.claims.dead_waiter_bound + 2 * kit.operation
            await kit.until_free(held.name, within=bound, what="its waiter had given up")


@scenario("L93", tier="N", faults=PROXY, seconds=120)
async def a_renewal_whose_connection_breaks(kit: LockKit) -> None:
    """Renewals whose requests or replies are lost on the wire are repeated in time, and the lock is kept."""
    path = await _path(kit)
    held = await path.locks.lock("a", ttl=_lease(kit)).acquire(timeout=5)
    for loss in path.losses:
        with path.losing("renew", loss) as lost:
            await kit.eventually(lost, within=held.ttl, what="a renewal lost on the wire")
        begun = time.monotonic()
        while time.monotonic() - begun < held.ttl * 0.8:
            held.check()
            await kit.sleep(0.02)
        assert not await kit.free("a")
    await held.release()


@scenario("L97", tier="N", faults=PROXY, seconds=120)
async def broken_connections_poison_nothing(kit: LockKit) -> None:
    """After each of twenty resets, during work and between work, the next calls work on a new connection."""
    path = await _path(kit)
    locks, network = path.locks, path.network
    opened = network.accepted
    held = await locks.lock("kept", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    for turn in range(20):
        await kit.blocking(network.reset)
        if turn % 2:
            await asyncio.sleep(0.02)
        async with locks.lock(f"a{turn}", ttl=max(10.0, kit.ttl), timeout=kit.upper(10)):
            assert not await kit.free(f"a{turn}")
        assert await kit.free(f"a{turn}")
        held.check()
    await kit.lets_go(held)
    kit.measure("connections opened for each reset", (network.accepted - opened) / 20, "connections")
    assert network.connections < 10, f"{network.connections} connections are open"


@scenario("L101", tier="N", faults=PROXY, seconds=120)
async def a_one_way_partition(kit: LockKit) -> None:
    """When only requests, or only replies, are lost, calls are bounded, the holder learns in time, and nobody holds twice."""
    for way in ("up", "down"):
        path = await _path(kit)
        held = await path.locks.lock(way, ttl=_lease(kit)).acquire(timeout=5)
        # Where only replies are lost, renewals still arrive: the lock may outlive its holder's belief in it. Never the reverse.
        async with kit.loses(held, CUT_OFF, held.ttl + 1, f"one-way partition ({way}) to the notice of loss"):
            await kit.blocking(functools.partial(path.network.black_hole, up=way == "up", down=way == "down"))
            with kit.within(4 * kit.operation + 1.0, "an acquire in a partition"):
                acquiring = path.locks.lock(f"other {way}", ttl=_lease(kit)).acquire(timeout=0.2)
                await fails((Unavailable, LockTimeout), acquiring, what="an acquire in a partition")
        new = await kit.taken(way, timeout=kit.upper(2 * held.ttl + kit.claims.expiry_lag + 10))
        await kit.blocking(path.network.heal)
        await kit.eventually(functools.partial(kit.answers, path.locks), within=10, what="a ping after the partition")
        await kit.keeps(new, "a call that was under way during the partition freed the next holder's lock")
        bound = kit.claims.dead_waiter_bound + held.ttl + 5
        await kit.until_free(f"other {way}", within=bound, what="the acquire had timed out")


@scenario("L102", tier="N", faults=PROXY, seconds=180)
async def a_slow_network(kit: LockKit) -> None:
    """Locks work as ever, and slower, with 200 ms each way, with replies in single bytes, and at 64 KiB a second."""
    for slow in ({"latency": 0.2}, {"piece": 1}, {"rate": 65536.0, "piece": 1024}):
        network = await kit.network()
        await kit.blocking(functools.partial(network.slow, **slow))
        locks = kit.locks(url=network.url, timeout=10)
        held = await locks.lock("a", ttl=max(kit.ttl, 6.0)).acquire(timeout=30)
        assert await kit.outside.lock("a").try_acquire() is None
        tried = await locks.lock("b").try_acquire()
        assert tried is not None
        await tried.release()
        others = kit.locks(url=network.url, timeout=10)
        await others.ping()  # how long a connection takes on such a network is not what is waited for below
        waiting = await kit.queued(others.lock("a").acquire(timeout=60), "a")
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
async def a_second_fault_while_reconnecting(kit: LockKit) -> None:
    """A second and a third fault during the recovery from the first change nothing in the end."""
    path = await _path(kit)
    locks, network = path.locks, path.network
    held = await locks.lock("kept", ttl=max(30.0, kit.ttl)).acquire(timeout=5)
    busy = await kit.taken("busy", ttl=60)
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
        bound = kit.claims.wake_bound + kit.claims.dead_waiter_bound + 2 * kit.operation
        assert time.monotonic() - released < kit.upper(bound)
        await got.release()
    await kit.lets_go(held)
    if kit.can("holders") and kit.claims.order is WaitOrder.FIFO:
        assert await kit.peek("busy") == []
