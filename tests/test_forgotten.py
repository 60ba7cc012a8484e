"""What a caller has let go of is let go of here too: no queue, thread or batch keeps a possession alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Never

import pytest

import narrowboat
import narrowboat.aio
from narrowboat.clock import ManualClock
from narrowboat.contract import Grant
from narrowboat.errors import LockTimeout, NarrowboatError, Unavailable
from narrowboat.events import Event, RenewalFailed
from narrowboat.layers.passing import PassingLocks


@pytest.mark.usefixtures("no_collector")
def test_a_forgotten_possession_is_gone_at_once() -> None:
    """A possession is part of no cycle: whoever drops it need not wait for the garbage collector to be rid of it."""

    def take_and_forget(locks: narrowboat.Locks, how: str) -> weakref.ref[narrowboat.Held]:
        return weakref.ref(getattr(locks.lock("a"), how)())

    with narrowboat.locks("memory://test-forgotten-sync") as locks:
        for how in ("acquire", "try_acquire"):
            reference = take_and_forget(locks, how)
            assert reference() is None, gc.get_referrers(reference())
            (holder,) = locks.holders("a")
            assert locks.evict("a", holder.token)


@pytest.mark.usefixtures("no_collector")
def test_a_failed_acquire_is_gone_with_its_error() -> None:
    """Nor is the acquire that failed: its error, with all frames of it, is rid of when its handler ends."""

    def fail(lock: narrowboat.Lock) -> weakref.ref[LockTimeout]:
        try:
            lock.acquire(timeout=0.001)
        except LockTimeout as error:
            return weakref.ref(error)
        raise AssertionError("nobody else had it")

    with narrowboat.locks("memory://test-failed") as locks, narrowboat.locks("memory://test-failed") as other, other.lock("a"):
        assert fail(locks.lock("a"))() is None


@pytest.mark.usefixtures("no_collector")
def test_a_forgotten_possession_is_gone_at_once_on_the_asyncio_face() -> None:
    """Nor does the lane's thread keep the last batch that it carried while it waits for the next one."""

    async def main() -> None:
        async with narrowboat.aio.locks("memory://test-forgotten") as locks:

            async def take_and_forget() -> weakref.ref[narrowboat.aio.Held]:
                return weakref.ref(await locks.lock("a").acquire(timeout=5))

            reference = await take_and_forget()
            for _ in range(500):  # the thread lets go a moment after it has told us
                if reference() is None:
                    break
                await asyncio.sleep(0.01)
            assert reference() is None, gc.get_referrers(reference())

    asyncio.run(main())


@pytest.mark.usefixtures("no_collector")
def test_a_forgotten_possession_whose_renewal_failed_is_gone_at_once() -> None:
    """Nor does the error of its renewal keep it, which leads to the lane's batch: it would be renewed again and again."""
    failed = threading.Event()

    class Failing(PassingLocks):
        def renew(self, grants: Sequence[Grant]) -> Never:
            raise Unavailable("no reply")

    def listen(event: Event) -> None:
        if isinstance(event, RenewalFailed):
            failed.set()

    clock, gone = ManualClock(), threading.Event()
    with narrowboat.locks("memory://test-renewal-failed", clock=clock, wrap=Failing, listeners=[listen]) as locks:
        held = locks.lock("a", ttl=30).acquire()
        reference = weakref.ref(held, lambda _: gone.set())
        clock.advance(11)
        assert failed.wait(10)
        del held
        assert gone.wait(10), gc.get_referrers(reference())


class _Torn(BaseException):
    """What a driver may let pass by mistake."""


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("call", ["renew", "release"])
@pytest.mark.parametrize("error", [Unavailable, _Torn])
@pytest.mark.usefixtures("no_collector")
def test_what_failed_on_the_asyncio_face_keeps_nothing(together: int, call: str, error: type[BaseException]) -> None:
    """Neither the future that brought the error nor the lane's batch stands in a circle with it and the possession."""

    class Failing(PassingLocks):
        def renew(self, grants: Sequence[Grant]) -> Never:
            raise error("no reply")

        release = renew

    async def main() -> None:
        async with narrowboat.aio.locks(f"memory://{call}-{error.__name__}-{together}", wrap=Failing) as locks:

            async def fail_and_forget(name: str) -> tuple[asyncio.Event, weakref.ref[narrowboat.aio.Held]]:
                gone = asyncio.Event()
                held = await locks.lock(name, renew=False).acquire(timeout=5)
                with contextlib.suppress(NarrowboatError):
                    await getattr(held, call)()
                return gone, weakref.ref(held, lambda _: loop.call_soon_threadsafe(gone.set))

            loop = asyncio.get_running_loop()
            for gone, reference in await asyncio.gather(*map(fail_and_forget, "abc"[:together])):
                try:
                    await asyncio.wait_for(gone.wait(), 5)  # the lane's thread lets go a moment after it has told us
                except TimeoutError:
                    pytest.fail(f"kept by {gc.get_referrers(reference())}")

    asyncio.run(main())


def test_a_failed_acquire_of_all_has_freed_everything_when_its_caller_hears_of_it() -> None:
    """On the asyncio face as on the sync one: what was taken before the busy one is free again, not only soon."""

    async def main() -> None:
        url = "memory://test-all"
        async with narrowboat.aio.locks(url) as locks, narrowboat.aio.locks(url) as other, other.lock("c"):
            for _ in range(50):
                assert await locks.all("a", "b", "c").try_acquire() is None
                assert [holder.name for holder in await other.holders()] == ["c"]

    asyncio.run(main())
