"""What every embedded lock driver owes by its contract, written once and run against each of them.

What a scenario of the conformance kit shows through the faces is not here; what is left, no face can see. The tests call the
driver as the core does and own its clock. `LockRules` is inherited by the test class of each driver,
which gives `opened`: a function that opens a provider on one shared place.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from narrowboat.clock import ManualClock
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.contract.locks import Busy, Grant, LockProvider, Mode, Released, Request
from narrowboat.errors import Closed, Conflict, LeaseLost, NarrowboatError, Reason

#: what the fixture `opened` gives: opens one more provider on the same place, on a clock and with options
Opened = Callable[..., LockProvider]


class Bell:
    """A wake callback that counts."""

    def __init__(self) -> None:
        self.rings = 0
        self._event = threading.Event()

    def __call__(self) -> None:
        self.rings += 1
        self._event.set()

    def wait(self, timeout: float) -> bool:
        rung = self._event.wait(timeout)
        self._event.clear()
        return rung


def bell(wish: Request) -> Bell:
    """What was made for it by `request`."""
    assert isinstance(wish.wake, Bell)
    return wish.wake


def request(
    name: str = "a",
    *,
    ttl: float = 10.0,
    mode: Mode = Mode.EXCLUSIVE,
    limit: int | None = None,
    wait: bool = True,
    owner: str | None = None,
    wake: Bell | None = None,
    label: str = "",
) -> Request:
    return Request(name, owner or uuid.uuid4().hex, ttl, mode, limit, wait, wake or Bell(), label)


def shared(name: str = "a", **more: Any) -> Request:
    return request(name, mode=Mode.SHARED, **more)


def permit(limit: int, name: str = "a", **more: Any) -> Request:
    return request(name, mode=Mode.SEMAPHORE, limit=limit, **more)


def attempt(provider: LockProvider, wish: Request) -> Grant | Busy | NarrowboatError:
    (answer,) = provider.attempt([wish])
    return answer


def granted(provider: LockProvider, wish: Request) -> Grant:
    answer = attempt(provider, wish)
    assert isinstance(answer, Grant), answer
    return answer


def busy(provider: LockProvider, wish: Request) -> Busy:
    answer = attempt(provider, wish)
    assert isinstance(answer, Busy), answer
    return answer


def released(provider: LockProvider, grant: Grant | NarrowboatError | Busy | None) -> None:
    assert isinstance(grant, Grant), grant
    assert provider.release([grant]) == [Released.RELEASED]


def grants(answers: Sequence[Grant | Busy | NarrowboatError]) -> list[Grant]:
    """All of them are."""
    return [answer for answer in answers if isinstance(answer, Grant)]


def acquire(provider: LockProvider, wish: Request, timeout: float = 30.0) -> Grant:
    """The core's loop in five lines: attempt, then wait for `wake` or `retry_after`."""
    while True:
        (answer,) = provider.attempt([wish])
        if isinstance(answer, Grant):
            return answer
        assert isinstance(answer, Busy), answer
        bell(wish).wait(min(answer.retry_after, timeout))


class LockRules:
    """One test a rule. `opened(clock, **options)` opens one more provider on the same place."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def provider(self, opened: Opened, clock: ManualClock) -> LockProvider:
        return opened(clock)

    # -- holding --------------------------------------------------------------------------------------------------

    def test_a_release_frees_its_own_generation_only(self, provider: LockProvider) -> None:
        """Not another owner's with the same token either, which no face can ask for."""
        grant = granted(provider, request())

        assert provider.release([grant._replace(token=grant.token + 1)]) == [Released.NOT_HELD]
        assert provider.release([grant._replace(owner="another")]) == [Released.NOT_HELD]
        assert provider.release([grant._replace(name="b")]) == [Released.NOT_HELD]
        assert len(provider.holders("a")) == 1
        assert provider.release([grant]) == [Released.RELEASED]
        assert provider.release([grant]) == [Released.NOT_HELD]

    def test_releasing_a_lease_that_ran_out_is_not_held_and_leaves_nothing(
        self, provider: LockProvider, clock: ManualClock, residue: Callable[[], int]
    ) -> None:
        grant = granted(provider, request())
        clock.advance(10)

        assert provider.holders("a") == []
        assert provider.release([grant]) == [Released.NOT_HELD]
        assert residue() == 0

    def test_evicting_breaks_exactly_that_generation_and_its_holder_learns_why(
        self, provider: LockProvider, residue: Callable[[], int]
    ) -> None:
        grant = granted(provider, request())

        assert not provider.evict("a", grant.token + 1)
        assert not provider.evict("b", grant.token)
        assert provider.evict("a", grant.token)
        assert not provider.evict("a", grant.token)
        new = granted(provider, request())
        (answer,) = provider.renew([grant])
        assert isinstance(answer, LeaseLost)
        assert answer.reason is Reason.EVICTED
        assert provider.release([grant]) == [Released.NOT_HELD]
        released(provider, new)
        assert residue() == 0

    def test_one_refusal_in_a_batch_spoils_nobody_else(self, provider: LockProvider) -> None:
        taken = granted(provider, request("b"))
        granted(provider, permit(2, "c"))
        wishes = [request("a"), request("b"), permit(3, "c"), request("d")]

        first, second, third, fourth = provider.attempt(wishes)
        assert isinstance(first, Grant)
        assert isinstance(second, Busy)
        assert isinstance(third, Conflict)
        assert isinstance(fourth, Grant)
        assert first.token != fourth.token
        stale = taken._replace(token=taken.token + 1000)
        assert provider.release([first, stale, fourth]) == [Released.RELEASED, Released.NOT_HELD, Released.RELEASED]

    def test_holders_are_listed_by_name_and_age_with_their_waiters(self, provider: LockProvider) -> None:
        second = granted(provider, request("b", label="two"))
        readers = [granted(provider, shared("a")) for _ in range(2)]
        busy(provider, request("b"))

        listed = provider.holders(None)
        assert [(holder.name, holder.token) for holder in listed] == [
            ("a", readers[0].token),
            ("a", readers[1].token),
            ("b", second.token),
        ]
        assert [holder.waiters for holder in listed] == [0, 0, 1]
        assert provider.holders("c") == []

    # -- waiting --------------------------------------------------------------------------------------------------

    def test_waiters_are_served_in_order_and_only_the_next_one_is_woken(
        self, provider: LockProvider, opened: Opened, clock: ManualClock
    ) -> None:
        providers = [provider, opened(clock)]
        grant = granted(provider, request())
        waiters = [request() for _ in range(6)]
        for index, waiter in enumerate(waiters):
            busy(providers[index % 2], waiter)
        for index, waiter in enumerate(waiters):
            released(provider, grant)
            assert bell(waiter).wait(5)
            for later in waiters[index + 1 :]:
                busy(provider, later)
                assert bell(later).rings == 0
            grant = granted(providers[index % 2], waiter)

        assert provider.holders("a")[0].waiters == 0

    def test_a_try_does_not_overtake_a_waiter(self, provider: LockProvider, residue: Callable[[], int]) -> None:
        grant = granted(provider, request())
        waiter = request()
        busy(provider, waiter)
        released(provider, grant)

        busy(provider, request(wait=False))
        released(provider, granted(provider, waiter))
        assert residue() == 0

    def test_who_is_next_looks_again_when_the_lease_ends(self, provider: LockProvider, clock: ManualClock) -> None:
        granted(provider, request(ttl=1.5))
        waiter = request()

        assert busy(provider, waiter).retry_after == pytest.approx(1.5)
        clock.advance(1.5)
        granted(provider, waiter)

    def test_moving_the_clock_past_a_lease_wakes_who_is_next(self, provider: LockProvider, clock: ManualClock) -> None:
        granted(provider, request(ttl=1.5))
        first, second = request(), request()
        busy(provider, first)
        busy(provider, second)
        clock.advance(1.5)

        assert bell(first).rings == 1
        assert bell(second).rings == 0

    def test_a_waiter_that_stops_coming_is_passed_over_within_the_bound(
        self, provider: LockProvider, clock: ManualClock, residue: Callable[[], int]
    ) -> None:
        grant = granted(provider, request())
        dead = [request() for _ in range(3)]
        for waiter in dead:
            busy(provider, waiter)
        live = request()
        busy(provider, live)
        released(provider, grant)
        begun = clock()
        while isinstance(answer := attempt(provider, live), Busy):
            clock.advance(answer.retry_after)

        assert clock() - begun <= provider.capabilities.dead_waiter_bound
        assert isinstance(answer, Grant)
        released(provider, answer)
        assert residue() == 0

    def test_a_waiter_that_comes_as_told_keeps_its_place(self, provider: LockProvider, clock: ManualClock) -> None:
        grant = granted(provider, request(ttl=1000))
        first, second = request(), request()
        again = {each: busy(provider, each).retry_after for each in (first, second)}
        for _ in range(20):
            clock.advance(min(again.values()))
            again = {each: busy(provider, each).retry_after for each in (first, second)}
        released(provider, grant)

        busy(provider, second)
        granted(provider, first)

    def test_a_thousand_waiters_and_each_release_wakes_one(self, provider: LockProvider) -> None:
        grant = granted(provider, request())
        waiters = [request() for _ in range(1000)]
        assert all(isinstance(answer, Busy) for waiter in waiters for answer in provider.attempt([waiter]))
        for waiter in waiters[:50]:
            released(provider, grant)
            assert bell(waiter).wait(5)
            grant = granted(provider, waiter)

        assert [min(bell(waiter).rings, 1) for waiter in waiters] == [1] * 50 + [0] * 950

    # -- modes ----------------------------------------------------------------------------------------------------

    def test_a_waiting_writer_blocks_new_readers_and_readers_go_together(
        self, provider: LockProvider, residue: Callable[[], int]
    ) -> None:
        reading = granted(provider, shared())
        writer = request()
        busy(provider, writer)
        late = [shared(), shared()]
        for reader in late:
            busy(provider, reader)
        released(provider, reading)
        assert bell(writer).wait(5)
        assert [bell(reader).rings for reader in late] == [0, 0]
        writing = granted(provider, writer)
        last = request()
        busy(provider, last)
        released(provider, writing)
        assert all(bell(reader).wait(5) for reader in late)
        grants = [granted(provider, reader) for reader in reversed(late)]
        assert bell(last).rings == 0

        assert min(grant.token for grant in grants) > writing.token
        assert provider.release(grants) == [Released.RELEASED] * 2
        released(provider, granted(provider, last))
        assert residue() == 0

    def test_a_semaphore_never_has_more_than_its_size(self, provider: LockProvider, clock: ManualClock) -> None:
        grants = [granted(provider, permit(3)) for _ in range(3)]
        waiters = [permit(3) for _ in range(3)]
        for waiter in waiters:
            busy(provider, waiter)
        assert provider.release(grants[:2]) == [Released.RELEASED] * 2

        assert [bell(waiter).rings for waiter in waiters] == [1, 1, 0]
        for waiter in waiters[:2]:
            granted(provider, waiter)
        busy(provider, waiters[2])
        assert len(provider.holders("a")) == 3
        clock.advance(10)
        granted(provider, permit(3, wait=False, owner=waiters[2].owner))

    @pytest.mark.parametrize("waited", [False, True])
    def test_contenders_that_disagree_on_the_kind_or_size_are_refused(self, provider: LockProvider, waited: bool) -> None:
        first = granted(provider, permit(1))
        if waited:  # then only a waiter speaks for the size
            waiter = permit(1)
            busy(provider, waiter)
            released(provider, first)

        for other in (permit(2), request(), shared()):
            answer = attempt(provider, other)
            assert isinstance(answer, Conflict), answer
            assert "semaphore of 1" in str(answer)
        provider.withdraw([waiter]) if waited else released(provider, first)
        granted(provider, request())
        assert isinstance(attempt(provider, permit(1)), Conflict)

    # -- the end --------------------------------------------------------------------------------------------------

    def test_abandoned_names_are_swept_by_later_attempts_on_other_names(
        self, provider: LockProvider, clock: ManualClock, residue: Callable[[], int]
    ) -> None:
        for start in range(0, 3000, 100):
            provider.attempt([request(f"name-{start + index}") for index in range(100)])
        clock.advance(10)
        for start in range(0, 10_000, 100):
            provider.release(grants(provider.attempt([request(f"later-{start + index}") for index in range(100)])))

        assert residue() == 0

    def test_after_close_every_call_is_refused_and_closing_again_does_nothing(self, provider: LockProvider) -> None:
        grant = granted(provider, request())
        provider.close()
        provider.close()

        for call in (
            lambda: provider.attempt([request()]),
            lambda: provider.renew([grant]),
            lambda: provider.release([grant]),
            lambda: provider.withdraw([request()]),
            lambda: provider.holders(None),
            lambda: provider.evict("a", 1),
            provider.ping,
        ):
            with pytest.raises(Closed):
                call()

    def test_what_is_held_stays_until_its_lease_ends_when_its_provider_is_closed(
        self, provider: LockProvider, opened: Opened, clock: ManualClock
    ) -> None:
        granted(provider, request())
        provider.close()
        other = opened(clock)

        busy(other, request(wait=False))
        clock.advance(10)
        granted(other, request(wait=False))

    # -- interrupts -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["free", "held", "freed with a queue"])
    def test_an_interrupted_attempt_is_undone_by_its_withdraw(
        self, provider: LockProvider, residue: Callable[[], int], state: str
    ) -> None:
        def operation(strike: Strike) -> None:
            before = granted(provider, request()) if state != "free" else None
            mine = request()
            if state == "freed with a queue":
                busy(provider, mine)
                released(provider, before)
            with contextlib.suppress(KeyboardInterrupt):
                strike(provider.attempt, [mine])
            provider.withdraw([mine])
            if state == "held":
                released(provider, before)
            assert residue() == 0
            released(provider, granted(provider, request(wait=False)))

        assert sweep(operation, within="narrowboat_") > 5

    def test_an_interrupted_release_is_finished_by_a_withdraw(self, provider: LockProvider, residue: Callable[[], int]) -> None:
        def operation(strike: Strike) -> None:
            mine, waiter = request(), request()
            grant = granted(provider, mine)
            busy(provider, waiter)
            with contextlib.suppress(KeyboardInterrupt):
                strike(provider.release, [grant])
            provider.withdraw([mine])
            released(provider, granted(provider, waiter))
            assert residue() == 0

        assert sweep(operation, within="narrowboat_") > 5

    def test_an_interrupted_renewal_keeps_the_lease(self, provider: LockProvider) -> None:
        grant = granted(provider, request())

        def operation(strike: Strike) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                strike(provider.renew, [grant])
            assert provider.renew([grant]) == [grant]

        assert sweep(operation, within="narrowboat_") > 2

    def test_an_interrupted_withdraw_can_be_repeated(self, provider: LockProvider, residue: Callable[[], int]) -> None:
        def operation(strike: Strike) -> None:
            mine, waiter = request(), request()
            granted(provider, mine)
            busy(provider, waiter)
            with contextlib.suppress(KeyboardInterrupt):
                strike(provider.withdraw, [mine])
            provider.withdraw([mine])
            released(provider, granted(provider, waiter))
            assert residue() == 0

        assert sweep(operation, within="narrowboat_") > 5
