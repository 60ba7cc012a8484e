"""Locks: a minimum hold, `lock(at_least=)`. Its name stays taken for that long, whatever becomes of its holder."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import holder
from narrowboat.errors import LeaseLost, Reason, Unavailable

#: How many times longer than its minimum hold a lock's own lease is: that the name is free in time shows that it was shortened.
LONGER = 10


async def _keeps_taken(kit: LockKit) -> None:
    kit.locks().lock("a", at_least=1)


async def _keeps_a_share(kit: LockKit) -> None:
    kit.locks().lock("a", mode="shared", at_least=1)


async def _keeps_a_permit(kit: LockKit) -> None:
    kit.locks().lock("a", limit=2, at_least=1)


class Taken(NamedTuple):
    """A name that stays taken for `least` seconds. It was asked for at `sent`, and granted before `granted`."""

    held: Any
    least: float
    sent: float
    granted: float

    @classmethod
    async def by(cls, kit: LockKit, locks: Any, name: str = "a", **terms: Any) -> Taken:
        """Take `name`."""
        least = kit.ttl
        sent = time.monotonic()
        held = await locks.lock(name, ttl=LONGER * least, at_least=least, **terms).acquire(timeout=5)
        return cls(held, least, sent, time.monotonic())

    async def frees_on_time(self, kit: LockKit, other: Any, what: str) -> Any:
        """What `other`, a lock that excludes it, is granted: neither before the minimum is over, nor long after."""
        got = await other.acquire(timeout=kit.upper(self.least + kit.claims.expiry_lag + 5))
        now = time.monotonic()
        early, late = self.sent + self.least - now, now - self.granted - self.least
        bound = kit.claims.expiry_lag
        kit.measure(f"{what}: from the end of the minimum hold to the next grant", max(0.0, late), bound=bound)
        assert early <= 0, f"{what}: granted to another {early:.3f} s before the minimum hold was over"
        assert late < kit.upper(kit.claims.expiry_lag), f"{what}: granted {late:.3f} s after the minimum hold was over"
        return got


@scenario("L57", tier="T", needs="at_least", refused=_keeps_taken)
async def a_release_leaves_the_name_taken(kit: LockKit) -> None:
    """A released name stays taken until its minimum hold is over, for its holder as well; then who waits has it at once."""
    locks = kit.locks()
    taken = await Taken.by(kit, locks)
    waiting = await kit.waits()
    await taken.held.release()
    await taken.held.release()
    assert not taken.held.lost
    error = await fails(LeaseLost, taken.held.renew())
    assert error.reason is Reason.RELEASED
    await kit.shows("a", taken.held.token)
    assert await locks.lock("a", reentrant=True).try_acquire() is None, "the holder that released it got the name again"
    assert await locks.lock("b", at_least=kit.ttl).try_acquire(), "another name cannot be taken"

    class Waits:
        @staticmethod
        async def acquire(timeout: float) -> Any:
            return await kit.soon(waiting, timeout)

    got = await taken.frees_on_time(kit, Waits, "released while another waits")
    assert got.token > taken.held.token
    await got.release()
    assert await kit.free("a")


@scenario("L57", tier="T", needs="at_least", refused=_keeps_taken)
async def a_minimum_that_is_over_costs_nothing(kit: LockKit) -> None:
    """Who holds a name for longer than its minimum keeps it by its renewals, and its release frees the name at once."""
    held = await kit.taken(ttl=kit.ttl, at_least=1.5 * kit.ttl)
    await kit.stays_held(held, kit.locks().lock("a"), 3 * kit.ttl)
    await held.release()
    assert await kit.free("a"), "a release after the minimum hold left the name taken"


@scenario("L57", tier="T", needs=("at_least", "shared"), refused=_keeps_a_share)
async def a_reader_that_left_keeps_a_writer_out(kit: LockKit) -> None:
    """A reader's minimum hold keeps writers out and lets readers in."""
    taken = await Taken.by(kit, kit.locks(), mode="shared")
    await taken.held.release()
    assert await kit.free("a", mode="shared"), "no reader got in beside one that had left"
    await (await taken.frees_on_time(kit, kit.locks().lock("a"), "a reader")).release()


@scenario("L57", tier="T", needs=("at_least", "semaphore"), refused=_keeps_a_permit)
async def a_permit_that_was_returned_counts(kit: LockKit) -> None:
    """A permit with a minimum hold counts until that is over."""
    other = kit.locks().lock("a", limit=2)
    taken = await Taken.by(kit, kit.locks(), limit=2)
    await taken.held.release()
    second = await other.acquire(timeout=5)
    assert await other.try_acquire() is None, "a permit was given out again before its minimum hold was over"
    await (await taken.frees_on_time(kit, other, "a permit")).release()
    await second.release()


@scenario("L57", tier="T", needs="at_least", refused=_keeps_taken, faults={Fault.REPLY})
async def a_release_of_unknown_outcome_leaves_the_name_taken(kit: LockKit) -> None:
    """A release whose answer is lost, or that never reaches the backend, frees the name neither early nor long after."""
    for lose in ("drop_reply", "drop_request"):
        faults, locks = kit.faulty()
        taken = await Taken.by(kit, locks, lose)
        getattr(faults, lose)("renew", times=2)  # the release and its repetition
        await fails(Unavailable, taken.held.release())
        assert not await kit.free(lose), "a release of unknown outcome freed the name"
        await (await taken.frees_on_time(kit, kit.locks().lock(lose), lose)).release()


@scenario("L130", tier="T", needs="at_least", refused=_keeps_taken)
async def a_close_leaves_the_name_taken(kit: LockKit) -> None:
    """The close of its provider, and a body that fails, leave a name taken until its minimum hold is over."""
    for what in ("close", "error"):
        locks = kit.locks()
        taken = await Taken.by(kit, locks, what)
        if what == "error":
            await fails(ZeroDivisionError, _fails_inside(taken.held))
        await locks.close()
        assert taken.held.lost is (what == "close")
        await (await taken.frees_on_time(kit, kit.locks().lock(what), what)).release()


async def _fails_inside(held: Any) -> None:
    async with held:
        raise ZeroDivisionError


@scenario("L130", needs=("at_least", "evict"), refused=demand)
async def an_eviction_frees_what_was_left(kit: LockKit) -> None:
    """An eviction frees a name at once, before its minimum hold is over."""
    held = await kit.taken(at_least=60)
    await held.release()
    assert not await kit.free("a"), "a release freed a name before its minimum hold was over"
    assert await kit.outside.evict("a", held.token)
    assert await kit.free("a"), "an eviction did not free a name"


@scenario("L130", needs="at_least", refused=_keeps_taken)
async def what_nobody_was_given_is_free(kit: LockKit) -> None:
    """Names that were given back because another of several was busy are free at once."""
    busy = await kit.taken("b")
    assert await kit.locks().all("a", "b", at_least=60).try_acquire() is None
    assert await kit.free("a"), "a name that nobody was given stays taken"
    await busy.release()
    both = await kit.locks().all("a", "b", at_least=60).acquire(timeout=5)
    await both.release()
    assert not await kit.free("a") and not await kit.free("b"), "several locks have no minimum hold"


@scenario("L131", tier="P", needs=("at_least", "scope=host"), refused=demand, faults={Fault.PROCESS}, seconds=120)
async def the_end_of_a_process_leaves_the_name_taken(kit: LockKit) -> None:
    """The name of a process that is killed, or releases and exits, stays taken until its minimum is over, and no longer."""
    for end in ("kill", "release"):
        least = 4 * kit.ttl  # a process that is killed right after its grant: the lease is as long as that
        child, told = await kit.started(holder, name=end, ttl=kit.ttl, end=end, at_least=least)
        if end == "kill":
            child.kill()
        else:
            child.tell("go")
            await child.exit()
        taken = Taken(None, least, told["sent"], told["granted"])
        got = await taken.frees_on_time(kit, kit.locks().lock(end), end)
        assert got.token > told["token"]
        await got.release()
