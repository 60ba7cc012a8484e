"""Locks: the first users of a place that nobody has used."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.lock_kit import LockKit, Section
from narrowboat.conformance.scenario import scenario

USERS = 16


@scenario("L129")
async def many_first_users_of_one_lock(kit: LockKit) -> None:
    """Many users, each on a connection of its own, make the first calls ever to a place at once, and all take turns."""
    url = kit.harness.fresh_url("locks", kit.namespace)
    section = Section()
    tokens: list[int] = []

    async def first(locks: Any) -> None:
        async with locks.lock("a", ttl=60, timeout=kit.upper(30)) as held:
            await section.visit()
            tokens.append(held.token)

    await kit.together(*(first(kit.locks(url=url, timeout=30)) for _ in range(USERS)))
    assert section.most == 1, f"{section.most} users were inside at once"
    assert section.visits == USERS
    if kit.can("fencing"):
        assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"
