"""Locks: leases and renewal."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import scenario
from narrowboat.contract import Busy, Grant, LockProvider, Request
from narrowboat.errors import InvalidArgument, LeaseLost, NarrowboatError, Reason, Unavailable, Unsupported
from narrowboat.layers.passing import PassingLocks


@scenario("L48", "L49", tier="T")
async def a_lease_ends_neither_early_nor_late(kit: Kit) -> None:
    """A lease that nobody renews excludes others for its whole length, and frees the lock within the declared lag."""
    other = kit.locks().lock("a", ttl=30)
    await (await other.acquire(timeout=5)).release()
    sent = time.monotonic()
    held = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
    granted = time.monotonic()

    async def take() -> object:
        return await other.try_acquire()

    got: Any = await kit.eventually(take, within=held.ttl + kit.claims.expiry_lag + 5, what="the lease ends")
    now = time.monotonic()
    assert now - sent >= kit.excludes(held.ttl), f"free {kit.excludes(held.ttl) - (now - sent):.4f} s early"
    assert now - granted < held.ttl + kit.upper(kit.claims.expiry_lag), f"free {now - granted - held.ttl:.3f} s late"
    kit.measure("time from the end of a lease to its taking", max(0.0, now - granted - held.ttl))
    assert held.lost, "another holds it, and the first holder does not know"
    assert held.reason in (Reason.EXPIRED, Reason.PAUSED), held.reason
    await got.release()


@scenario("L50", tier="T", alone=True, seconds=90)  # it keeps the interpreter from whatever else runs in the process
async def renewal_goes_on_under_load(kit: Kit) -> None:
    """A lease is kept for more than three times its length while the program is busy, and nobody else gets in."""
    held = await kit.locks().lock("a", ttl=kit.ttl).acquire(timeout=5)
    other = kit.locks().lock("a")
    begun = time.monotonic()
    while time.monotonic() - begun < 3.5 * held.ttl:
        if kit.face == "asyncio":
            _work(0.7 * held.ttl)  # the event loop stands still
        else:
            await kit.blocking(_work, 0.7 * held.ttl)
        held.check()
        assert await other.try_acquire() is None, "somebody else got in while the lease was being renewed"
    assert kit.seen.members["renew"] >= 3
    await held.release()
    assert await kit.free("a")


def _work(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(2000))


@scenario("L51", "L81", tier="T")
async def renewal_ends_with_the_possession(kit: Kit) -> None:
    """Renewal stops on release, when the possession is forgotten without one, and when the provider is closed."""
    locks = kit.locks()
    held = await locks.lock("a", ttl=kit.ttl).acquire(timeout=5)
    await kit.eventually(lambda: kit.seen.members["renew"] >= 1, within=kit.ttl * 2, what="the first renewal")
    await held.release()
    await _quiet(kit, "after a release")

    await _forget(locks, kit.ttl)
    begun = time.monotonic()

    async def collected_and_free() -> bool:
        gc.collect()
        return await kit.free("b")

    bound = kit.ttl + kit.claims.expiry_lag + 1
    await kit.eventually(collected_and_free, within=bound, every=0.05, what="a lock whose possession was forgotten is free")
    kit.measure("time until a forgotten lock is free", time.monotonic() - begun)
    await _quiet(kit, "after the possession was forgotten")

    last = kit.locks()
    await last.lock("c", ttl=kit.ttl).acquire(timeout=5)
    await last.close()
    await _quiet(kit, "after the provider was closed")


async def _forget(locks: Any, ttl: float) -> None:
    held = await locks.lock("b", ttl=ttl).acquire(timeout=5)
    del held


async def _quiet(kit: Kit, when: str) -> None:
    before = kit.seen.members["renew"]
    await kit.sleep(kit.ttl)
    assert kit.seen.members["renew"] == before, f"still renewed {when}"


@scenario("L52", "L60", tier="T")
async def a_renewal_starts_a_whole_lease(kit: Kit) -> None:
    """A renewal by hand starts a whole new lease: the lock outlives the first one, and `expires_in` tells the truth."""
    held = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
    ttl, token = held.ttl, held.token
    other = kit.locks().lock("a")
    assert ttl * 0.5 < held.expires_in <= ttl
    await kit.sleep(ttl * 0.6)
    assert held.expires_in <= ttl * 0.4, "time does not pass"
    sent = time.monotonic()
    await held.renew()
    assert ttl * 0.5 < held.expires_in <= ttl, f"after a renewal {held.expires_in:.3f} s of {ttl:g} s are left"

    while time.monotonic() - sent < ttl * 0.7:  # well past the end of the first lease
        await kit.sleep(0.02)
        assert await other.try_acquire() is None, "the first lease's end freed a lock that was renewed"
    held.check()
    assert held.token == token
    got = await other.acquire(timeout=kit.upper(ttl + 10))
    assert time.monotonic() - sent >= kit.excludes(ttl), "the renewed lease ended early"
    assert held.expires_in == 0
    await got.release()


@scenario("L53", "L56", "L60")
async def a_released_possession_cannot_be_used(kit: Kit) -> None:
    """After a release, renewing or checking the possession raises LeaseLost, and nothing is held again."""
    held = await kit.locks().lock("a").acquire(timeout=5)
    await held.renew()
    await held.release()
    for call in (held.renew,):
        error = await fails(LeaseLost, call())
        assert (error.name, error.token, error.reason) == ("a", held.token, Reason.RELEASED)
    with raises(LeaseLost):
        held.check()
    assert held.expires_in == 0
    assert not held.lost
    assert await kit.free("a"), "renewing a released lock took it again"


class _Answers(PassingLocks):
    """Notes what the driver answers to renewals."""

    def __init__(self, inner: LockProvider, answers: list[Grant | NarrowboatError]) -> None:
        super().__init__(inner)
        self._answers = answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Note, and pass on."""
        answers = self.inner.renew(grants)
        self._answers += answers
        return answers


@scenario("L54", tier="T", faults={Fault.REPLY})
async def an_expired_lease_is_not_revived(kit: Kit) -> None:
    """A renewal that reaches the backend after the lease's end fails there too, and revives nothing, taken or not."""
    held = await kit.locks().lock("early", ttl=kit.ttl, renew=False).acquire(timeout=5)
    await kit.eventually(lambda: held.lost, within=kit.ttl + 2, what="the lease's end")
    error = await fails(LeaseLost, held.renew())
    assert error.reason in (Reason.EXPIRED, Reason.PAUSED)
    await kit.eventually(lambda: kit.free("early"), within=kit.claims.expiry_lag, what="free after the end")

    faults = Faults()
    answers: list[Grant | NarrowboatError] = []
    locks = kit.locks(faults=Faults(), wrap=lambda driver: faults.wrap(_Answers(driver, answers)))
    for taken in (False, True):
        late = await locks.lock("late", ttl=kit.ttl, renew=False).acquire(timeout=5)
        gate = faults.hold("renew", before=True)
        renewing = kit.spawn(_tolerant(late.renew()))
        assert await kit.blocking(gate.reached.wait, 10)
        await kit.sleep(kit.ttl + kit.claims.expiry_lag)
        other = await kit.locks().lock("late").acquire(timeout=5) if taken else None
        answers.clear()
        gate.open()
        assert isinstance(await renewing, LeaseLost), "a renewal after the end of the lease looked like a success"
        assert len(answers) == 1
        assert isinstance(answers[0], LeaseLost), f"the backend revived an expired lease: {answers[0]}"
        if other is not None:
            other.check()
            await other.renew()
            await other.release()
        assert await kit.free("late")


async def _tolerant(call: Any) -> object:
    try:
        return await call
    except NarrowboatError as error:
        return error


@scenario("L10", "L12", "L55", tier="T", faults={Fault.REPLY})
async def a_late_release_or_renewal_does_not_touch_the_next_holder(kit: Kit) -> None:
    """A release or renewal that reaches the backend while another holds the lock neither frees, shortens nor extends it."""
    for operation in ("renew", "release"):
        faults = Faults()
        late = await kit.locks(faults=faults).lock(operation, ttl=kit.ttl, renew=False).acquire(timeout=5)
        gate = faults.hold(operation, before=True)
        calling = kit.spawn(_tolerant(getattr(late, operation)()))
        assert await kit.blocking(gate.reached.wait, 10)
        new = await kit.locks().lock(operation, ttl=20, renew=False).acquire(timeout=kit.upper(kit.ttl + 10))
        assert new.token > late.token
        left = (await kit.peek(operation))[0].expires_in if kit.can("holders") else None
        gate.open()
        assert isinstance(await calling, LeaseLost), f"a {operation} by the holder before looked like a success"
        assert not await kit.free(operation), f"a late {operation} freed the next holder's lock"
        if left is not None:
            after = (await kit.peek(operation))[0].expires_in
            assert after is not None
            assert left - 5 * max(1.0, kit.upper(1)) < after <= left, f"a late {operation} changed the next holder's lease"
        await new.renew()
        await new.release()


@scenario("L58", tier="T")
async def fractions_of_a_second_count(kit: Kit) -> None:
    """Leases with fractions of a second are kept as they are: neither cut to whole seconds nor rounded up to them."""
    for ttl in (1.7, 0.35):
        wanted = ttl if ttl >= kit.claims.ttl_min else kit.claims.ttl_min + ttl
        sent = time.monotonic()
        held = await kit.locks().lock(f"for {ttl}", ttl=timedelta(seconds=wanted), renew=False).acquire(timeout=5)
        granted = time.monotonic()
        kit.check_ttl(held.ttl, wanted)
        got = await kit.locks().lock(f"for {ttl}").acquire(timeout=kit.upper(wanted + 20))
        now = time.monotonic()
        assert now - sent >= kit.excludes(held.ttl), f"a lease of {held.ttl:g} s ended after {now - sent:.3f} s"
        assert now - granted < wanted + kit.upper(kit.claims.expiry_lag), f"a lease of {wanted:g} s took {now - granted:.3f} s"
        await got.release()


@scenario("L59", "L25")
async def a_lease_that_cannot_be_kept_is_refused(kit: Kit) -> None:
    """A lease below or above what the backend can keep is refused before any I/O with the range; the smallest one works."""
    locks = kit.locks()
    for ttl in (kit.claims.ttl_min * 0.9, kit.claims.ttl_max * 1.1):
        with raises(InvalidArgument, Unsupported) as caught:  # the latter where a session is the lease
            locks.lock("a", ttl=ttl)
        assert f"{kit.claims.ttl_min:g}" in str(caught.error), f"the range is not in: {caught.error}"
    assert not kit.seen.calls
    held = await locks.lock("a", ttl=kit.claims.ttl_max).acquire(timeout=5)
    kit.check_ttl(held.ttl, kit.claims.ttl_max)
    await held.release()
    for _ in range(20):  # a loaded machine may be slower than the smallest lease: that is told, never hidden
        try:
            held = await locks.lock("a", ttl=kit.claims.ttl_min).acquire(timeout=5)
            kit.check_ttl(held.ttl, kit.claims.ttl_min)
            await held.release()
            break
        except LeaseLost:
            continue
    else:
        raise AssertionError("the smallest lease was lost at once, twenty times")


@scenario("L60")
async def a_heartbeat_of_what_is_not_held_says_so(kit: Kit) -> None:
    """What is left of a lease never grows by itself, and a heartbeat of a lock that was evicted or released says lost."""
    held = await kit.locks().lock("a", renew=False).acquire(timeout=5)
    first = held.expires_in
    await kit.sleep(0.05)
    second = held.expires_in
    assert 0 < second <= first - 0.05 <= 30 - 0.05
    await held.release()
    await fails(LeaseLost, held.renew())
    if kit.can("evict"):
        held = await kit.locks().lock("a", renew=False).acquire(timeout=5)
        assert await kit.outside.evict("a", held.token)
        await fails(LeaseLost, held.renew())
        assert held.lost
        assert await kit.free("a")


@scenario("L61", "L93", tier="T", faults={Fault.REPLY})
async def a_lost_renewal_is_tried_again_in_time(kit: Kit) -> None:
    """A renewal whose reply or request is lost is made again in time, and the lease is kept."""
    faults = Faults()
    held = await kit.locks(faults=faults).lock("a", ttl=kit.ttl * 2).acquire(timeout=5)
    lost: list[object] = []
    held.on_lost(lost.append)
    other = kit.locks().lock("a")
    for _ in range(2):
        faults.drop_reply("renew")
        faults.drop_request("renew")
    await kit.eventually(lambda: len(faults.struck) == 4, within=kit.ttl * 8, what="four renewals lost")
    until = time.monotonic() + kit.ttl * 3
    while time.monotonic() < until:
        held.check()
        assert await other.try_acquire() is None
        await kit.sleep(0.05)
    assert not lost
    await held.release()
    assert await kit.free("a")


@scenario("L61", tier="T", faults={Fault.REPLY})
async def renewal_that_fails_for_good_is_a_loss_in_time(kit: Kit) -> None:
    """When renewals fail for good, the holder knows of the loss before anybody else can have the lock."""
    faults = Faults()
    held = await kit.locks(faults=faults).lock("a", ttl=kit.ttl * 2).acquire(timeout=5)
    seen: list[float] = []
    held.on_lost(lambda lost: seen.append(time.monotonic()))
    faults.drop_request("renew", times=100_000)
    begun = time.monotonic()
    taken = await kit.locks().lock("a").acquire(timeout=kit.upper(kit.ttl * 2 + 10))
    assert held.lost, "another was granted the lock before the lease ended by its holder's own clock"
    assert held.reason in (Reason.EXPIRED, Reason.PAUSED), held.reason
    await kit.eventually(lambda: seen, within=2, what="on_lost was called")
    kit.measure("time from the last renewal's failure to the notice of loss", max(0.0, seen[0] - begun))
    await fails(LeaseLost, held.release())
    taken.check()
    await taken.release()


@scenario("L93", faults={Fault.REPLY})
async def a_renewal_by_hand_of_unknown_outcome_says_so(kit: Kit) -> None:
    """A renewal by hand whose reply is lost raises Unavailable; the lock is still held, and the next renewal works."""
    faults = Faults()
    held = await kit.locks(faults=faults).lock("a", renew=False).acquire(timeout=5)
    faults.drop_reply("renew")
    error = await fails(Unavailable, held.renew())
    assert error.retryable
    held.check()
    assert not await kit.free("a")
    before = time.monotonic() + held.expires_in
    await held.renew()
    assert held.expires_in <= held.ttl
    assert time.monotonic() + held.expires_in > before, "the lease does not end later than before"
    await held.release()


@scenario("L91", faults={Fault.REPLY})
async def a_lost_reply_to_an_attempt_does_no_harm(kit: Kit) -> None:
    """When the reply to an attempt that took the lock is lost, the caller has the lock and never waits for itself."""
    faults = Faults()
    locks = kit.locks(faults=faults)
    await locks.ping()
    for drop in (faults.drop_reply, faults.drop_request):
        drop("attempt")
        with kit.within(2.0, "it waited for itself"):
            held = await locks.lock("a", ttl=30).acquire(timeout=20)
        assert not await kit.free("a")
        if kit.can("holders"):
            assert [holder.token for holder in await kit.peek("a")] == [held.token]
        await held.release()
        assert await kit.free("a"), "a second, unknown generation is left"

    faults.drop_reply("attempt", times=50)
    await fails(Unavailable, locks.lock("b", ttl=30).acquire(timeout=20))
    faults.clear()
    await kit.eventually(lambda: kit.free("b"), what="free after an acquire whose replies were all lost")
    faults.drop_reply("attempt")
    try:
        tried = await locks.lock("b", ttl=30).try_acquire()
    except Unavailable:
        tried = None
    if tried is not None:
        tried.check()
        await tried.release()
    await kit.eventually(lambda: kit.free("b"), what="free after a try whose reply was lost")


class _AnswersLate(PassingLocks):
    """Loses the answer to the first attempt, and says so late: the lease has run on meanwhile."""

    late = 0.0

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Made; then no answer."""
        answers = self.inner.attempt(requests)
        if late := self.late:
            self.late = 0.0
            time.sleep(late)
            raise Unavailable("no answer")
        return answers


@scenario("L91", tier="T")
async def a_repeated_attempt_starts_its_lease_afresh(kit: Kit) -> None:
    """An attempt that is made again, late, finds its own grant: its lease counts from then, as its holder believes."""
    layers: list[_AnswersLate] = []

    def late(driver: LockProvider) -> _AnswersLate:
        layers.append(_AnswersLate(driver))
        return layers[-1]

    locks, other = kit.locks(wrap=late), kit.locks().lock("a", ttl=30)
    await locks.ping()
    layers[0].late = min(kit.ttl * 0.6, 3.0)
    held = await locks.lock("a", ttl=kit.ttl, renew=False).acquire(timeout=20)
    got = await other.acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 10))
    assert held.expires_in == 0, "another was let in while the holder, whose attempt was repeated, takes the lock for its own"
    await got.release()


@scenario("L92", faults={Fault.REPLY})
async def a_lost_reply_to_a_release_does_no_harm(kit: Kit) -> None:
    """When the reply to a release is lost, the release still succeeds, and is not told "not the owner"."""
    faults = Faults()
    locks = kit.locks(faults=faults)
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
    other = await kit.locks().lock("a").acquire(timeout=5)  # it had been freed; now somebody else has it
    try:
        await held.release()
    except LeaseLost:
        pass
    await kit.stays(other)
    await other.release()


@scenario("L71", tier="T", faults={Fault.REPLY})
async def a_grant_that_took_longer_than_its_lease_is_no_grant(kit: Kit) -> None:
    """An acquire whose answer took longer than the lease fails, and what it took is given back."""
    faults = Faults()
    locks = kit.locks(faults=faults)
    await (await locks.lock("a").acquire(timeout=5)).release()
    gate = faults.hold("attempt")
    acquiring = kit.spawn(_tolerant(locks.lock("a", ttl=kit.ttl).acquire(timeout=30)))
    assert await kit.blocking(gate.reached.wait, 10)
    await asyncio.sleep(kit.ttl * 1.1)
    gate.open()
    result = await acquiring
    assert isinstance(result, LeaseLost), f"a grant that had expired on arrival was handed out: {result!r}"
    assert result.name == "a"
    assert kit.seen.members["withdraw"], "it was not given back: where the backend counts longer, nobody gets it"
    await kit.eventually(lambda: kit.free("a"), what="free after a grant that came too late")
