"""Locks: leases and renewal."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.lock_kit import RAN_OUT, Lease, LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument, LeaseLost, Reason, Unavailable, Unsupported
from narrowboat.layers.through import ThroughLocks


@scenario("L48", "L49", tier="T")
async def a_lease_ends_neither_early_nor_late(kit: LockKit) -> None:
    """A lease that nobody renews excludes others for its whole length, and frees the lock within the declared lag."""
    other = kit.locks().lock("a", ttl=30)
    await (await other.acquire(timeout=5)).release()
    lease = await kit.abandoned()
    within = lease.held.ttl + kit.claims.expiry_lag + 5
    got = await kit.eventually(other.try_acquire, within=within, what="the lease ends")
    kit.measure("time from the end of a lease to its taking", kit.ended_on_time(lease), bound=kit.claims.expiry_lag)
    kit.is_lost(lease.held, RAN_OUT)
    await got.release()


@scenario("L48", "L60", tier="T")
async def who_has_ended_is_not_shown(kit: LockKit) -> None:
    """A holder whose lease has ended is shown no more, taken by another or not; who is shown has time left."""
    lease = await kit.abandoned()
    await kit.shows("a", lease.held.token)
    if not kit.can("holders"):
        return

    async def nobody() -> bool:
        seen = await kit.peek("a")
        assert all(each.expires_in is None or each.expires_in > 0 for each in seen), f"shown with no time left: {seen}"
        return not seen

    within = lease.held.ttl + kit.claims.expiry_lag + 5
    await kit.eventually(nobody, within=within, every=0.02, what="a holder whose lease has ended is shown no more")
    assert time.monotonic() - lease.sent >= kit.excludes(lease.held.ttl), "a holder was shown no more before its lease ended"
    assert await kit.free("a")


@scenario("L50", tier="T", alone=True, seconds=90)  # its work keeps the interpreter from everything else in the process
async def renewal_goes_on_under_load(kit: LockKit) -> None:
    """A busy program keeps its lease for more than three times the lease's length, and nobody else gets in."""
    held = await kit.taken(ttl=kit.ttl)
    other = kit.locks().lock("a")
    begun = time.monotonic()
    while time.monotonic() - begun < 3.5 * held.ttl:
        await kit.stands_still(_work, 0.7 * held.ttl)
        held.check()
        assert await other.try_acquire() is None, "another got in while the lease was being renewed"
    assert kit.seen.members["renew"] >= 3
    await held.release()
    assert await kit.free("a")


def _work(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(2000))


@scenario("L51", "L81", tier="T")
async def renewal_ends_with_the_possession(kit: LockKit) -> None:
    """Renewal ends with a release, with a possession that the program forgets, and with the close of the provider."""
    locks = kit.locks()
    held = await locks.lock("a", ttl=kit.ttl).acquire(timeout=5)
    await kit.eventually(lambda: kit.seen.members["renew"] >= 1, within=kit.ttl * 2, what="the first renewal")
    await held.release()
    await _no_renewal(kit, "after a release")

    await locks.lock("b", ttl=kit.ttl).acquire(timeout=5)  # and the program forgets the possession
    begun = time.monotonic()

    async def collected_and_free() -> bool:
        gc.collect()
        return await kit.free("b")

    bound = kit.ttl + kit.claims.expiry_lag + 1
    await kit.eventually(collected_and_free, within=bound, every=0.05, what="a lock whose possession was forgotten is free")
    kit.measure("time until a forgotten lock is free", time.monotonic() - begun)
    await _no_renewal(kit, "after the possession was forgotten")

    last = kit.locks()
    held = await last.lock("c", ttl=kit.ttl).acquire(timeout=5)
    await last.close()
    await _no_renewal(kit, "after the provider was closed")


async def _no_renewal(kit: LockKit, when: str) -> None:
    before = kit.seen.members["renew"]
    await kit.sleep(kit.ttl)
    assert kit.seen.members["renew"] == before, f"the lease was still renewed {when}"


@scenario("L52", "L60", tier="T")
async def a_renewal_starts_a_whole_lease(kit: LockKit) -> None:
    """A renewal by hand starts a whole new lease: the lock outlives the first one, and `expires_in` tells the truth."""
    held = await kit.taken(ttl=kit.ttl, renew=False)
    ttl, token = held.ttl, held.token
    other = kit.locks().lock("a")
    assert ttl * 0.5 < held.expires_in <= ttl
    await kit.sleep(ttl * 0.6)
    assert held.expires_in <= ttl * 0.4, "`expires_in` does not fall with time"
    sent = time.monotonic()
    await held.renew()
    assert ttl * 0.5 < held.expires_in <= ttl, f"after a renewal {held.expires_in:.3f} s of {ttl:g} s are left"
    past_the_first_lease = ttl * 0.7
    await kit.stays_held(held, other, past_the_first_lease, "the end of the first lease freed a lock that was renewed")
    held.check()
    assert held.token == token
    got = await other.acquire(timeout=kit.upper(ttl + 10))
    assert time.monotonic() - sent >= kit.excludes(ttl), "the renewed lease ended early"
    assert held.expires_in == 0
    await got.release()


@scenario("L52", tier="T")
async def renewals_do_not_add_up(kit: LockKit) -> None:
    """However often a lease was renewed, it ends one length after the last renewal: a crash then blocks for no longer."""
    held = await kit.taken(ttl=kit.ttl, renew=False)
    other = kit.locks().lock("a")
    for _ in range(20):
        sent = time.monotonic()
        await held.renew()
    last = Lease(held, sent, time.monotonic())
    assert await other.try_acquire() is None
    within = held.ttl + kit.claims.expiry_lag + 5
    got = await kit.eventually(other.try_acquire, within=within, what="the lease ends after the last of twenty renewals")
    kit.ended_on_time(last, ", after twenty renewals")
    await got.release()


@scenario("L53", "L56", "L60")
async def a_released_possession_cannot_be_used(kit: LockKit) -> None:
    """After a release, renewing or checking the possession raises LeaseLost, and nothing is held again."""
    held = await kit.taken()
    await kit.lets_go(held)
    error = await fails(LeaseLost, held.renew())
    assert (error.name, error.token, error.reason) == ("a", held.token, Reason.RELEASED)
    with raises(LeaseLost):
        held.check()
    assert held.expires_in == 0
    assert not held.lost
    assert await kit.free("a"), "a renewal after the release took the lock again"


@scenario("L54", tier="T", faults={Fault.REPLY})
async def an_expired_lease_is_not_revived(kit: LockKit) -> None:
    """The backend refuses a renewal that arrives after the lease's end, and revives nothing, be the lock taken or free."""
    held = await kit.taken("early", ttl=kit.ttl, renew=False)
    await kit.eventually(lambda: held.lost, within=kit.ttl + 2, what="the lease's end")
    error = await fails(LeaseLost, held.renew())
    assert error.reason in RAN_OUT
    await kit.until_free("early", within=kit.claims.expiry_lag, what="its lease has ended")

    faults = Faults()
    answers: list[object] = []

    def noted(operation: str, items: Any, call: Callable[[], Any]) -> Any:
        answer = call()
        if operation == "renew":
            answers.extend(answer)
        return answer

    locks = kit.locks(wrap=lambda driver: faults.wrap(ThroughLocks(driver, noted)))
    for is_taken in (False, True):
        late = await locks.lock("late", ttl=kit.ttl, renew=False).acquire(timeout=5)
        async with kit.held_up(faults, "renew", late.renew(), before=True) as renewing:
            await kit.sleep(kit.ttl + kit.claims.expiry_lag)
            other = await kit.taken("late") if is_taken else None
            answers.clear()
        await fails(LeaseLost, renewing, what="a renewal after the end of the lease")
        assert len(answers) == 1
        assert isinstance(answers[0], LeaseLost), f"the backend revived an expired lease: it answered {answers[0]}"
        if other is not None:
            await kit.lets_go(other)
        assert await kit.free("late")


@scenario("L10", "L12", "L55", tier="T", faults={Fault.REPLY})
async def a_late_release_or_renewal_does_not_touch_the_next_holder(kit: LockKit) -> None:
    """A release or renewal that arrives while another holds the lock neither frees, shortens nor extends the other's lease."""
    for operation in ("renew", "release"):
        faults, locks = kit.faulty()
        late = await locks.lock(operation, ttl=kit.ttl, renew=False).acquire(timeout=5)
        async with kit.held_up(faults, operation, getattr(late, operation)(), before=True) as calling:
            new = await kit.taken(operation, ttl=20, renew=False, timeout=kit.upper(kit.ttl + 10))
            assert new.token > late.token
            left = (await kit.holder(operation)).expires_in if kit.can("holders") else None
        await fails(LeaseLost, calling, what=f"a {operation} by the holder before")
        assert not await kit.free(operation), f"a late {operation} freed the next holder's lock"
        if left is not None:
            after = (await kit.holder(operation)).expires_in
            assert after is not None
            assert left - 5 * max(1.0, kit.upper(1)) < after <= left, f"a late {operation} changed the next holder's lease"
        await kit.lets_go(new)


@scenario("L58", tier="T")
async def fractions_of_a_second_count(kit: LockKit) -> None:
    """The backend keeps leases with fractions of a second as they are: it neither cuts nor rounds them to whole seconds."""
    for ttl in (1.7, 0.35):
        wanted = ttl if ttl >= kit.claims.ttl_min else kit.claims.ttl_min + ttl
        lease = await kit.abandoned(f"for {ttl}", timedelta(seconds=wanted))
        kit.check_ttl(lease.held.ttl, wanted)
        async with kit.lock(f"for {ttl}", timeout=kit.upper(wanted + 20)):
            kit.ended_on_time(lease, f" of {wanted:g} s")


@scenario("L59", "L25")
async def a_lease_that_cannot_be_kept_is_refused(kit: LockKit) -> None:
    """A lease outside the backend's range is refused with that range before any I/O; the smallest and the largest work."""
    locks = kit.locks()
    for ttl in (kit.claims.ttl_min * 0.9, kit.claims.ttl_max * 1.1):
        with raises(InvalidArgument, Unsupported) as caught:  # the latter where a session is the lease
            locks.lock("a", ttl=ttl)
        assert f"{kit.claims.ttl_min:g}" in str(caught.error), f"the error does not name the range: {caught.error}"
    assert not kit.seen.calls
    async with locks.lock("a", ttl=kit.claims.ttl_max, timeout=5) as held:
        kit.check_ttl(held.ttl, kit.claims.ttl_max)
    for _ in range(20):  # a loaded machine may be slower than the smallest lease: it must be told, and is tried again
        try:
            async with locks.lock("a", ttl=kit.claims.ttl_min, timeout=5) as held:
                kit.check_ttl(held.ttl, kit.claims.ttl_min)
            break
        except LeaseLost:
            continue
    else:
        raise AssertionError("the smallest lease was lost at once, twenty times")


@scenario("L60")
async def a_heartbeat_of_what_is_not_held_says_so(kit: LockKit) -> None:
    """The rest of a lease never grows by itself, and a heartbeat of a lock that was evicted or released says lost."""
    held = await kit.taken(renew=False)
    first = held.expires_in
    await kit.sleep(0.05)
    second = held.expires_in
    assert 0 < second <= first - 0.05 <= 30 - 0.05
    await held.release()
    await fails(LeaseLost, held.renew())
    if kit.can("evict"):
        held = await kit.taken(renew=False)
        assert await kit.outside.evict("a", held.token)
        await fails(LeaseLost, held.renew())
        assert held.lost
        assert await kit.free("a")


@scenario("L61", "L93", tier="T", faults={Fault.REPLY})
async def a_lost_renewal_is_tried_again_in_time(kit: LockKit) -> None:
    """A renewal whose reply or request is lost is repeated in time, and the holder keeps its lease."""
    faults, locks = kit.faulty()
    held = await locks.lock("a", ttl=kit.ttl * 2).acquire(timeout=5)
    told = kit.told_of(held)
    other = kit.locks().lock("a")
    for _ in range(2):
        faults.drop_reply("renew")
        faults.drop_request("renew")
    await kit.eventually(lambda: len(faults.struck) == 4, within=kit.ttl * 8, what="four renewals lost")
    await kit.stays_held(held, other, kit.ttl * 3)
    assert not told
    await held.release()
    assert await kit.free("a")


@scenario("L61", tier="T", faults={Fault.REPLY})
async def renewal_that_fails_for_good_is_a_loss_in_time(kit: LockKit) -> None:
    """When renewals fail for good, the holder knows of the loss before another can have the lock."""
    faults, locks = kit.faulty()
    held = await locks.lock("a", ttl=kit.ttl * 2).acquire(timeout=5)
    of = "time from the last renewal's failure to the notice of loss"
    async with kit.loses(held, RAN_OUT, 2, of):
        faults.drop_request("renew", times=100_000)
        new = await kit.taken(timeout=kit.upper(kit.ttl * 2 + 10))
        assert held.lost, "another was granted the lock before the lease ended by its holder's own clock"
    await fails(LeaseLost, held.release())
    await kit.lets_go(new)


@scenario("L93", faults={Fault.REPLY})
async def a_renewal_by_hand_of_unknown_outcome_says_so(kit: LockKit) -> None:
    """A renewal by hand whose reply is lost raises Unavailable; the lock is still held, and the next renewal works."""
    faults, locks = kit.faulty()
    held = await locks.lock("a", renew=False).acquire(timeout=5)
    faults.drop_reply("renew")
    error = await fails(Unavailable, held.renew())
    assert error.retryable
    held.check()
    assert not await kit.free("a")
    before = time.monotonic() + held.expires_in
    await held.renew()
    assert held.expires_in <= held.ttl
    assert time.monotonic() + held.expires_in > before, "the renewed lease does not end later than the one before"
    await held.release()


@scenario("L91", faults={Fault.REPLY})
async def a_lost_reply_to_an_attempt_does_no_harm(kit: LockKit) -> None:
    """When the reply to an attempt that took the lock is lost, the caller has the lock and never waits for itself."""
    faults, locks = kit.faulty()
    await locks.ping()
    for drop in (faults.drop_reply, faults.drop_request):
        drop("attempt")
        with kit.within(2.0, "the acquire waited for its own grant"):
            held = await locks.lock("a", ttl=30).acquire(timeout=20)
        await kit.keeps(held)

    faults.drop_reply("attempt", times=50)
    await fails(Unavailable, locks.lock("b", ttl=30).acquire(timeout=20))
    faults.clear()
    await kit.until_free("b", what="all replies to its acquire were lost")
    faults.drop_reply("attempt")
    try:
        tried = await locks.lock("b", ttl=30).try_acquire()
    except Unavailable:
        tried = None
    if tried is not None:
        await kit.lets_go(tried)
    await kit.until_free("b", what="the reply to its try was lost")


@scenario("L91", tier="T")
async def a_repeated_attempt_starts_its_lease_afresh(kit: LockKit) -> None:
    """A repeated attempt that finds its own grant starts the lease again: the backend counts from then, as the holder does."""
    holding, dropping = Faults(), Faults()
    locks, other = kit.locks(faults=holding, wrap=dropping.wrap), kit.locks().lock("a", ttl=30)
    await locks.ping()
    dropping.drop_reply("attempt")
    acquire = locks.lock("a", ttl=kit.ttl, renew=False).acquire(timeout=20)
    async with kit.held_up(holding, "attempt", acquire) as acquiring:
        await kit.sleep(min(kit.ttl * 0.6, 3.0))  # the lease of the first attempt runs on
    held = await acquiring
    got = await other.acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 10))
    assert held.expires_in == 0, "another was let in while the holder, whose attempt was repeated, takes the lock for its own"
    await got.release()


@scenario("L92", faults={Fault.REPLY})
async def a_lost_reply_to_a_release_does_no_harm(kit: LockKit) -> None:
    """A release whose reply is lost still succeeds: the holder is not told that it had lost the lock."""
    faults, locks = kit.faulty()
    for drop in (faults.drop_reply, faults.drop_request):
        held = await locks.lock("a").acquire(timeout=5)
        drop("release")
        await held.release()
        assert not held.lost
        assert await kit.free("a")
    held = await locks.lock("a").acquire(timeout=5)
    faults.drop_reply("release", times=50)
    await fails(Unavailable, held.release())
    faults.clear()
    other = await kit.taken()  # the release had freed the lock, and now another has it
    try:
        await held.release()
    except LeaseLost:
        pass
    await kit.keeps(other)


@scenario("L71", tier="T", faults={Fault.REPLY})
async def a_grant_that_took_longer_than_its_lease_is_no_grant(kit: LockKit) -> None:
    """An acquire whose answer took longer than the lease fails, and gives back what it took."""
    faults, locks = kit.faulty()
    await (await locks.lock("a").acquire(timeout=5)).release()
    acquire = locks.lock("a", ttl=kit.ttl).acquire(timeout=30)
    async with kit.held_up(faults, "attempt", acquire) as acquiring:
        await kit.sleep(kit.ttl * 1.1)
    error = await fails(LeaseLost, acquiring, what="a grant that had expired on arrival was handed out")
    assert error.name == "a"
    assert kit.seen.members["withdraw"], "the grant was not given back: a backend that counts longer keeps the lock"
    await kit.until_free("a", what="its grant came too late")
