"""Locks: shared and exclusive, semaphores."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.lock_kit import LockKit, Section
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import holder
from narrowboat.errors import AlreadyHeld, Conflict, InvalidArgument, LockTimeout


async def _locks_shared(kit: LockKit) -> None:
    kit.locks().lock("a", mode="shared")


async def _locks_a_semaphore(kit: LockKit) -> None:
    kit.locks().lock("a", limit=3)


@scenario("L108", needs="shared", refused=_locks_shared)
async def readers_together_writers_alone(kit: LockKit) -> None:
    """Readers hold together, a writer alone; each waits for the other, and is granted the lock when the last holder leaves."""
    faces = [kit.locks() for _ in range(3)]
    readers = [await face.lock("a", mode="shared").acquire(timeout=5) for face in faces]
    assert await kit.outside.lock("a").try_acquire() is None, "a writer got in among readers"
    writing = await kit.waits()
    for reader in readers:
        assert not writing.done(), "a writer got in among readers"
        await kit.lets_go(reader)
    writer = await kit.soon(writing)
    assert await faces[0].lock("a", mode="shared").try_acquire() is None, "a reader got in beside a writer"
    assert await faces[0].lock("a").try_acquire() is None, "a writer got in beside a writer"
    reading = [kit.spawn(face.lock("a", mode="shared").acquire(timeout=60)) for face in faces]
    await kit.until_waiting("a")
    await writer.release()
    for reader in await kit.soon(asyncio.gather(*reading)):
        await reader.release()
    assert await kit.free("a")


@scenario("L108", tier="T", alone=True, needs="shared", refused=_locks_shared)
async def a_release_wakes_all_readers(kit: LockKit) -> None:
    """A writer's release wakes every reader that waits, of several connections: they come in together, not one by one."""
    faces = [kit.locks() for _ in range(6)]
    for _ in range(3):
        writer = await kit.taken()
        reading = []
        for count, face in enumerate(faces, 1):
            reading.append(await kit.queued(face.lock("a", mode="shared").acquire(timeout=60), "a", count))
        begun = time.monotonic()
        await writer.release()
        readers = await asyncio.gather(*reading)
        took = time.monotonic() - begun
        kit.measure("wake-up of six readers after a writer's release", took)
        assert took < kit.upper(kit.claims.wake_bound), f"the last of six readers came in {took:.3f} s after the release"
        for reader in readers:
            await reader.release()


@scenario("L108", tier="S", needs="shared", refused=_locks_shared, seconds=120)
async def readers_cost_each_other_nothing(kit: LockKit) -> None:
    """Readers of eight connections come, renew and leave at once, many times: none ends another's lease, or brings it back."""

    async def reads(locks: Any, name: str) -> None:
        for _ in range(5):
            reader = await locks.lock(name, mode="shared", ttl=60).acquire(timeout=30)
            await reader.renew()
            await reader.release()

    faces = [kit.locks() for _ in range(8)]
    for turn in range(max(5, int(20 * kit.size))):
        await kit.together(*(reads(locks, f"a{turn}") for locks in faces))
        assert await kit.free(f"a{turn}"), "a reader is left after all have released"


@scenario("L109", needs="semaphore", refused=_locks_a_semaphore, faults={Fault.REPLY})
async def one_conflict_spoils_no_other(kit: LockKit) -> None:
    """Of several callers whose attempts go out together, one disagrees about a size: it alone gets Conflict."""
    held = await kit.taken("s", limit=2)
    faults, locks = kit.faulty()
    await (await locks.lock("first").acquire(timeout=5)).release()
    async with kit.held_up(faults, "attempt", locks.lock("first").acquire(timeout=30), before=True) as first:
        others = [kit.spawn(locks.lock(f"a{n}").acquire(timeout=30)) for n in range(3)]
        wrong = kit.spawn(locks.lock("s", limit=3).acquire(timeout=30))
        others += [kit.spawn(locks.lock(f"b{n}").acquire(timeout=30)) for n in range(3)]
        await kit.sleep(0.2)  # until all of them wait for the one exchange that is under way
    await fails(Conflict, wrong)
    for waiting in (first, *others):
        await (await kit.soon(waiting)).release()
    await held.release()


@scenario("L108", needs="shared", refused=_locks_shared)
async def a_waiting_writer_is_not_starved(kit: LockKit) -> None:
    """While a writer waits no new reader gets in, and so its turn comes; when the writer gives up, readers get in again."""
    first = await kit.taken(mode="shared")
    late = kit.locks().lock("a", mode="shared")
    writing = await kit.waits()
    assert await late.try_acquire() is None, "a new reader got in before a waiting writer"
    await fails(LockTimeout, late.acquire(timeout=0.1))
    await kit.cancel(writing)
    second = await kit.soon(late.acquire(timeout=30))
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
            while not visits or time.monotonic() < stop:  # once at least: on a busy machine it may begin after `stop`
                async with kit.outside.lock("a", timeout=kit.upper(5)):
                    visits.append(time.monotonic())
        except LockTimeout:
            raise AssertionError("readers that overlap starved the writer") from None
        finally:
            over.append(True)

    await first.release()
    await second.release()
    await kit.together(writes(), *(reads(kit.locks()) for _ in range(3)))


@scenario("L108", needs="shared", refused=_locks_shared)
async def nobody_is_upgraded(kit: LockKit) -> None:
    """A holder of a name shared that asks for it exclusively, or the reverse, is refused at once, without a wait for itself."""
    locks = kit.locks()
    for have, want in (("shared", "exclusive"), ("exclusive", "shared")):
        held = await locks.lock("a", mode=have).acquire(timeout=5)  # type: ignore[arg-type]  # one of the two words
        with kit.within(1.0, "the holder waited for itself"), raises(AlreadyHeld):
            await locks.lock("a", mode=want).acquire(timeout=30)  # type: ignore[arg-type]  # one of the two words
        await kit.lets_go(held)
    with raises(InvalidArgument):
        locks.lock("a", mode="write")  # type: ignore[arg-type]  # wrong on purpose
    assert await kit.free("a")


@scenario("L109", needs="semaphore", refused=_locks_a_semaphore)
async def a_semaphore_has_n_permits(kit: LockKit) -> None:
    """A semaphore of n lets n users in and no more; a released permit goes to a waiter, and one user may take all permits."""
    faces = [kit.locks() for _ in range(4)]
    lock = [face.lock("a", limit=3) for face in faces]
    held = [await each.acquire(timeout=5) for each in lock[:3]]
    assert len({each.token for each in held}) == 3
    assert await lock[3].try_acquire() is None, "a fourth user got into a semaphore of 3"
    waiting = await kit.queued(lock[3].acquire(timeout=60), "a")
    await held.pop().release()
    for each in (*held, await kit.soon(waiting)):
        await each.release()
    one = kit.locks().lock("a", limit=3)
    permits = [await one.try_acquire() for _ in range(4)]
    assert [each is not None for each in permits] == [True, True, True, False]
    for permit in filter(None, permits):
        await permit.release()
    assert await kit.free("a")


@scenario("L109", tier="S", needs="semaphore", refused=_locks_a_semaphore)
async def never_more_than_n(kit: LockKit) -> None:
    """Of twenty contenders for a semaphore of three, at most three are inside, at some time three are, and all get in."""
    faces, section, rounds = [kit.locks() for _ in range(4)], Section(), max(2, int(10 * kit.size))

    async def work(number: int) -> None:
        for _ in range(rounds):
            async with faces[number % 4].lock("a", limit=3, timeout=60):
                with section:  # the first users stay until there are three
                    await kit.eventually(lambda: section.most >= 3, within=30, what="three users inside")
                    await asyncio.sleep(0.001)

    await kit.together(*(work(number) for number in range(20)))
    assert section.visits == 20 * rounds
    assert section.most == 3, f"{section.most} users were inside a semaphore of 3"


@scenario("L109", needs="semaphore", refused=_locks_a_semaphore)
async def who_disagrees_on_n_is_refused(kit: LockKit) -> None:
    """A user that asks for another size, or another mode, of a name that is held is refused; a free name takes any size."""
    locks, other = kit.locks(), kit.locks()
    async with locks.lock("a", limit=3, timeout=5) as held:
        for limit in (2, 4, None):
            await fails(Conflict, other.lock("a", limit=limit).acquire(timeout=5), what=f"limit={limit} beside limit=3")
        held.check()
        await (await other.lock("a", limit=3).acquire(timeout=5)).release()
    await (await other.lock("a", limit=2).acquire(timeout=5)).release()
    for nonsense in (0, -1, 1.5, True, "3", 10**9):
        with raises(InvalidArgument, what=f"limit={nonsense!r}"):
            locks.lock("a", limit=nonsense)  # type: ignore[arg-type]  # wrong on purpose
    with raises(InvalidArgument):
        locks.lock("a", limit=3, mode="shared")


@scenario("L109", tier="T", needs="semaphore", refused=_locks_a_semaphore)
async def permits_of_the_dead_come_back(kit: LockKit) -> None:
    """Permits whose holders went away without a release come back with the end of their leases, each by itself."""
    sent = time.monotonic()
    left = [await kit.taken(limit=3, ttl=kit.ttl, renew=False) for _ in range(2)]
    kept = await kit.taken(limit=3, ttl=max(kit.ttl, 2.0))
    lock = kit.locks().lock("a", limit=3, ttl=30)
    got = [await lock.acquire(timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 5)) for _ in range(2)]
    assert time.monotonic() - sent >= kit.excludes(left[0].ttl), "a permit came back before its lease had ended"
    kept.check()
    assert await lock.try_acquire() is None, "one permit too many came back"
    for each in (*got, kept):
        await each.release()


@scenario("L109", tier="P", needs=("scope=host", "semaphore"), refused=demand, faults={Fault.PROCESS}, seconds=120)
async def a_crash_returns_permits(kit: LockKit) -> None:
    """The permit of a killed process comes back no later than its lease and the declared lag."""
    async with kit.lock(limit=2, ttl=60):
        child, _ = await kit.started(holder, name="a", ttl=kit.ttl, limit=2)
        assert await kit.locks().lock("a", limit=2).try_acquire() is None
        killed = child.kill()
        async with kit.lock(limit=2, timeout=kit.upper(kit.ttl + kit.claims.expiry_lag + 20)):
            kit.died_on_time(killed, "kill of a holder to the next grant of its permit")
