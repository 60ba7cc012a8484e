"""A KeyboardInterrupt at every interruptible point of acquire and release: afterwards the caller holds, or nobody does.

The operation is run once for each of those points with a KeyboardInterrupt raised exactly there. After each run the lane
must still work and the name must be free for others. How the points are found is said in `narrowboat.conformance.sweep`.
"""

import threading
import uuid

import pytest

import narrowboat
from narrowboat.conformance.sweep import sweep

# A coroutine that is interrupted before its first step is dropped unstarted; that is what an interrupt means.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}"])
def test_acquire_leaves_nothing_behind_wherever_it_is_interrupted(url, tmp_path):
    """Interrupted at any point of acquire: the caller has the possession, or the name is free at once."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    before = set(threading.enumerate())
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        others.ping()
        lock = mine.lock("name", ttl=30)
        lock.acquire().release()

        def once(strike):
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
def test_release_frees_or_keeps_wherever_it_is_interrupted(url, tmp_path):
    """Interrupted at any point of release: it is still held, and says so, or it is free."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)

        def once(strike):
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


def test_a_with_block_is_entered_whole_or_not_at_all(tmp_path):
    """Interrupted at any point on the way into a `with`: the body runs and the lock is freed, or it was never taken."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)
        lock.acquire().release()

        def once(strike):
            try:
                strike(lock.__enter__)
            except KeyboardInterrupt:
                assert not lock._entered
            else:
                lock.__exit__(None, None, None)
            others.lock("name").acquire(timeout=5).release()

        sweep(once)
