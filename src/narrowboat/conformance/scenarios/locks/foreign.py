"""Locks: records that another program has left, or damaged, where ours are."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Conflict


@scenario("L120", faults={Fault.FOREIGN}, seconds=240)
async def a_foreign_record_concerns_its_own_name_alone(kit: Kit) -> None:
    """A record that is not ours gives Conflict for its name alone, is shown as foreign, can be evicted; others go on."""
    locks = kit.locks()
    ours = await locks.lock("ours", ttl=60).acquire(timeout=10)
    planted: list[str] = []
    while await kit.blocking(kit.harness.plant_record, kit.namespace, f"theirs-{len(planted)}", len(planted)):
        planted.append(f"theirs-{len(planted)}")
    assert planted, "the harness plants nothing"
    kit.measure("kinds of foreign records", len(planted), "kinds")

    for name in planted:
        await _concerns_nobody_else(kit, name)
    everything = await locks.holders()
    assert {h.name for h in everything if h.foreign} == set(planted), f"shown are {everything}"
    assert [(h.name, h.token) for h in everything if not h.foreign] == [("ours", ours.token)], f"shown are {everything}"
    await ours.renew()
    for name in planted:
        await _is_evicted(kit, name)
    assert [h.name for h in await locks.holders()] == ["ours"]
    ours.check()
    await ours.release()


async def _concerns_nobody_else(kit: Kit, name: str) -> None:
    """Who asks for it is refused, by a wait and by a try; who asks for other names in the same batch is served."""
    locks = kit.locks()
    beside = [_takes_and_gives(locks.lock(f"{name}-{number}", ttl=60)) for number in range(4)]
    await kit.together(_is_refused(locks.lock(name, ttl=60).acquire(timeout=10), name), *beside)
    await _is_refused(locks.lock(name, ttl=60).try_acquire(), name)
    shown = await kit.peek(name)
    assert shown and all(h.foreign and h.name == name for h in shown), f"{name} is shown as {shown}"
    assert all(0 <= h.token < 2**63 for h in shown), f"nobody can evict one of {shown}"


async def _takes_and_gives(lock: Any) -> None:
    held = await lock.acquire(timeout=10)
    await held.release()


async def _is_refused(asked: Awaitable[object], name: str) -> None:
    error = await fails(Conflict, asked, what=f"{name}, which another program has written to")
    assert not error.retryable, "trying again does not help: the record stays"
    assert name in str(error), f"does not say which: {error}"


async def _is_evicted(kit: Kit, name: str) -> None:
    """Another token's eviction changes nothing; by the token that is shown it goes, and the name is as any other."""
    shown = await kit.peek(name)
    wrong = next(number for number in range(1, 1000) if number not in {h.token for h in shown})
    assert not await kit.outside.evict(name, wrong), f"{name} was evicted by a token that nobody has"
    for holder in shown:
        assert await kit.outside.evict(name, holder.token), f"{name} is not there for evict()"
    assert not await kit.peek(name), f"{name} is evicted, and still there"
    await _takes_and_gives(kit.locks().lock(name, ttl=60))
