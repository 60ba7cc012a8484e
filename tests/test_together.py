"""Several possessions end as one: those that are nested step out once, the others are released, wherever that is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import narrowboat
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.locking import Locks

pytestmark = [  # an interrupt before a coroutine's first step
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def locks() -> Iterator[Locks]:
    with narrowboat.locks(f"memory://{uuid.uuid4().hex}") as made:
        made.lock("warm").acquire().release()
        yield made


def free_soon(locks: Locks) -> bool:
    """What was left behind is released by another thread."""
    ends = time.monotonic() + 20
    while locks.holders() and time.monotonic() < ends:
        time.sleep(0.001)
    return not locks.holders()


def test_a_second_release_of_all_leaves_the_outer_one_alone(locks: Locks) -> None:
    """What the caller has held before is still held when the inner ones were released twice."""
    lock = locks.lock("a", reentrant=True)
    with lock as outer:
        inner = locks.all(lock, "b").acquire()
        inner.release()
        inner.release()
        outer.check()
        with locks.all(lock, "b") as inner:
            inner.release()
        outer.check()
    assert locks.holders() == []


def test_the_same_for_tasks() -> None:
    """The asyncio face is the same."""

    async def main() -> None:
        async with narrowboat.aio.locks(f"memory://{uuid.uuid4().hex}") as locks:
            lock = locks.lock("a", reentrant=True)
            async with lock as outer:
                inner = await locks.all(lock, "b").acquire()
                await inner.release()
                await inner.release()
                outer.check()
            assert await locks.holders() == []

    asyncio.run(main())


def test_what_was_held_before_ends_with_its_own_release(locks: Locks) -> None:
    """Wherever the release of several is interrupted: afterwards one release frees the name that was held before."""
    lock = locks.lock("a", reentrant=True)

    def once(strike: Strike) -> None:
        outer = lock.acquire(timeout=5)
        inner = locks.all(lock, "b").acquire(timeout=5)
        with contextlib.suppress(KeyboardInterrupt):
            strike(inner.release)
        outer.check()
        outer.release()
        assert free_soon(locks)

    assert sweep(once) > 10


class SoftTimeLimit(Exception):
    """What a signal handler may raise."""


class Raising(Strike):
    """Strikes with it, and not with an interrupt."""

    def _step(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        try:
            return super()._step(frame, event, arg)
        except KeyboardInterrupt as interrupt:
            raise SoftTimeLimit(*interrupt.args) from None


@pytest.mark.parametrize("what", ["one", "all"])
def test_an_exception_of_a_signal_handler_leaves_nothing_behind(locks: Locks, what: str) -> None:
    """Any exception may strike where an interrupt can: what was to be released is not renewed for nobody."""
    target = locks.lock("a") if what == "one" else locks.all("a", "b")
    kept: list[object] = []

    def block() -> None:
        with target as held:
            kept.append(held)

    for point in range(1000):
        strike = Raising(point)
        with contextlib.suppress(SoftTimeLimit):
            strike(block)
        assert free_soon(locks), f"struck at {strike.where}"
        kept.clear()
        if not strike.where:
            break


def test_one_that_was_held_before_is_let_go_first(locks: Locks) -> None:
    """The order of the two does not matter: the last of them frees it."""
    lock = locks.lock("a", reentrant=True)
    outer = lock.acquire()
    inner = locks.all(lock, "b").acquire()
    outer.release()
    assert len(locks.holders()) == 2
    inner.release()
    assert locks.holders() == []
