"""Locks: fencing tokens grow, whatever happened between two holders."""

from __future__ import annotations

import json
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import successor


@scenario("L74", "L79", needs="fencing", refused=demand)
async def tokens_grow_with_each_holder(kit: Kit) -> None:
    """Each exclusive holder of a name has a token of its own, greater than all before; an int that JSON carries."""
    one, two = kit.locks(), kit.locks()
    seen: list[int] = []
    for number in range(30):
        held = await (one if number % 3 else two).lock("a").acquire(timeout=5)
        if number % 4 == 0:
            await held.renew()
        seen.append(held.token)
        await held.release()
    assert seen == sorted(set(seen)), f"tokens did not grow: {seen}"
    for token in seen:
        assert type(token) is int
        assert 0 <= token < 2**63
        assert json.loads(json.dumps(token)) == token


@scenario("L74", needs=("fencing", "shared"), refused=demand)
async def writers_and_readers_fence_each_other(kit: Kit) -> None:
    """A writer after readers has a greater token than each of them, and each reader after a writer a greater one than it."""
    locks = kit.locks()
    faces = [kit.locks() for _ in range(3)]
    newest = -1
    for _ in range(4):
        writer = await locks.lock("a").acquire(timeout=5)
        assert writer.token > newest, f"a writer has token {writer.token}, a holder before it {newest}"
        newest = writer.token
        await writer.release()
        readers = [await face.lock("a", mode="shared").acquire(timeout=5) for face in faces]
        assert all(reader.token > newest for reader in readers), f"readers {[r.token for r in readers]} after {newest}"
        newest = max(reader.token for reader in readers)
        for reader in readers:
            await reader.release()


@scenario("L76", tier="T", needs="fencing", refused=demand)
async def tokens_grow_across_expiry_and_eviction(kit: Kit) -> None:
    """The next token is greater after a lease that ran out, after an eviction, and after the name was gone for a while."""
    tokens: list[int] = []
    held = await kit.locks().lock("a", ttl=kit.ttl, renew=False).acquire(timeout=5)
    tokens.append(held.token)
    held = await kit.locks().lock("a", ttl=30).acquire(timeout=kit.upper(held.ttl + kit.claims.expiry_lag + 5))
    tokens.append(held.token)
    if await _evicted(kit, held):
        held = await kit.locks().lock("a").acquire(timeout=kit.upper(5))
        tokens.append(held.token)
    await held.release()
    busy = kit.locks()
    for number in range(50):  # others come and go: what is kept of a name that nobody holds may be dropped
        await (await busy.lock(f"other {number}").acquire(timeout=5)).release()
    await busy.close()
    for _ in range(3):
        fresh = kit.locks()
        held = await fresh.lock("a").acquire(timeout=5)
        tokens.append(held.token)
        await held.release()
        await fresh.close()
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"


async def _evicted(kit: Kit, held: Any) -> bool:
    if not kit.can("evict"):
        return False
    assert await kit.outside.evict("a", held.token)
    return True


@scenario("L76", tier="R", needs="fencing", refused=demand, faults={Fault.DELETE})
async def tokens_grow_across_a_deletion(kit: Kit) -> None:
    """The next token is greater also after somebody deleted what the backend keeps of the name."""
    tokens: list[int] = []
    for _ in range(4):
        held = await kit.locks().lock("a").acquire(timeout=5)
        tokens.append(held.token)
        await kit.blocking(kit.harness.delete, "locks", kit.namespace, "a")
        await kit.eventually(lambda: kit.free("a"), within=kit.claims.expiry_lag + 5, what="free after the deletion")
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"


@scenario("L77", tier="P", needs=("scope=host", "fencing_survives=crash"), refused=demand, faults={Fault.PROCESS})
async def tokens_grow_across_the_end_of_all_processes(kit: Kit) -> None:
    """When every process that used a name has ended, by itself or killed, the next holder's token is greater all the same."""
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
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"


@scenario("L77", tier="R", needs="fencing_survives=crash", refused=demand, faults={Fault.RESTART})
async def tokens_grow_across_a_restart(kit: Kit) -> None:
    """After the server was stopped and started again, the next holder's token is greater."""
    await _across(kit, "stop")


@scenario("L77", tier="R", needs="fencing_survives=crash", refused=demand, faults={Fault.KILL})
async def tokens_grow_across_a_kill_of_the_server(kit: Kit) -> None:
    """After the server was killed and started again, the next holder's token is greater."""
    await _across(kit, "kill")


async def _across(kit: Kit, end: str) -> None:
    tokens: list[int] = []
    for _ in range(2):
        locks = kit.locks()
        for _ in range(5):
            held = await locks.lock("a").acquire(timeout=kit.upper(30))
            tokens.append(held.token)
            await held.release()
        await locks.close()
        await kit.blocking(getattr(kit.server, end))
        await kit.blocking(kit.server.start)
    held = await kit.locks().lock("a").acquire(timeout=kit.upper(30))
    tokens.append(held.token)
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"
    await held.release()
