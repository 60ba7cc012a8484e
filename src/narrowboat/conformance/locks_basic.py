"""Locks: take, hold, let go."""

from __future__ import annotations

from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import scenario


@scenario("L01")
async def takes_and_frees(kit: Kit) -> None:
    """A free lock is granted, others see that it is held, and a release makes it free."""
    locks = kit.locks()

    held = await locks.lock("a").acquire(timeout=5)

    assert held.name == "a"
    assert not held.lost
    assert not await kit.free("a")
    await held.release()
    assert await kit.free("a")
