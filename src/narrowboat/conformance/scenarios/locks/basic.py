"""Locks: take, hold, let go."""

from __future__ import annotations

import asyncio
import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.lock_kit import BROKEN, LockKit, evicts
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import looker
from narrowboat.errors import AlreadyHeld, InvalidArgument, LeaseLost, LockTimeout


@scenario("L01", seconds=20)
async def takes_and_frees(kit: LockKit) -> None:
    """A free lock is granted, others see that it is held, and a release makes it free."""
    held = await kit.taken()
    assert (held.name, held.lost, held.reason) == ("a", False, None)
    held.check()
    assert not await kit.free("a")
    await kit.shows("a", held.token)
    await held.release()
    assert await kit.free("a")
    await kit.shows("a")


@scenario("L02")
async def a_try_of_a_held_lock_gives_none_at_once(kit: LockKit) -> None:
    """A try of a held lock gives None at once, without an error, and does not disturb the holder."""
    held = await kit.taken()
    other = kit.locks().lock("a")
    await kit.outside.ping()
    with kit.within(1.0, "a try of a held lock"):
        assert await other.try_acquire() is None
    await kit.lets_go(held)
    again = await other.try_acquire()
    assert again is not None, "the lock is free, and a try did not take it"
    await again.release()


@scenario("L03", "L78")
async def the_same_caller_nests_or_is_refused(kit: LockKit) -> None:
    """A thread or task that acquires a name twice is refused at once, or, if it asks for that, nests under the same token."""
    locks = kit.locks()
    plain = locks.lock("plain")
    held = await plain.acquire(timeout=5)
    with kit.within(2.0, "the caller waited for itself"):
        for again in (plain, locks.lock("plain")):
            error = await fails(AlreadyHeld, again.acquire(timeout=30), what="a second acquire by the same thread or task")
            assert error.name == "plain"
            assert await again.try_acquire() is None
    await kit.lets_go(held)

    nesting = locks.lock("nested", reentrant=True)
    outer = await nesting.acquire(timeout=5)
    calls = kit.seen.calls["attempt"]
    inner = await nesting.acquire(timeout=5)
    assert inner.token == outer.token
    assert kit.seen.calls["attempt"] == calls, "the nested acquire cost a round trip"
    token = outer.token
    await inner.renew()
    assert (inner.token, outer.token) == (token, token), "a renewal gave another token"
    await inner.release()
    outer.check()
    assert not await kit.free("nested"), "the inner release freed the lock"
    await outer.release()
    assert await kit.free("nested"), "the outermost release did not free the lock"


@scenario("L04")
async def names_are_independent(kit: LockKit) -> None:
    """Locks of different names do not touch each other, on one connection or two."""
    locks = kit.locks()
    one = await locks.lock("one").acquire(timeout=5)
    two = await locks.lock("two").acquire(timeout=5)
    three = await kit.taken("three")
    await two.release()
    assert await kit.free("two")
    for held in (one, three):
        held.check()
        assert not await kit.free(held.name)
        await held.release()


@scenario("L05")
async def ten_cycles_exclude_others(kit: LockKit) -> None:
    """In ten cycles back to back, the lock excludes others each time, and is free afterwards."""
    lock = kit.locks().lock("a", timeout=5)
    for _ in range(10):
        await kit.keeps(await lock.acquire())


class _BodyError(Exception):
    pass


@scenario("L06")
async def a_with_block_releases_however_it_ends(kit: LockKit) -> None:
    """A `with` releases on its normal end, on cancellation, and on an error, which it passes on; so does a decorator."""
    lock = kit.locks().lock("a", timeout=5)
    async with lock as held:
        assert not await kit.free("a")
        held.check()
    assert await kit.free("a"), "the lock is held after a normal end"

    mine = _BodyError("mine")
    with raises(_BodyError) as caught:
        async with lock:
            raise mine
    assert caught.error is mine
    assert await kit.free("a"), "the lock is held after an error of the body"

    inside = asyncio.Event()

    async def body() -> None:
        async with lock:
            inside.set()
            await asyncio.Event().wait()

    task = kit.spawn(body())
    await inside.wait()
    assert not await kit.free("a")
    await kit.cancel(task)
    assert task.cancelled(), "the `with` swallowed the cancellation"
    await kit.until_free("a", what="the body was cancelled")

    @lock
    async def decorated(number: int) -> tuple[int, bool]:
        return number, await kit.free("a")

    assert await decorated(7) == (7, False)
    assert await kit.free("a"), "the lock is held after a decorated function"


@scenario("L07")
async def a_with_block_that_fails_to_acquire_runs_no_body(kit: LockKit) -> None:
    """A `with` whose acquire fails raises and never runs its body."""
    held = await kit.taken()
    ran = False
    with raises(LockTimeout) as caught:
        async with kit.locks().lock("a", timeout=0.05):
            ran = True
    assert caught.error.name == "a"
    assert not ran
    await kit.lets_go(held)


@scenario("L08", "L09")
async def a_second_release_does_nothing(kit: LockKit) -> None:
    """A second release does nothing, inside a `with` as well, and never frees the lock of the next holder."""
    lock = kit.locks().lock("a", timeout=5)
    async with lock as held:
        await held.release()
        assert await kit.free("a")
    assert await kit.free("a")

    first = await lock.acquire()
    await first.release()
    second = await kit.taken()
    await first.release()
    second.check()
    assert not await kit.free("a"), "a second release freed the next holder's lock"
    assert not first.lost, "a release in time is no loss"
    await second.release()


@scenario("L10", "L12", tier="T")
async def only_the_holder_can_release(kit: LockKit) -> None:
    """A holder that was superseded frees nothing: its release says lost, and the new holder keeps the lock."""
    stale = await kit.taken(ttl=kit.ttl, renew=False)
    new = await kit.taken(ttl=30, timeout=kit.upper(kit.ttl + 10))
    assert new.token != stale.token
    error = await fails(LeaseLost, stale.release(), what="the release of a holder that was superseded")
    assert (error.name, error.token) == ("a", stale.token)
    await kit.keeps(new, "the stale release freed the new holder's lock")


@scenario("L11", needs="evict", refused=evicts)
async def what_is_not_held_cannot_be_broken(kit: LockKit) -> None:
    """The eviction of a name that nobody ever held, or of a token whose holder has left, is False and touches nobody."""
    locks = kit.locks()
    assert await locks.evict("never", 1) is False
    first = await locks.lock("a").acquire(timeout=5)
    await first.release()
    second = await locks.lock("a").acquire(timeout=5)
    assert await locks.evict("a", first.token) is False
    await kit.keeps(second)


@scenario("L13")
async def a_possession_tells_what_it_is(kit: LockKit) -> None:
    """A possession tells its name, its token, its effective lease, its beginning and the rest of its lease."""
    ttl = max(kit.claims.ttl_min, 7.5)
    before = time.time()
    held = await kit.taken("the name", ttl=ttl, label="me")
    assert held.name == "the name"
    assert isinstance(held.token, int)
    kit.check_ttl(held.ttl, ttl)
    assert before - 1 <= held.acquired_at <= time.time() + 1
    assert 0 < held.expires_in <= ttl
    assert "the name" in repr(held)
    if kit.can("holders"):
        holder = await kit.holder("the name")
        assert (holder.name, holder.token, holder.label) == ("the name", held.token, "me")
        assert abs(holder.acquired_at - held.acquired_at) < 5
        assert holder.expires_in is None or 0 < holder.expires_in <= ttl
    await held.release()
    assert held.expires_in == 0


@scenario("L14")
async def owners_are_made_and_labels_are_given(kit: LockKit) -> None:
    """Each acquire has an owner id of its own, which no caller can choose; the caller's label is checked and shown."""
    owners: list[str] = []
    faults = Faults()
    faults.call("attempt", lambda requests: owners.extend(request.owner for request in requests), times=1000)
    locks = kit.locks(faults=faults)
    lock = locks.lock("a", label="the same label")
    for _ in range(50):
        await (await lock.acquire(timeout=5)).release()
    assert len(owners) >= 50
    assert len(set(owners)) == len(owners), "two acquires had one owner id"
    with raises(TypeError, what="a caller could choose the owner id"):
        locks.lock("a", owner="mine")  # type: ignore[call-arg]  # that there is no such argument is the point

    held = await lock.acquire(timeout=5)
    assert await kit.locks().lock("a", label="the same label").try_acquire() is None, "two users of one label both held"
    if kit.can("holders"):
        assert [holder.label for holder in await kit.peek("a")] == ["the same label"]
    await held.release()
    for label in ("", "tab\there", 7):
        with raises(InvalidArgument, what=f"label={label!r} was accepted"):
            locks.lock("a", label=label)  # type: ignore[arg-type]  # wrong on purpose


async def _asks_holders(kit: LockKit) -> None:
    await kit.locks().holders("a")


@scenario("L15", needs="holders", refused=_asks_holders)
async def others_see_who_holds(kit: LockKit) -> None:
    """Another client sees that a name is held, with the holder's token and label, and that it is free afterwards."""
    assert await kit.outside.holders("a") == []
    async with kit.lock(label="worker 7") as held:
        seen = await kit.holder("a")
        assert (seen.name, seen.token, seen.label) == ("a", held.token, "worker 7")
        assert [holder.name for holder in await kit.outside.holders()] == ["a"]
    assert await kit.outside.holders("a") == []
    assert await kit.outside.holders() == []


@scenario("L16", needs="evict", refused=evicts)
async def a_holder_can_be_evicted(kit: LockKit) -> None:
    """The eviction of a holder frees the lock for others; the old holder's release says lost, and frees nothing."""
    old = await kit.taken(ttl=max(kit.ttl, 2.0), label="old")
    breaker = kit.locks()
    assert await breaker.evict("a", old.token + 1_000_000) is False
    assert not await kit.free("a"), "an eviction by a wrong token freed the lock"
    assert await breaker.evict("a", old.token) is True
    new = await breaker.lock("a", ttl=30).acquire(timeout=5)
    error = await fails(LeaseLost, old.release(), what="the release of an evicted holder")
    assert error.reason in BROKEN, error.reason
    assert old.lost
    await kit.keeps(new, "the evicted holder's release freed the new holder's lock")


@scenario("L17")
async def both_faces_meet_on_one_name(kit: LockKit) -> None:
    """Sync and asyncio users of one name exclude each other and hand over to each other."""
    sync, aio = kit.locks(face="sync"), kit.locks(face="asyncio")
    for holder, waiter in ((sync, aio), (aio, sync), (sync, aio)):
        held = await holder.lock("a").acquire(timeout=5)
        assert await waiter.lock("a").try_acquire() is None
        waiting = await kit.queued(waiter.lock("a").acquire(timeout=10), "a")
        await held.release()
        other = await waiting
        assert other.token > held.token
        assert await holder.lock("a").try_acquire() is None
        await other.release()


@scenario("L18", faults={Fault.COUNT})
async def nothing_is_left_after_release(kit: LockKit) -> None:
    """After releases, timeouts, tries and nested locks the backend keeps nothing for the names that were used."""
    locks = kit.locks()
    names = [f"n{number}" for number in range(20)]
    for name in names:
        async with locks.lock(name, timeout=5):
            assert await kit.outside.lock(name).try_acquire() is None
            if kit.can("holders"):
                seen = await kit.holder(name)
                assert not seen.waiters, "a try left a waiter in the queue"
    async with locks.lock("n0", timeout=5):
        await fails(LockTimeout, kit.outside.lock("n0").acquire(timeout=0.05))
        assert await kit.blocking(kit.harness.residue, kit.namespace), "the harness counts nothing even while a lock is held"

    async def nothing() -> bool:
        return await kit.blocking(kit.harness.residue, kit.namespace) == 0

    await kit.eventually(nothing, what="the backend keeps nothing of the names", every=0.05)


@scenario("L15", tier="P", needs="scope=host", refused=demand)
async def another_process_sees_who_holds(kit: LockKit) -> None:
    """Another process sees that a name is held, cannot take it, and can after the release."""
    async with kit.lock(label="parent") as held:
        child, seen = await kit.started(looker, "seen", name="a")
        assert seen["taken"] is False
        if kit.can("holders"):
            assert seen["holders"] == [["a", held.token, "parent"]]
    child.tell("look")
    seen = await child.event("seen")
    assert seen["taken"] is True
    assert seen["holders"] == []
    assert await child.exit() == 0
