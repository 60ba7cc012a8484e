"""A lock's minimum hold: its name stays taken for `at_least` seconds, whatever becomes of its holder. On a clock of our own."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

import narrowboat
from narrowboat import events
from narrowboat._locks.terms import Terms
from narrowboat.capabilities import Expiry, LockCapabilities, Support
from narrowboat.clock import ManualClock
from narrowboat.contract import Grant, LockProvider, Request
from narrowboat.errors import InvalidArgument, LeaseLost, NarrowboatError, Reason, Unavailable, Unsupported
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingLocks
from narrowboat.locking import Locks

#: Seconds until something hangs.
HANGS = 30.0


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def locks(url: str, clock: ManualClock) -> Iterator[Locks]:
    with narrowboat.locks(url, clock=clock) as locks:
        yield locks


@pytest.fixture
def others(url: str, clock: ManualClock) -> Iterator[Locks]:
    """As another process has them."""
    with narrowboat.locks(url, clock=clock) as others:
        yield others


class Asked(PassingLocks):
    """Notes the leases that it is asked for, and calls `renewed` after each renewal."""

    def __init__(self, inner: LockProvider, asked: list[tuple[str, float]], renewed: Callable[[], object] = bool) -> None:
        super().__init__(inner)
        self._asked = asked
        self._renewed = renewed

    def attempt(self, requests: Sequence[Request]) -> Any:
        self._asked += [("attempt", request.ttl) for request in requests]
        return self.inner.attempt(requests)

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        self._asked += [("renew", round(grant.ttl, 3)) for grant in grants]
        answers = self.inner.renew(grants)
        self._renewed()
        return answers

    def release(self, grants: Sequence[Grant]) -> Any:
        self._asked += [("release", 0.0) for _ in grants]
        return self.inner.release(grants)


def taken(others: Locks, name: str = "a") -> bool:
    """Whether nobody can have it now."""
    held = others.lock(name).try_acquire()
    if held is not None:
        held.release()
    return held is None


def taken_until(others: Locks, clock: ManualClock, seconds: float, name: str = "a") -> None:
    """The name is taken now and for so many seconds to come, and no longer."""
    assert taken(others, name)
    clock.advance(seconds - 0.01)
    assert taken(others, name)
    clock.advance(0.02)
    assert not taken(others, name)


# -- what is left ---------------------------------------------------------------------------------------------------


def test_a_release_leaves_the_name_taken(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """For others and for its holder, until the minimum hold is over; the possession is over at once."""
    held = locks.lock("a", at_least=60).acquire()
    clock.advance(10)
    held.release()
    held.release()

    assert (held.lost, held.expires_in) == (False, 0.0)
    with pytest.raises(LeaseLost, match="was released"):
        held.check()
    assert locks.lock("a", reentrant=True).try_acquire() is None
    (shown,) = others.holders("a")
    assert shown.token == held.token
    assert shown.expires_in == pytest.approx(50)
    taken_until(others, clock, 50)


@pytest.mark.parametrize(("ttl", "at_least"), [(30, 5), (5, 30)])
def test_a_lease_longer_or_shorter_than_the_minimum_makes_no_difference(
    locks: Locks, others: Locks, clock: ManualClock, ttl: float, at_least: float
) -> None:
    with locks.lock("a", ttl=ttl, at_least=timedelta(seconds=at_least)):
        pass

    taken_until(others, clock, at_least)


def test_after_its_minimum_a_release_frees_at_once(locks: Locks, others: Locks, clock: ManualClock) -> None:
    held = locks.lock("a", ttl=100, at_least=60).acquire()
    clock.advance(61)
    held.release()

    assert not taken(others)


def test_who_waits_has_the_name_when_the_minimum_is_over(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """It knew a later end: the shortened lease wakes it, and it looks again when that ends."""
    held = locks.lock("a", ttl=300, at_least=60).acquire()
    got = threading.Event()

    def waits() -> None:
        with others.lock("a"):
            got.set()

    waiting = threading.Thread(target=waits)
    waiting.start()
    held.release()
    assert not got.is_set()
    clock.advance(60.1)

    assert got.wait(HANGS)
    waiting.join(HANGS)


def test_a_close_leaves_the_name_taken(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """What has a minimum hold is left, what has none is freed."""
    held = locks.lock("a", at_least=60).acquire()
    other = locks.lock("b").acquire()
    locks.close()

    assert held.reason is other.reason is Reason.CLOSED
    assert not taken(others, "b")
    taken_until(others, clock, 60)


def test_an_eviction_frees_what_was_left(locks: Locks, others: Locks) -> None:
    held = locks.lock("a", at_least=60).acquire()
    held.release()

    assert others.evict("a", held.token)
    assert not taken(others)


def test_a_block_whose_frame_has_gone_leaves_the_name_taken(url: str, others: Locks, clock: ManualClock) -> None:
    """Nobody released it: the core does."""
    released = threading.Event()
    told = [lambda event: released.set() if isinstance(event, events.Released) else None]
    with narrowboat.locks(url, clock=clock, listeners=told) as locks:

        def inside() -> Iterator[None]:
            with locks.lock("a", ttl=300, at_least=60):
                yield

        generator = inside()
        next(generator)
        del generator
        gc.collect()

        assert released.wait(HANGS)
        locks.ping()
        taken_until(others, clock, 60)


def test_each_of_several_locks_has_its_minimum(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """And names that were given back because another was busy are free at once: nobody was given them."""
    busy = others.lock("b").acquire()
    assert locks.all("a", "b", at_least=60).try_acquire() is None
    assert not taken(others)
    busy.release()

    with locks.all("a", "b", at_least=60):
        pass

    assert taken(others, "b")
    taken_until(others, clock, 60)


def test_a_minimum_is_counted_from_the_outermost_acquire(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """What is nested is no grant, so it cannot ask for a longer one."""
    lock = locks.lock("a", at_least=60, reentrant=True)
    with lock:
        clock.advance(5)
        with lock, locks.lock("a", reentrant=True):
            pass
        with pytest.raises(InvalidArgument, match="at_least=61 s, nested in one of 60 s"):
            locks.lock("a", at_least=61, reentrant=True).try_acquire()
    taken_until(others, clock, 55)


async def _leaves(url: str, clock: ManualClock) -> None:
    async with narrowboat.aio.locks(url, clock=clock) as locks:
        async with locks.lock("a", at_least=60):
            pass
        assert await locks.lock("a").try_acquire() is None
        await locks.lock("b", at_least=60).acquire()


def test_asyncio_says_the_same(url: str, others: Locks, clock: ManualClock) -> None:
    asyncio.run(_leaves(url, clock))

    assert taken(others, "b")
    taken_until(others, clock, 60)


# -- what the backend is asked for ----------------------------------------------------------------------------------


def test_a_lease_covers_the_minimum_and_then_the_ttl(url: str, clock: ManualClock) -> None:
    """It is renewed at a third of the ttl, for what is left of the minimum or for the ttl, whichever is more."""
    asked: list[tuple[str, float]] = []
    renewed = threading.Semaphore(0)
    told = [lambda event: renewed.release() if isinstance(event, events.Renewed) else None]
    with narrowboat.locks(url, clock=clock, listeners=told, wrap=lambda driver: Asked(driver, asked)) as locks:
        held = locks.lock("a", ttl=9, at_least=20).acquire()
        assert held.ttl == 20
        for _ in range(5):
            clock.advance(4)
            assert renewed.acquire(timeout=HANGS)
        held.release()

    assert asked == [("attempt", 20), ("renew", 16), ("renew", 12), ("renew", 9), ("renew", 9), ("renew", 9), ("release", 0)]


def test_what_is_left_is_no_shorter_than_the_backend_can_keep(url: str, clock: ManualClock) -> None:
    asked: list[tuple[str, float]] = []
    with narrowboat.locks(url, clock=clock, wrap=lambda driver: Asked(driver, asked)) as locks:
        held = locks.lock("a", at_least=10).acquire()
        clock.advance(9.999)
        held.release()

    assert asked[1:] == [("renew", 0.05)]


def test_a_renewal_that_the_release_has_overtaken_is_shortened_again(url: str, others: Locks, clock: ManualClock) -> None:
    """A backend that is called from many threads may do the renewal last."""
    renewals = threading.Semaphore(0)
    with narrowboat.locks(url, clock=clock, wrap=lambda driver: Asked(driver, [], renewals.release)) as locks:
        held = locks.lock("a", ttl=300, at_least=60).acquire()
        sent, late = clock(), held._to_renew()
        held._begin_renewal()
        held.release()
        assert locks._core.driver.get().renew([late]) == [late]
        assert others.holders("a")[0].expires_in == pytest.approx(300)
        locks._core.renewal.renewed(held, sent, (sent, late))
        for _ in ("the release", "the renewal", "the release once more"):
            assert renewals.acquire(timeout=HANGS)
        taken_until(others, clock, 60)


def test_an_interrupted_release_leaves_the_name_taken(url: str, others: Locks, clock: ManualClock) -> None:
    """Nobody may believe in it, and nobody else has it before."""
    strikes = iter([KeyboardInterrupt])

    def strike() -> None:
        for error in strikes:
            raise error

    with narrowboat.locks(url, clock=clock, wrap=lambda driver: Asked(driver, [], strike)) as locks:
        held = locks.lock("a", ttl=300, at_least=60).acquire()
        with pytest.raises(KeyboardInterrupt):
            held.release()

        assert not held.lost
        taken_until(others, clock, 60)


@pytest.mark.parametrize("lose", ["drop_reply", "drop_request"])
def test_a_release_of_unknown_outcome_frees_the_name_on_time(url: str, others: Locks, clock: ManualClock, lose: str) -> None:
    """Neither before its minimum is over nor, though its lease may be longer, long after."""
    faults = Faults()
    withdrawn = threading.Event()
    with narrowboat.locks(url, clock=clock, wrap=faults.wrap) as locks:
        held = locks.lock("a", ttl=300, at_least=60).acquire()
        getattr(faults, lose)("renew", times=2)
        with pytest.raises(Unavailable):
            _released(held, clock)
        faults.call("withdraw", lambda items: withdrawn.set())
        clock.advance(59)
        assert taken(others)
        assert not withdrawn.is_set()
        clock.advance(1.1)

        assert withdrawn.wait(HANGS)
        locks.ping()
        with others.lock("a", timeout=HANGS):
            pass


def test_a_release_of_unknown_outcome_can_be_made_again(url: str, others: Locks, clock: ManualClock) -> None:
    """The second one finds the lease shortened already, or over."""
    faults = Faults()
    for name, later in (("a", 5.0), ("b", 61.0)):
        with narrowboat.locks(url, clock=clock, wrap=faults.wrap) as locks:
            held = locks.lock(name, ttl=300, at_least=60).acquire()
            faults.drop_reply("renew", times=2)
            with pytest.raises(Unavailable):
                _released(held, clock)
            clock.advance(later)
            held.release()

            assert not held.lost
            assert taken(others, name) is (later < 60)


def _released(held: Any, clock: ManualClock) -> None:
    """Release it. The pause before the repetition ends when the clock is moved, by a moment."""
    over = threading.Event()

    def time_passes() -> None:
        while not over.wait(0.01):
            clock.advance(0.001)

    passing = threading.Thread(target=time_passes)
    passing.start()
    try:
        held.release()
    finally:
        over.set()
        passing.join(HANGS)


def test_a_possession_that_was_lost_is_left_to_its_lease(locks: Locks, others: Locks, clock: ManualClock) -> None:
    """A holder that stood still for longer than its lease has nothing to leave."""
    held = locks.lock("a", at_least=60, renew=False).acquire()
    clock.advance(61)

    with pytest.raises(LeaseLost):
        held.release()
    assert not taken(others)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [-1, -0.001, math.nan, math.inf, True, "60", None, 7 * 86400 + 1, timedelta(-1)])
def test_what_is_no_time_is_refused_before_anything_is_sent(url: str, at_least: Any) -> None:
    asked: list[tuple[str, float]] = []
    with narrowboat.locks(url, wrap=lambda driver: Asked(driver, asked)) as locks:
        for call in (locks.lock, locks.all):
            with pytest.raises(InvalidArgument, match="at_least=.*: allowed is 0 to 604800 seconds"):
                call("a", at_least=at_least)

    assert asked == []


def _terms(claims: LockCapabilities, at_least: float) -> Terms:
    return Terms(
        "mine", claims, "me", "a", ttl=60, at_least=at_least, timeout=None, mode="exclusive", limit=None, reentrant=False,
        renew=True, label=None,
    )  # fmt: skip


@pytest.mark.parametrize(("expiry", "why"), [(Expiry.LEASE, "it is not claimed"), (Expiry.SESSION, "a session is the lease")])
def test_a_backend_that_does_not_claim_it_goes_on_without(locks: Locks, expiry: Expiry, why: str) -> None:
    """It says so unless its author did; only who asks for a minimum is refused."""
    claims = dataclasses.replace(locks.capabilities, expiry=expiry, at_least=Support.ABSENT)

    assert _terms(claims, 0).at_least == 0
    with pytest.raises(Unsupported, match=f"at_least=60 s: mine cannot .*{why}.*Nothing was sent.*narrowboat backends"):
        _terms(claims, 60)
    assert LockCapabilities.__dataclass_fields__["at_least"].default is Support.ABSENT


def test_consul_refuses_it_and_it_can_be_demanded() -> None:
    """Its locks end with their session."""
    with narrowboat.locks("consul://127.0.0.1:1") as locks, pytest.raises(Unsupported, match="at_least=1 s: consul"):
        locks.lock("a", at_least=1)
    with pytest.raises(Unsupported, match="at_least"):
        narrowboat.locks("consul://127.0.0.1:1", require="at_least")
    narrowboat.locks("memory://", require="at_least").close()
