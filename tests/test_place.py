"""Who holds a lock in a pool's thread: the job that took it, and not the one that this thread is at now."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

import narrowboat
from narrowboat.errors import AlreadyHeld, LockTimeout
from narrowboat.locking import Held, Lock, Locks

T = TypeVar("T")


@pytest.fixture
def locks() -> Iterator[Locks]:
    with narrowboat.locks("memory://place") as made:
        made.ping()
        yield made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """One thread, so that every job gets the same one."""
    with ThreadPoolExecutor(1) as made:
        yield made


def job(pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    """As anyio and `asyncio.to_thread` do it: each job in a copy of its caller's context."""
    return pool.submit(contextvars.copy_context().run, function).result(timeout=20)


@contextmanager
def dependency(lock: Lock) -> Iterator[Held]:
    with lock as held:
        yield held


def test_another_job_of_the_thread_waits_its_turn(locks: Locks, pool: ThreadPoolExecutor) -> None:
    """A job does not hold what an earlier job of its thread has entered and not left: it waits, and is not refused."""
    lock = locks.lock("a", timeout=0.05)
    locks.lock("warm").acquire().release()  # this thread's mark is in every copy, and means nothing in another
    mine = dependency(lock)
    job(pool, mine.__enter__)
    with pytest.raises(LockTimeout):
        job(pool, dependency(lock).__enter__)
    mine.__exit__(None, None, None)
    theirs = dependency(lock)
    assert not job(pool, theirs.__enter__).lost
    job(pool, lambda: theirs.__exit__(None, None, None))
    assert locks.holders() == []


def test_another_job_of_the_thread_nests_in_nothing(locks: Locks, pool: ThreadPoolExecutor) -> None:
    """A reentrant lock is held by one job at a time, whichever thread they run on."""
    lock = locks.lock("a", timeout=0.05, reentrant=True)
    mine = dependency(lock)
    job(pool, mine.__enter__)
    with pytest.raises(LockTimeout):
        job(pool, dependency(lock).__enter__)
    mine.__exit__(None, None, None)
    assert locks.holders() == []


def test_one_job_holds_what_it_holds(locks: Locks, pool: ThreadPoolExecutor) -> None:
    """Within one job everything is as in any thread: it nests, or is told that it would wait for itself."""

    def work() -> int:
        with dependency(locks.lock("a")), pytest.raises(AlreadyHeld):
            locks.lock("a").acquire(timeout=5)
        with locks.lock("b", reentrant=True) as outer, dependency(locks.lock("b", reentrant=True)) as inner:
            return int(outer is inner)

    assert job(pool, work) == 1
    assert locks.holders() == []


def test_a_thread_without_copies_is_one_place(locks: Locks, pool: ThreadPoolExecutor) -> None:
    """Where jobs share the thread's own context, a second one is told that its thread holds the name."""
    held = pool.submit(locks.lock("a").acquire).result(timeout=20)
    with pytest.raises(AlreadyHeld):
        pool.submit(locks.lock("a").acquire, 5).result(timeout=20)
    held.release()


def test_in_the_thread_of_a_loop_everybody_is_one(locks: Locks) -> None:
    """A sync lock that another task of the same loop holds is refused: waiting for it would stop that task too."""

    async def main() -> None:
        held: list[Any] = []

        async def take() -> None:
            held.append(locks.lock("a").acquire())

        await asyncio.create_task(take(), context=contextvars.Context())
        with pytest.raises(AlreadyHeld):
            await asyncio.create_task(take(), context=contextvars.Context())
        held.pop().release()

    asyncio.run(main())
