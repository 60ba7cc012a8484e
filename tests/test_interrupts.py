"""A KeyboardInterrupt at every interruptible point of acquire and release: afterwards the caller holds, or nobody does.

The operation is run once for each of those points with a KeyboardInterrupt raised exactly there. After each run the lane
must still work and the name must be free for others. How the points are found is said in `narrowboat.conformance.faults.sweep`.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from pathlib import Path

import pytest

import narrowboat
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.errors import LeaseLost, LockTimeout
from narrowboat.locking import AllLocks

# A coroutine that is interrupted before its first step is dropped unstarted; that is what an interrupt means.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}"])
def test_acquire_leaves_nothing_behind_wherever_it_is_interrupted(url: str, tmp_path: Path) -> None:
    """Interrupted at any point of acquire: the caller has the possession, or the name is free at once."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    before = set(threading.enumerate())
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        others.ping()
        lock = mine.lock("name", ttl=30)
        lock.acquire().release()

        def once(strike: Strike) -> None:
            held = None
            try:
                held = strike(lock.acquire)
            except KeyboardInterrupt:
                pass
            if held is not None:
                assert not held.lost
                held.release()
            free = others.lock("name").acquire(timeout=5)  # a withdraw may still be on its way on the lane's thread
            free.release()
            again = lock.acquire(timeout=5)
            again.release()

        points = sweep(once)
        assert points > 50  # the sweep really found the points

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}"])
def test_release_frees_or_keeps_wherever_it_is_interrupted(url: str, tmp_path: Path) -> None:
    """Interrupted at any point of release: it is still held, and says so, or it is free."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)

        def once(strike: Strike) -> None:
            held = lock.acquire(timeout=5)
            try:
                strike(held.release)
            except KeyboardInterrupt:
                pass
            if others.holders("name"):
                held.check()
                held.release()
            others.lock("name").acquire(timeout=5).release()

        points = sweep(once)
        assert points > 15


def check_free(locks: narrowboat.Locks, strike: Strike) -> None:
    """Both names can be had by others, soon."""
    try:
        locks.all("name", "other").acquire(timeout=5).release()
    except LockTimeout as error:
        raise AssertionError(f"interrupted at {strike.where}: {locks.holders()}") from error


def asked(locks: narrowboat.Locks, what: str, ttl: float = 30) -> narrowboat.Lock | AllLocks:
    """One lock, or two at once."""
    return locks.lock("name", ttl=ttl) if what == "one" else locks.all("name", "other", ttl=ttl)


@pytest.mark.parametrize("what", ["one", "all"])
@pytest.mark.parametrize("method", ["acquire", "try_acquire", "__enter__"])
def test_one_and_several_are_taken_whole_or_not_at_all(what: str, method: str) -> None:
    """Interrupted at any point: the caller has them all, or nobody has any, at once."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        mine.lock("warm").acquire().release()
        target = asked(mine, what)

        def once(strike: Strike) -> None:
            held = None
            try:
                held = strike(getattr(target, method))
            except KeyboardInterrupt:
                pass
            else:
                held.release()
            check_free(others, strike)
            target.acquire(timeout=5).release()

        assert sweep(once) > (50 if what == "one" else 100)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "forgotten"])
@pytest.mark.parametrize("what", ["one", "all", "nested"])
@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}?durability=normal"])
def test_a_with_that_is_interrupted_leaves_nothing_behind(url: str, what: str, kept: bool, tmp_path: Path) -> None:
    """At any point of entering and leaving it, whether or not the program keeps what it was given: both names are free soon."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        mine.lock("warm").acquire().release()
        others.ping()
        target = asked(mine, "all" if what == "all" else "one")
        inner = mine.lock("name", ttl=30, reentrant=True)
        had = []

        def block() -> None:
            with target if what != "nested" else inner as held:
                if kept:
                    had.append(held)
                if what == "nested":
                    with inner:
                        pass
                    held.check()

        def once(strike: Strike) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                strike(block)
            check_free(others, strike)
            target.acquire(timeout=5).release()
            had.clear()

        assert sweep(once) > 80


def test_the_exit_of_a_with_that_was_entered_by_hand_frees_or_says_so() -> None:
    """An `ExitStack` calls the two by itself: interrupted anywhere in the exit but on its first step, it is free at once."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)

        def once(strike: Strike) -> None:
            held = lock.__enter__()
            with contextlib.suppress(KeyboardInterrupt):
                strike(type(lock).__exit__, lock, None, None, None)
            with contextlib.suppress(LeaseLost):
                held.check()
                held.release()
            check_free(others, strike)

        sweep(once)


@pytest.mark.parametrize("what", ["one", "all"])
def test_an_exit_stack_that_is_interrupted_keeps_nothing_beyond_the_lock_itself(what: str) -> None:
    """At any point, also between what enters the lock and the stack's note of it: free one ttl after the `Lock` was dropped."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        mine.lock("warm").acquire().release()

        def block() -> None:
            with contextlib.ExitStack() as stack:
                stack.enter_context(asked(mine, what, ttl=0.3))

        def once(strike: Strike) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                strike(block)
            check_free(others, strike)

        assert sweep(once, within=("narrowboat", "contextlib", __name__)) > 100
