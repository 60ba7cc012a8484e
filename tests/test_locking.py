"""Locks in the user's hands, on a clock that the tests own."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat import events
from narrowboat.clock import ManualClock
from narrowboat.contract import Busy, Grant, LockProvider, Released, Request
from narrowboat.errors import (
    AlreadyHeld,
    Closed,
    Conflict,
    InvalidArgument,
    LeaseLost,
    LockTimeout,
    NarrowboatError,
    Reason,
    Unavailable,
)
from narrowboat.layers.passing import PassingLocks
from narrowboat.locking import Locks


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


def test_a_lease_that_nobody_renews_ends_before_the_server_frees_it(url: str, clock: ManualClock, locks: Locks) -> None:
    """The holder gives up by its own clock first; only then can another have it."""
    with narrowboat.locks(url, clock=clock) as others:
        held = locks.lock("a", ttl=10, renew=False).acquire()
        clock.advance(9.9)

        assert held.lost
        assert others.lock("a").try_acquire() is None
        clock.advance(0.2)
        second = others.lock("a").try_acquire()
        assert second is not None
        assert second.token > held.token


def test_renewal_keeps_a_lease_for_ever(locks: Locks, clock: ManualClock) -> None:
    """Over many ttls, a held lock stays held."""
    renewed = threading.Semaphore(0)
    with narrowboat.locks(
        "memory://renewal", clock=clock, listeners=[lambda e: renewed.release() if isinstance(e, events.Renewed) else None]
    ) as mine:
        held = mine.lock("a", ttl=9).acquire()
        for _ in range(10):
            clock.advance(3.1)
            assert renewed.acquire(timeout=10)

        assert not held.lost
        held.release()


def test_a_jump_of_the_clock_is_a_pause(locks: Locks, clock: ManualClock) -> None:
    """A process that stood still for longer than its lease says so, and its callbacks are called."""
    held = locks.lock("a", ttl=10).acquire()
    told = threading.Event()
    held.on_lost(lambda held: told.set())

    clock.advance(3600)

    assert told.wait(10)
    assert held.lost
    assert held.reason is Reason.PAUSED
    with pytest.raises(LeaseLost, match="paused"):
        held.check()
    with pytest.raises(LeaseLost):
        held.release()


def test_leaving_a_with_after_a_loss_raises_only_when_the_body_ended_normally(locks: Locks, clock: ManualClock) -> None:
    """The loss must not hide the body's own error; it is added as a note."""
    with pytest.raises(LeaseLost), locks.lock("a", ttl=10, renew=False):
        clock.advance(11)
    with pytest.raises(KeyError) as caught, locks.lock("a", ttl=10, renew=False):
        clock.advance(11)
        raise KeyError("mine")

    assert any("LeaseLost" in note for note in caught.value.__notes__)


def test_nesting_counts_and_the_outermost_release_frees(locks: Locks, url: str) -> None:
    """The same thread nests with the same token and no round trip; others wait until the last release."""
    lock = locks.lock("a", reentrant=True)
    with narrowboat.locks(url, clock=locks._core.clock) as others:
        with lock as outer:
            with lock as inner:
                assert inner.token == outer.token
            assert others.lock("a").try_acquire() is None

        assert others.lock("a").try_acquire() is not None


def test_waiting_for_oneself_is_refused_at_once(locks: Locks) -> None:
    """Without nesting, a second acquire raises instead of waiting for ever; a try is simply busy; so is an upgrade."""
    with locks.lock("a"):
        with pytest.raises(AlreadyHeld):
            locks.lock("a").acquire()
        assert locks.lock("a").try_acquire() is None
    with locks.lock("b", mode="shared"), pytest.raises(AlreadyHeld, match="upgraded"):
        locks.lock("b").acquire()


def test_another_thread_waits_and_is_served(url: str) -> None:
    """What this thread holds, another waits for; it has it as soon as it is released."""
    with narrowboat.locks(url) as locks:
        held = locks.lock("a").acquire()
        got = threading.Event()

        def other() -> None:
            with locks.lock("a"):
                got.set()

        thread = threading.Thread(target=other)
        thread.start()
        assert not got.wait(0.05)
        held.release()

        assert got.wait(10)
        thread.join(10)


def test_a_possession_that_is_forgotten_is_not_renewed(url: str, clock: ManualClock, locks: Locks) -> None:
    """Dropping the last reference stops the renewal: the lease ends by itself."""
    locks.lock("a", ttl=9).acquire()
    gc.collect()
    clock.advance(10)

    with narrowboat.locks(url, clock=clock) as others:
        assert others.lock("a").acquire(timeout=0) is not None


def test_close_releases_and_wakes(url: str) -> None:
    """Held locks are free after close and lost with a reason; whoever waits gets Closed; no thread is left."""
    before = set(threading.enumerate())
    locks = narrowboat.locks(url)
    held = locks.lock("a").acquire()
    failure = []

    def wait() -> None:
        try:
            locks.lock("a").acquire()
        except Closed as error:
            failure.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not locks.holders("a")[0].waiters:
        threading.Event().wait(0.001)
    locks.close()
    locks.close()
    thread.join(10)

    assert failure
    assert held.reason is Reason.CLOSED
    with pytest.raises(Closed):
        locks.lock("a").acquire()
    assert set(threading.enumerate()) <= before
    with narrowboat.locks(url) as others:
        assert others.holders() == []


def test_two_sizes_of_one_semaphore_are_refused(locks: Locks) -> None:
    """Contenders that disagree on the number of permits are told so."""
    with locks.lock("a", limit=2), pytest.raises(Conflict):
        locks.lock("a", limit=3).acquire(timeout=0)


def test_several_locks_are_all_or_none(locks: Locks) -> None:
    """When one of them is busy, none is kept."""
    taken = threading.Event()
    done = threading.Event()

    def holder() -> None:
        with locks.lock("b"):
            taken.set()
            done.wait(10)

    thread = threading.Thread(target=holder)
    thread.start()
    assert taken.wait(10)

    assert locks.all("a", "b").try_acquire() is None
    assert [holder.name for holder in locks.holders()] == ["b"]
    done.set()
    thread.join(10)
    with locks.all("b", "a") as both:
        assert [held.name for held in both] == ["a", "b"]
    assert locks.holders() == []


@pytest.mark.parametrize(
    "terms",
    [
        {"ttl": -1},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": "30"},
        {"ttl": True},
        {"ttl": 0.01},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"mode": "exclusiv"},
        {"limit": 0},
        {"limit": 2, "mode": "shared"},
        {"reentrant": 1},
        {"label": "a\nb"},
    ],
)
def test_bad_terms_are_refused_before_anything_is_sent(url: str, terms: dict[str, Any]) -> None:
    """One typed error that says what was given and what is allowed; the driver is never opened."""
    with narrowboat.locks(url) as locks:
        with pytest.raises(InvalidArgument):
            locks.lock("a", **terms)
        assert locks._core.driver._driver is None


@pytest.mark.parametrize("name", ["", "x" * 1001, "a\x00b", "a\nb", "\ud800", 7, None, b"a"])
def test_bad_names_are_refused(locks: Locks, name: str) -> None:
    """Empty, too long, with control characters or no text at all."""
    with pytest.raises(InvalidArgument):
        locks.lock(name)


def test_decorators_take_what_they_can_hold(locks: Locks) -> None:
    """A plain function is held during its call; a coroutine function is refused, it would run unprotected."""

    @locks.lock("a")
    def work() -> list[str]:
        return [holder.name for holder in locks.holders()]

    assert work() == ["a"]
    with pytest.raises(TypeError, match="aio"):

        @locks.lock("a")
        async def later() -> None:
            pass


class LosesReplies(PassingLocks):
    """Makes the call, then says that it does not know."""

    ops: set[str] = set()

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        answers = self.inner.attempt(requests)
        if "attempt" in self.ops:
            self.ops.discard("attempt")
            raise Unavailable("no reply")
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        answers = self.inner.release(grants)
        if "release" in self.ops:
            self.ops.discard("release")
            raise Unavailable("no reply")
        return answers


@pytest.mark.parametrize("op", ["attempt", "release"])
def test_a_lost_reply_is_harmless(url: str, op: str) -> None:
    """The grant is found again by its owner, and a repeated release is a success."""
    layer = []

    def wrap(driver: LockProvider) -> LosesReplies:
        layer.append(LosesReplies(driver))
        layer[0].ops = {op}
        return layer[0]

    with narrowboat.locks(url, wrap=wrap) as locks:
        with locks.lock("a"):
            assert len(locks.holders("a")) == 1
        assert locks.holders("a") == []
        assert layer[0].ops == set()


def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    """The child knows that the lock is its parent's, opens a driver of its own, and the parent's lock stays."""
    with narrowboat.locks(f"sqlite:///{tmp_path / 'fork.db'}") as locks:
        held = locks.lock("a").acquire()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                busy = locks.lock("a").try_acquire() is None
                os.write(write, f"{held.lost} {held.reason} {busy}".encode())
            finally:
                os._exit(0)
        os.close(write)
        told = os.read(read, 100).decode()
        os.close(read)
        os.waitpid(pid, 0)

        assert told == "True Reason.FORKED True"
        held.check()
        held.release()


class TestAsyncio:
    """The same on an event loop."""

    def test_a_cancel_at_every_await_leaves_nothing(self, url: str) -> None:
        """Cancelled after any number of steps, a task either holds the lock or nobody does, and the next is served."""

        async def main() -> None:
            async with narrowboat.aio.locks(url) as mine, narrowboat.aio.locks(url) as others:
                for busy in (False, True):
                    for steps in range(12):
                        holder = await others.lock("a").acquire(timeout=5) if busy else None
                        task = asyncio.create_task(mine.lock("a").acquire())
                        for _ in range(steps):
                            await asyncio.sleep(0)
                        task.cancel()
                        if holder is not None:
                            await holder.release()
                        try:
                            await (await task).release()
                        except asyncio.CancelledError:
                            pass
                        await (await others.lock("a").acquire(timeout=5)).release()

        asyncio.run(main())

    def test_a_timeout_around_a_wait_is_a_timeout(self, url: str) -> None:
        """asyncio.timeout works as on any await, and the waiter leaves the queue."""

        async def main() -> None:
            async with narrowboat.aio.locks(url) as mine, narrowboat.aio.locks(url) as others, others.lock("a"):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await mine.lock("a").acquire()
                with pytest.raises(LockTimeout):
                    await mine.lock("a").acquire(timeout=0.05)

                assert (await others.holders("a"))[0].waiters == 0

        asyncio.run(main())

    def test_a_thousand_tasks_are_served_in_order_without_a_thread_each(self, url: str) -> None:
        """Waiters park no thread, and each is served in its turn."""

        async def main() -> None:
            served, before = [], threading.active_count()  # servers of other tests may stand in threads of this process
            async with narrowboat.aio.locks(url) as locks:

                async def wait(number: int) -> None:
                    async with locks.lock("a"):
                        served.append(number)

                holder = await locks.lock("a").acquire()
                tasks = [asyncio.create_task(wait(number)) for number in range(1000)]
                while (await locks.holders("a"))[0].waiters < 1000:  # type: ignore[operator]  # a number
                    await asyncio.sleep(0.01)
                assert threading.active_count() - before < 11
                await holder.release()
                await asyncio.gather(*tasks)

            assert served == list(range(1000))

        asyncio.run(main())

    def test_two_loops_share_one_face(self, url: str) -> None:
        """One `Locks` serves two event loops in two threads."""
        locks = narrowboat.aio.locks(url)
        inside = []

        async def work() -> None:
            for _ in range(20):
                async with locks.lock("a"):
                    inside.append(1)
                    assert len(inside) == 1
                    await asyncio.sleep(0)
                    inside.clear()

        threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        asyncio.run(locks.close())

        assert not inside

    def test_loops_that_have_ended_are_forgotten(self, url: str) -> None:
        """A face that is used from one loop after the other keeps none but the last."""
        locks = narrowboat.aio.locks(url)
        loops = []

        async def use() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            async with locks.lock("a"):
                pass

        for _ in range(5):
            asyncio.run(use())
        gc.collect()

        assert [loop() for loop in loops[:-1]] == [None] * 4
        asyncio.run(locks.close())

    def test_callbacks_run_on_the_loop(self, url: str) -> None:
        """`on_lost` calls back on the loop that acquired."""

        async def main() -> None:
            clock = ManualClock()
            async with narrowboat.aio.locks(url, clock=clock) as locks:
                held = await locks.lock("a", ttl=5).acquire()
                where = asyncio.get_running_loop().create_future()
                held.on_lost(lambda held: where.set_result(threading.current_thread()))
                clock.advance(60)

                assert await asyncio.wait_for(where, 10) is threading.current_thread()
                assert await held.wait_lost(1)

        asyncio.run(main())
