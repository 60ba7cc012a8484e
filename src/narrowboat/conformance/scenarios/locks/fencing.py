"""Locks: fencing tokens grow, whatever happened between two holders."""

from __future__ import annotations

import json

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import successor


@scenario("L74", "L79", needs="fencing", refused=demand)
async def tokens_grow_with_each_holder(kit: LockKit) -> None:
    """Each exclusive holder of a name has a token of its own, greater than all before: an int that JSON can carry."""
    one, two = kit.locks(), kit.locks()
    seen: list[int] = []
    for number in range(30):
        async with (one if number % 3 else two).lock("a", timeout=5) as held:
            if number % 4 == 0:
                await held.renew()
            seen.append(held.token)
    _grew(seen)
    for token in seen:
        assert type(token) is int
        assert 0 <= token < 2**63
        assert json.loads(json.dumps(token)) == token


@scenario("L74", needs=("fencing", "shared"), refused=demand)
async def writers_and_readers_fence_each_other(kit: LockKit) -> None:
    """A writer after readers has a greater token than each of them, and each reader after a writer a greater one than its."""
    locks = kit.locks()
    faces = [kit.locks() for _ in range(3)]
    newest = -1
    for _ in range(4):
        async with locks.lock("a", timeout=5) as writer:
            assert writer.token > newest, f"a writer has token {writer.token}, and a holder before it had {newest}"
            newest = writer.token
        readers = [await face.lock("a", mode="shared").acquire(timeout=5) for face in faces]
        tokens = [reader.token for reader in readers]
        assert min(tokens) > newest, f"readers have the tokens {tokens}, and the writer before them had {newest}"
        newest = max(tokens)
        for reader in readers:
            await reader.release()


@scenario("L76", tier="T", needs="fencing", refused=demand)
async def tokens_grow_across_expiry_and_eviction(kit: LockKit) -> None:
    """The next token is greater after a lease that ran out, after an eviction, and after nobody used the name for a while."""
    held = await kit.taken(ttl=kit.ttl, renew=False)
    tokens = [held.token]
    held = await kit.taken(ttl=30, timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
    tokens.append(held.token)
    if kit.can("evict"):
        assert await kit.outside.evict("a", held.token)
        held = await kit.taken(timeout=kit.upper(5))
        tokens.append(held.token)
    await held.release()
    busy = kit.locks()
    for number in range(50):  # others come and go, and the backend may drop what it keeps of a name that nobody holds
        await (await busy.lock(f"other {number}").acquire(timeout=5)).release()
    await busy.close()
    for _ in range(3):
        fresh = kit.locks()
        async with fresh.lock("a", timeout=5) as held:
            tokens.append(held.token)
        await fresh.close()
    _grew(tokens)


def _grew(tokens: list[int]) -> None:
    assert tokens == sorted(set(tokens)), f"tokens were to grow from holder to holder, and were {tokens}"


@scenario("L76", tier="R", needs="fencing", refused=demand, faults={Fault.DELETE})
async def tokens_grow_across_a_deletion(kit: LockKit) -> None:
    """The next token is greater even after an operator deleted what the backend keeps of the name."""
    tokens: list[int] = []
    for _ in range(4):
        held = await kit.taken()
        tokens.append(held.token)
        await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
        await kit.until_free("a", within=kit.claims.expiry_lag + 5, what="its record was deleted")
    _grew(tokens)


@scenario("L77", tier="P", needs=("scope=host", "fencing_survives=crash"), refused=demand, faults={Fault.PROCESS})
async def tokens_grow_across_the_end_of_all_processes(kit: LockKit) -> None:
    """The next holder's token is greater even when every process that used the name has ended, by itself or killed."""
    tokens: list[int] = []
    for end in ("go", "kill", "go"):
        child = await kit.child(successor, url=kit.locks_url, face=kit.face, name="a", ttl=kit.ttl)
        told = await child.event("held", within=20 + kit.ttl + kit.claims.expiry_lag)
        tokens.append(told["token"])
        if end == "kill":
            child.kill()
        else:
            child.tell("go")
            await child.event("released")
        await child.exit()
    _grew(tokens)


@scenario("L77", tier="R", needs="fencing_survives=crash", refused=demand, faults={Fault.RESTART, Fault.KILL}, seconds=120)
async def tokens_grow_across_a_restart_of_the_server(kit: LockKit) -> None:
    """The next holder's token is greater after the server was stopped, and after it was killed, and started again."""
    tokens: list[int] = []
    for end in ("stop", "stop", "kill", "kill"):
        locks = kit.locks()
        for _ in range(5):
            async with locks.lock("a", timeout=kit.upper(30)) as held:
                tokens.append(held.token)
        await locks.close()
        await kit.blocking(getattr(kit.server, end))
        await kit.blocking(kit.server.start)
        async with kit.lock(timeout=kit.upper(30)) as held:
            tokens.append(held.token)
    _grew(tokens)
