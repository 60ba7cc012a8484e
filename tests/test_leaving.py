"""Leaving and being called where nobody expects it: what the kit's scenarios leave to tests of the core."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import re
import threading
import uuid
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Never

import pytest

import narrowboat
import narrowboat.aio
from narrowboat import events
from narrowboat.contract import Depth, Grant, Holder, LockProvider
from narrowboat.errors import AlreadyHeld, InvalidArgument, NarrowboatError, NestedCall, Unavailable
from narrowboat.layers.passing import PassingLocks


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def test_each_with_of_a_shared_lock_releases_its_own_permit(url: str) -> None:
    """Three hold one semaphore by one `Lock`; the first is left by another thread, and the other two are untouched."""
    with narrowboat.locks(url) as locks:
        lock = locks.lock("permits", limit=3)

        @contextlib.contextmanager
        def permit() -> Iterator[narrowboat.Held]:
            with lock as held:
                yield held

        managers = [permit() for _ in range(3)]
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            first, second, third = (one.submit(manager.__enter__).result() for manager in managers)
            two.submit(managers[0].__exit__, None, None, None).result()
            assert [held.token for held in (second, third)] == [holder.token for holder in locks.holders("permits")]
            with pytest.raises(narrowboat.LeaseLost):
                first.check()
            second.check()
            third.check()
            for manager in managers[1:]:
                two.submit(manager.__exit__, None, None, None).result()
        assert locks.holders() == []


def test_an_async_with_is_left_in_another_loop(url: str) -> None:
    """A loop that has ended and one that runs: the lock is released by the second."""
    locks = narrowboat.aio.locks(url)
    lock = locks.lock("a")

    async def numbers() -> AsyncGenerator[int, None]:
        async with lock:
            yield 1

    stream = numbers()
    with asyncio.Runner() as first:
        assert first.run(anext(stream)) == 1

        async def end() -> list[Holder]:
            await stream.aclose()
            holders = await locks.holders()
            await locks.close()
            return holders

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(asyncio.run, end()).result() == []


def test_a_with_inside_itself_is_still_told(url: str) -> None:
    """What is no leftover is no leftover: the same thread would wait for itself."""
    with narrowboat.locks(url) as locks:
        lock = locks.lock("a")
        with lock as held:
            with pytest.raises(AlreadyHeld), lock:
                pass
            held.check()
        with pytest.raises(InvalidArgument, match="without having been entered"):
            lock.__exit__(None, None, None)


class _AsyncCallable:
    async def __call__(self) -> None:
        return None


class _GeneratorCallable:
    def __call__(self) -> Iterator[int]:
        yield 1


async def _coroutine() -> None:
    return None


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function",
    [_coroutine, _generator, _AsyncCallable(), _GeneratorCallable()],
    ids=["coroutine", "generator", "async callable", "generator callable"],
)
def test_a_lock_decorates_nothing_that_works_after_its_call(url: str, function: Callable[..., Any]) -> None:
    """Refused where it can be seen."""
    with narrowboat.locks(url) as locks, pytest.raises(TypeError, match="expected a plain function"):
        locks.lock("a")(function)


@pytest.mark.parametrize("function", [lambda *_: _coroutine(), lambda *_: _generator()], ids=["coroutine", "generator"])
def test_what_is_seen_only_by_its_result_is_refused_at_the_call(url: str, function: Callable[..., Any]) -> None:
    """And closed, so that nobody is told of a coroutine that was never awaited; the lock is free."""
    with narrowboat.locks(url) as locks:
        with pytest.raises(TypeError, match="expected a plain function"):
            locks.lock("a")(function)()
        assert locks.holders() == []


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_possession_is_not_copied(url: str, make: Callable[[object], object]) -> None:
    """There would be two of what is one; and no half of one is made on the way."""
    with narrowboat.locks(url) as locks, locks.lock("a") as held:
        with pytest.raises(TypeError, match="cannot be copied"):
            make(held)
        held.check()


def test_a_release_in_an_inner_with_is_that_withs_own(url: str) -> None:
    """Its end then does nothing, and the outer `with` keeps the lock to its own end. Counted, whoever is left first."""
    with narrowboat.locks(url) as locks, narrowboat.locks(url) as others:
        lock = locks.lock("a", reentrant=True)
        with lock as outer:
            with lock as inner, lock:
                inner.release()
                inner.release()
            assert others.lock("a").try_acquire() is None
            outer.check()
        assert locks.holders() == []

        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        with lock as held:
            lock.acquire()
            held.release()  # what was acquired by hand
            assert others.lock("a").try_acquire() is None
        assert locks.holders() == []
        for stack in (first, second):
            stack.enter_context(lock)
        first.close()
        assert others.lock("a").try_acquire() is None
        second.close()
        assert locks.holders() == []


def test_a_release_in_an_exit_stack_is_that_stacks_own(url: str) -> None:
    """What is entered without a `with` is left once as well, be it the inner or the outer one."""
    with narrowboat.locks(url) as locks, narrowboat.locks(url) as others:
        lock = locks.lock("a", reentrant=True)
        with contextlib.ExitStack() as stack:
            outer = stack.enter_context(lock)
            with lock as inner:
                inner.release()
            outer.check()
            assert others.lock("a").try_acquire() is None
        with lock as outer:
            with contextlib.ExitStack() as stack:
                stack.enter_context(lock).release()
            outer.check()
            assert others.lock("a").try_acquire() is None
        assert locks.holders() == []


def test_a_release_in_an_async_exit_stack_is_that_stacks_own(url: str) -> None:
    """As in the other face."""

    async def main() -> None:
        async with narrowboat.aio.locks(url) as locks, narrowboat.aio.locks(url) as others:
            lock = locks.lock("a", reentrant=True)
            async with contextlib.AsyncExitStack() as stack:
                outer = await stack.enter_async_context(lock)
                async with lock as inner:
                    await inner.release()
                outer.check()
                assert await others.lock("a").try_acquire() is None
            async with lock as outer:
                async with contextlib.AsyncExitStack() as stack:
                    await (await stack.enter_async_context(lock)).release()
                outer.check()
                assert await others.lock("a").try_acquire() is None
            assert await locks.holders() == []

    asyncio.run(main())


def test_an_exit_that_failed_and_is_remembered_leaves_the_next_one_alone(url: str) -> None:
    """Somebody keeps the error, and with its traceback what had left the lock: the next `ExitStack` is no business of it."""
    with narrowboat.locks(url) as locks:
        lock = locks.lock("a")
        kept: list[Exception] = []
        for _ in range(2):
            with pytest.raises(narrowboat.LeaseLost) as found, contextlib.ExitStack() as stack:
                locks.evict("a", stack.enter_context(lock).token)
            kept.append(found.value)
        with pytest.raises(InvalidArgument) as wrong:
            type(lock).__exit__(lock, None, None, None)
        kept.append(wrong.value)
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock)
        assert locks.holders() == []


def test_an_async_exit_that_failed_and_is_remembered_leaves_the_next_one_alone(url: str) -> None:
    """As in the other face."""

    async def main() -> None:
        async with narrowboat.aio.locks(url) as locks:
            lock, kept = locks.lock("a"), []
            for _ in range(2):
                with pytest.raises(narrowboat.LeaseLost) as found:
                    async with contextlib.AsyncExitStack() as stack:
                        await locks.evict("a", (await stack.enter_async_context(lock)).token)
                kept.append(found.value)
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(lock)
            assert await locks.holders() == []

    asyncio.run(main())


def test_a_release_in_an_inner_async_with_is_that_withs_own(url: str) -> None:
    """As in the other face."""

    async def main() -> None:
        async with narrowboat.aio.locks(url) as locks, narrowboat.aio.locks(url) as others:
            lock = locks.lock("a", reentrant=True)
            async with lock as outer:
                async with lock as inner, lock:
                    await inner.release()
                    await inner.release()
                assert await others.lock("a").try_acquire() is None
                outer.check()
            assert await locks.holders() == []
            async with lock as held:
                await lock.acquire()
                await held.release()  # what was acquired by hand
                assert await others.lock("a").try_acquire() is None
            assert await locks.holders() == []

    asyncio.run(main())


@pytest.mark.parametrize("name", ["lock", "all"])
@pytest.mark.parametrize(
    ("habit", "told"), [("blocking", "acquire(timeout=0)"), ("blocking_timeout", "acquire(timeout=...)"), ("wait", "'wait'")]
)
def test_what_other_locks_take_is_told_in_our_words(url: str, name: str, habit: str, told: str) -> None:
    """`threading` and redis-py say `blocking=False`; both faces say what that is here, and nothing is taken."""

    async def asynchronous() -> None:
        async with narrowboat.aio.locks(url) as locks:
            await getattr(locks, name)("a").acquire(**{habit: False})

    with narrowboat.locks(url) as locks:
        with pytest.raises(TypeError, match=re.escape(told)):
            getattr(locks, name)("a").acquire(**{habit: False})
        with pytest.raises(TypeError, match=re.escape(told)):
            asyncio.run(asynchronous())
        assert locks.holders() == []


def test_an_article_fits_its_noun(url: str) -> None:
    """In the text for what cannot be copied."""
    with narrowboat.locks(url) as locks:
        with pytest.raises(TypeError, match="^an AllLocks cannot be copied"):
            copy.copy(locks.all("a"))
        with pytest.raises(TypeError, match="^a Lock cannot be copied"):
            copy.copy(locks.lock("a"))


def test_a_listener_that_calls_back_is_told_at_once(url: str) -> None:
    """It is in the middle of a call."""
    met: list[bool] = []

    def listener(event: events.Event) -> None:
        if isinstance(event, events.Acquired):
            with pytest.raises(NestedCall) as caught:
                locks.holders()
            met.append(caught.value.retryable)

    with narrowboat.locks(url, listeners=[listener]) as locks, locks.lock("a"):
        pass
    assert met == [False]


def test_an_interrupt_in_a_listener_goes_on_when_all_have_been_told() -> None:
    """A Ctrl-C is the program's, whoever it strikes."""
    heard: list[events.Event] = []

    def struck(event: events.Event) -> Never:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        events.emit([struck, heard.append], events.Released("x", "a", 1, 0.5))
    assert len(heard) == 1


def test_without_a_thread_to_be_had_callers_carry_their_own_calls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six threads on one name, and no lane can have a thread: each gets the lock in its turn or a typed error; none is left."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("narrowboat"):
            raise RuntimeError("can't start new thread")
        real(thread)

    outcomes: list[bool | None] = []
    with narrowboat.locks(url) as locks:
        locks.lock("warm").acquire().release()  # the renewal has its thread

        def work() -> None:
            try:
                with locks.lock("a", timeout=10):
                    outcomes.append(None)
            except narrowboat.NarrowboatError as error:
                outcomes.append(error.retryable)

        monkeypatch.setattr(threading.Thread, "start", start)
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        monkeypatch.undo()
        assert len(outcomes) == 6 and set(outcomes) <= {None, True}
        locks.lock("a").acquire(timeout=5).release()


def test_a_run_without_a_thread_to_be_had_finishes_what_it_began(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler that has begun is waited for and its message acknowledged; what was not begun goes back at once."""
    real, begun, returned = threading.Thread.start, threading.Event(), threading.Event()

    def start(thread: threading.Thread) -> None:
        if thread.name == "narrowboat-run-q-1":
            assert begun.wait(10)
            raise RuntimeError("can't start new thread")
        real(thread)

    def heard(event: events.Event) -> None:
        if isinstance(event, events.Settled) and event.outcome == "return":
            returned.set()

    def handle(message: narrowboat.Message[bytes]) -> None:
        begun.set()
        assert returned.wait(10)

    with narrowboat.broker(url, listeners=[heard]) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"x", b"y"])
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            queue.run(handle, concurrency=2)
        assert queue.depth() == Depth(1, 0, 0, 0)


class _SlowRenewal(PassingLocks):
    """Stands still after the first renewal was made, and then answers it, or says that it does not know."""

    answers = True

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self.under_way, self.go_on = threading.Event(), threading.Event()

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        answers = self.inner.renew(grants)
        self.under_way.set()
        assert self.go_on.wait(10)
        if not self.answers:
            raise Unavailable("no reply")
        return answers


@pytest.mark.parametrize("answers", [True, False])
def test_a_release_that_meets_its_own_renewal_is_no_loss(url: str, answers: bool) -> None:
    """The renewal was sent before the release and is answered after it has begun: the holder has released, and lost nothing."""
    layers: list[_SlowRenewal] = []
    seen: list[events.Event] = []
    lost: list[narrowboat.Held] = []

    def wrap(driver: LockProvider) -> LockProvider:
        layers.append(_SlowRenewal(driver))
        layers[0].answers = answers
        return layers[0]

    with narrowboat.locks(url, wrap=wrap, listeners=[seen.append]) as locks, ThreadPoolExecutor(1) as pool:
        held = locks.lock("a", ttl=6).acquire()  # four seconds in which the machine may stand still
        held.on_lost(lost.append)
        assert layers[0].under_way.wait(10)
        releasing = pool.submit(held.release)
        while held.expires_in:  # until the release has begun
            pass
        layers[0].go_on.set()
        releasing.result(10)
        assert (held.lost, held.reason) == (False, None)
        assert locks.holders("a") == []
    assert [type(event) for event in seen] == [events.Acquired, events.Released]
    assert lost == []


class _NoRenewal(PassingLocks):
    """Renews nothing."""

    def renew(self, grants: Sequence[Grant]) -> Never:
        raise Unavailable("no reply")


def test_a_renewal_by_hand_that_failed_keeps_nothing(url: str) -> None:
    """Whoever gives up after it and lets go of what it held is waited for by nobody, not even by the collector."""
    with narrowboat.locks(url, wrap=_NoRenewal) as locks:
        held = locks.lock("a").acquire()
        known = weakref.ref(held)
        gc.disable()
        try:
            with contextlib.suppress(Unavailable):
                held.renew()
            del held
            assert known() is None
        finally:
            gc.enable()
