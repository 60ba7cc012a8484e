"""Locks: the first users of a place that nobody has used."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import scenario

USERS = 16


@scenario("L129")
async def many_first_users_of_one_lock(kit: Kit) -> None:
    """Many users, each on a connection of its own, make their first call at once where nobody has been: all take turns."""
    url = kit.harness.fresh_url("locks", kit.namespace)
    inside: list[int] = []
    tokens: list[int] = []

    async def first(number: int, locks: Any) -> None:
        async with locks.lock("a", ttl=60, timeout=kit.upper(30)) as held:
            inside.append(number)
            assert inside == [number], f"users {inside} are inside at once"
            tokens.append(held.token)
            inside.remove(number)

    await kit.together(*(first(number, kit.locks(url=url, timeout=30)) for number in range(USERS)))
    assert len(tokens) == USERS
    if kit.can("fencing"):
        assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"
