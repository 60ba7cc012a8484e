"""What the core does for backends where a session is the lease, and for those that do not queue fairly."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

import narrowboat
import narrowboat_memory
from narrowboat import aio, registry
from narrowboat._locks.line import Lines
from narrowboat.capabilities import Expiry, WaitOrder
from narrowboat.clock import ManualClock
from narrowboat.contract import Busy, Grant, LockProvider, Request
from narrowboat.errors import LockTimeout, NarrowboatError, Reason, Unsupported
from narrowboat.layers.passing import PassingLocks
from narrowboat.locking import Locks

SESSION = 6.0


T = TypeVar("T")


class SessionLocks(PassingLocks):
    """The memory driver as if a session of 6 s carried its locks: they end only when they are freed."""

    def __init__(self, inner: LockProvider, calls: list[tuple[str, int]]) -> None:
        super().__init__(inner)
        self.calls = calls

    def _short(self, answer: T) -> T:
        return answer._replace(ttl=SESSION) if isinstance(answer, Grant) else answer

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        self.calls.append(("attempt", len(requests)))
        return [self._short(answer) for answer in self.inner.attempt([request._replace(ttl=86400.0) for request in requests])]

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        self.calls.append(("renew", len(grants)))
        return [self._short(answer) for answer in self.inner.renew([grant._replace(ttl=86400.0) for grant in grants])]


@pytest.fixture
def calls() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]) -> str:
    """A URL of a backend that claims a session for its lease and no order."""
    plain = narrowboat_memory.locks
    backend = dataclasses.replace(
        plain,
        capabilities=lambda url, options: dataclasses.replace(
            plain.capabilities(url, options), expiry=Expiry.SESSION, order=WaitOrder.ANY, ttl_min=12.0
        ),
        open=lambda url, options, context: SessionLocks(plain.open(url, options, context), calls),
    )
    monkeypatch.setitem(registry._loaded, (registry.LOCKS, "memory"), backend)
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def locks(url: str, clock: ManualClock) -> Iterator[Locks]:
    with narrowboat.locks(url, clock=clock) as locks:
        yield locks


def soon(condition: Callable[..., bool]) -> bool:
    """Until it holds, within a bound."""
    for _ in range(500):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def test_a_ttl_below_the_bound_is_refused_with_the_explanation(locks: Locks, calls: list[tuple[str, int]]) -> None:
    """It is what the caller accepts until a dead holder's lock is free; the effective one is shown."""
    with pytest.raises(Unsupported, match=r"ttl=5 s.*a session is the lease.*up to 12 s.*session_ttl="):
        locks.lock("a", ttl=5)
    assert calls == []

    assert locks.lock("a", ttl=20).acquire().ttl == SESSION


def test_all_locks_of_a_session_are_renewed_together(locks: Locks, clock: ManualClock, calls: list[tuple[str, int]]) -> None:
    """However far apart they were acquired."""
    held = []
    for number in range(20):
        held.append(locks.lock(str(number)).acquire())
        clock.advance(0.09)
    del calls[:]
    for round_ in (1, 2, 3):
        clock.advance(2.05)
        assert soon(lambda count=round_: len(calls) == count and not any(one._under_way for one in held))

    assert calls == [("renew", 20)] * 3
    assert not any(one.lost for one in held)


def test_a_lock_that_was_given_up_is_freed_though_its_session_goes_on(locks: Locks, clock: ManualClock, url: str) -> None:
    """Nobody renews it, so its holder lets go by its own clock; without a withdraw it would be held for ever."""
    held = locks.lock("a", renew=False).acquire()
    clock.advance(SESSION)

    assert held.lost
    assert held.reason is Reason.EXPIRED
    assert soon(lambda: locks.holders("a") == [])


def test_a_forgotten_possession_is_freed_though_its_session_goes_on(locks: Locks, clock: ManualClock) -> None:
    """Nothing refers to it any more; the next look of the engine frees it."""
    locks.lock("a").acquire()
    gc.collect()

    def free() -> bool:
        clock.advance(0.5)
        return locks.holders("a") == []

    assert soon(free)


def test_a_released_possession_is_not_withdrawn_when_it_is_collected(locks: Locks, clock: ManualClock, url: str) -> None:
    """Its successor is not disturbed, and no call is made for it."""
    held = locks.lock("a").acquire()
    held.release()
    del held
    second = locks.lock("a").acquire()
    gc.collect()
    clock.advance(2.1)
    clock.advance(2.1)

    assert not second.lost
    assert [holder.token for holder in locks.holders("a")] == [second.token]


def test_waiters_of_one_process_send_one_contender(url: str, calls: list[tuple[str, int]]) -> None:
    """A hundred threads wait; the backend hears of one at a time, and they are served in the order in which they came."""
    with narrowboat.locks(url) as locks:
        first = locks.lock("a").acquire()
        served, threads = [], []

        def wait(number: int) -> None:
            with locks.lock("a"):
                served.append(number)

        for number in range(30):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            assert soon(lambda count=number + 1: len(locks._core.lines._lines.get("a", ())) == count)  # each has its place
            if number == 0:
                assert soon(lambda: [name for name, _ in calls].count("attempt") == 2)
        attempts = len(calls)
        assert attempts <= 4  # the holder's, and the first waiter's own
        first.release()
        for thread in threads:
            thread.join(10)

    assert served == list(range(30))
    assert max(count for name, count in calls if name == "attempt") == 1


def test_a_waiter_that_leaves_the_line_sends_nothing(url: str, calls: list[tuple[str, int]]) -> None:
    """Its time is up before its turn came; the one behind it moves up."""

    async def main() -> None:
        async with aio.locks(url) as locks:
            held = await asyncio.create_task(locks.lock("a").acquire())  # by a task of its own: ours would wait for itself
            contender = asyncio.ensure_future(locks.lock("a").acquire())
            while len(locks._core.waiting) < 1:
                await asyncio.sleep(0.01)
            before = len(calls)
            with pytest.raises(LockTimeout):
                await locks.lock("a").acquire(timeout=0.05)
            assert len([name for name, _ in calls[before:] if name == "attempt"]) <= 1  # the contender's own
            last = asyncio.ensure_future(locks.lock("a").acquire())
            await asyncio.sleep(0)
            contender.cancel()
            await held.release()
            await (await asyncio.wait_for(last, 5)).release()
            with pytest.raises(asyncio.CancelledError):
                await contender

    asyncio.run(main())


def test_a_waiter_that_vanished_is_passed_over() -> None:
    """A line keeps nobody alive, and a name that nobody waits for leaves nothing behind."""

    class Waiter:
        told = 0
        waits = True

        def next_turn(self) -> None:
            self.told += 1

        def in_line(self) -> bool:
            return self.waits

    turns, first, second, third = Lines(), Waiter(), Waiter(), Waiter()
    assert turns.is_first("a", first)
    assert not turns.is_first("a", second)
    assert not turns.is_first("a", third)
    assert turns.is_first("b", third)
    del second
    gc.collect()
    turns.leave("a", first)
    turns.leave("a", first)

    assert third.told == 1 or turns.is_first("a", third)
    fourth = Waiter()
    assert not turns.is_first("a", fourth)
    third.waits = False  # an interrupt struck before it could leave, and somebody keeps it alive
    assert turns.is_first("a", fourth)
    turns.leave("a", fourth)
    turns.leave("b", third)
    assert turns._lines == {}
