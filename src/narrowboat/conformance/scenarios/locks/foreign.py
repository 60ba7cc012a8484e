"""Locks: records that another program has written, or damaged, among those of Narrowboat."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Conflict


@scenario("L120", faults={Fault.FOREIGN}, seconds=240)
async def a_foreign_record_concerns_its_own_name_alone(kit: LockKit) -> None:
    """A foreign record is a Conflict for its own name alone; it is shown as foreign, and can be evicted."""
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
    await kit.lets_go(ours)


async def _concerns_nobody_else(kit: LockKit, name: str) -> None:
    """A wait and a try for `name` are refused; acquires of other names in the same batch are served."""
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
    assert not error.retryable, "the error says: try again; but the record stays"
    assert name in str(error), f"the error does not name {name!r}: {error}"


async def _is_evicted(kit: LockKit, name: str) -> None:
    """An eviction by another token changes nothing; by the token that is shown it frees the name for everybody."""
    shown = await kit.peek(name)
    wrong = next(number for number in range(1, 1000) if number not in {h.token for h in shown})
    assert not await kit.outside.evict(name, wrong), f"{name} was evicted by a token that nobody has"
    for holder in shown:
        assert await kit.outside.evict(name, holder.token), f"evict() does not find {name}"
    assert not await kit.peek(name), f"{name} is evicted, and still shown"
    await _takes_and_gives(kit.locks().lock(name, ttl=60))
