"""Locks: shared and exclusive, semaphores."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import holder
from narrowboat.errors import AlreadyHeld, Conflict, InvalidArgument, LockTimeout


async def _asks_for_a_shared_lock(kit: Kit) -> None:
    kit.locks().lock("a", mode="shared")


async def _asks_for_a_semaphore(kit: Kit) -> None:
    kit.locks().lock("a", limit=3)


@scenario("L108", needs="shared", refused=_asks_for_a_shared_lock)
async def readers_together_writers_alone(kit: Kit) -> None:
    """Readers hold together, a writer alone; each waits for the other, and is let in as soon as the last one leaves."""
    faces = [kit.locks() for _ in range(3)]
    readers = [await face.lock("a", mode="shared").acquire(timeout=5) for face in faces]
    assert await kit.outside.lock("a").try_acquire() is None, "a writer got in among readers"
    writing = await kit.queued(kit.locks().lock("a").acquire(timeout=60), "a")
    for reader in readers:
        assert not writing.done(), "a writer got in among readers"
        reader.check()
        await reader.release()
    writer = await kit.soon(writing)
    assert await faces[0].lock("a", mode="shared").try_acquire() is None, "a reader got in beside a writer"
    assert await faces[0].lock("a").try_acquire() is None, "a writer got in beside a writer"
    reading = [kit.spawn(face.lock("a", mode="shared").acquire(timeout=60)) for face in faces]
    await kit.until_waiting("a")
    await writer.release()
    async with asyncio.timeout(kit.upper(5)):
        readers = [await each for each in reading]
    for reader in readers:
        await reader.release()
    assert await kit.free("a")


@scenario("L108", needs="shared", refused=_asks_for_a_shared_lock)
async def a_waiting_writer_is_not_starved(kit: Kit) -> None:
    """While a writer waits no new reader gets in, so that the writer's turn comes; a writer that gives up lets them in."""
    first = await kit.locks().lock("a", mode="shared").acquire(timeout=5)
    late = kit.locks()
    writing = await kit.queued(kit.locks().lock("a").acquire(timeout=60), "a")
    assert await late.lock("a", mode="shared").try_acquire() is None, "a new reader got in before a waiting writer"
    await fails(LockTimeout, late.lock("a", mode="shared").acquire(timeout=0.1))
    await kit.cancel(writing)
    async with asyncio.timeout(kit.upper(5)):
        second = await late.lock("a", mode="shared").acquire(timeout=30)
    stop = time.monotonic() + 0.5 * kit.size + 0.2

    visits: list[float] = []
    over: list[bool] = []

    async def reads(locks: Any) -> None:
        while not over:
            try:
                async with locks.lock("a", mode="shared", timeout=kit.upper(5)):
                    await asyncio.sleep(0.002)
            except LockTimeout:
                raise AssertionError("a reader was starved") from None

    async def writes() -> None:
        try:
            while not visits or time.monotonic() < stop:  # once at least: it may begin late on a busy machine
                async with kit.outside.lock("a", timeout=kit.upper(5)):
                    visits.append(time.monotonic())
        except LockTimeout:
            raise AssertionError("readers that overlap starved the writer") from None
        finally:
            over.append(True)

    await first.release()
    await second.release()
    await kit.together(writes(), *(reads(kit.locks()) for _ in range(3)))


@scenario("L108", needs="shared", refused=_asks_for_a_shared_lock)
async def nobody_is_upgraded(kit: Kit) -> None:
    """Who holds a name shared and asks for it exclusively, or the reverse, is told at once instead of waiting for itself."""
    locks = kit.locks()
    for have, want in (("shared", "exclusive"), ("exclusive", "shared")):
        held = await locks.lock("a", mode=have).acquire(timeout=5)  # type: ignore[arg-type]  # one of the two words
        with kit.within(1.0, "it waited for itself"), raises(AlreadyHeld):
            await locks.lock("a", mode=want).acquire(timeout=30)  # type: ignore[arg-type]  # one of the two words
        held.check()
        await held.release()
    with raises(InvalidArgument):
        locks.lock("a", mode="write")  # type: ignore[arg-type]  # wrong on purpose
    assert await kit.free("a")


@scenario("L109", needs="semaphore", refused=_asks_for_a_semaphore)
async def a_semaphore_has_n_permits(kit: Kit) -> None:
    """A semaphore of n lets n in and no more; a permit that is given back goes to who waits, and all can be drained."""
    faces = [kit.locks() for _ in range(4)]
    lock = [face.lock("a", limit=3) for face in faces]
    held = [await each.acquire(timeout=5) for each in lock[:3]]
    assert len({each.token for each in held}) == 3
    assert await lock[3].try_acquire() is None, "a fourth got in"
    waiting = await kit.queued(lock[3].acquire(timeout=60), "a")
    await held.pop().release()
    async with asyncio.timeout(kit.upper(5)):
        held.append(await waiting)
    for each in held:
        await each.release()
    one = kit.locks().lock("a", limit=3)
    drained = [await one.try_acquire() for _ in range(4)]  # one user may hold all permits: they belong to nobody
    assert [each is not None for each in drained] == [True, True, True, False]
    for permit in drained[:3]:
        assert permit is not None
        await permit.release()
    assert await kit.free("a")


@scenario("L109", tier="S", needs="semaphore", refused=_asks_for_a_semaphore)
async def never_more_than_n(kit: Kit) -> None:
    """Twenty contenders for a semaphore of three: never more than three inside, at some time three, and all get in."""
    faces = [kit.locks() for _ in range(4)]
    inside = most = visits = 0
    full = asyncio.Event()

    async def work(number: int) -> None:
        nonlocal inside, most, visits
        for _ in range(max(2, int(10 * kit.size))):
            async with faces[number % 4].lock("a", limit=3, timeout=60):
                inside += 1
                visits += 1
                most = max(most, inside)
                if inside == 3:
                    full.set()
                await asyncio.wait_for(full.wait(), kit.upper(30))  # the first stay until there are three
                await asyncio.sleep(0.001)
                inside -= 1

    await kit.together(*(work(number) for number in range(20)))
    assert visits == 20 * max(2, int(10 * kit.size))
    assert most == 3, f"{most} inside a semaphore of 3"


@scenario("L109", needs="semaphore", refused=_asks_for_a_semaphore)
async def who_disagrees_on_n_is_refused(kit: Kit) -> None:
    """Who asks for another size, or another mode, while the name is held is refused; when it is free, any size will do."""
    locks, other = kit.locks(), kit.locks()
    held = await locks.lock("a", limit=3).acquire(timeout=5)
    for limit in (2, 4, None):
        await fails(Conflict, other.lock("a", limit=limit).acquire(timeout=5), what=f"limit={limit} beside limit=3")
    held.check()
    same = await other.lock("a", limit=3).acquire(timeout=5)
    await same.release()
    await held.release()
    other_size = await other.lock("a", limit=2).acquire(timeout=5)
    await other_size.release()
    for nonsense in (0, -1, 1.5, True, "3", 10**9):
        with raises(InvalidArgument, what=f"limit={nonsense!r}"):
            locks.lock("a", limit=nonsense)  # type: ignore[arg-type]  # wrong on purpose
    with raises(InvalidArgument):
        locks.lock("a", limit=3, mode="shared")


@scenario("L109", tier="T", needs="semaphore", refused=_asks_for_a_semaphore)
async def permits_of_the_dead_come_back(kit: Kit) -> None:
    """Permits whose holders went away without a release come back with the end of their leases, each by itself."""
    sent = time.monotonic()
    left = [await kit.locks().lock("a", limit=3, ttl=kit.ttl, renew=False).acquire(timeout=5) for _ in range(2)]
    kept = await kit.locks().lock("a", limit=3, ttl=max(kit.ttl, 2.0)).acquire(timeout=5)
    lock = kit.locks().lock("a", limit=3, ttl=30)
    got = [await lock.acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 5)) for _ in range(2)]
    assert time.monotonic() - sent >= kit.excludes(left[0].ttl), "a permit came back before its lease had ended"
    kept.check()
    assert await lock.try_acquire() is None, "one permit too many came back"
    for each in (*got, kept):
        await each.release()


@scenario("L109", tier="P", needs=("scope=host", "semaphore"), refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_crash_returns_permits(kit: Kit) -> None:
    """The permit of a process that was killed comes back no later than its lease and the declared lag."""
    mine = await kit.locks().lock("a", limit=2, ttl=60).acquire(timeout=5)
    child = await kit.child(holder, url=kit.locks_url, face=kit.face, name="a", ttl=kit.ttl, limit=2)
    await child.event("held")
    assert await kit.locks().lock("a", limit=2).try_acquire() is None
    killed = child.kill()
    got = await kit.locks().lock("a", limit=2).acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 20))
    took = time.monotonic() - killed
    assert took <= kit.ttl + kit.upper(kit.claims.expiry_lag), f"a killed holder's permit came back after {took:.3f} s"
    await got.release()
    await mine.release()
