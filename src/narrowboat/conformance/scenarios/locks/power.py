"""Locks: a loss of power, at any moment of what holders and waiters do."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario


@scenario("L132", tier="S", alone=True, needs="survives=power", refused=demand, faults={Fault.POWER}, seconds=240)
async def power_is_lost_while_locks_change_hands(kit: LockKit) -> None:
    """After a loss of power at any moment no grant that was told is doubled, no release that was told is undone."""
    rounds = max(6, int(16 * kit.size))
    recording = await kit.blocking(kit.harness.recorded, kit.locks_url)
    one, two = kit.locks(url=recording.url), kit.locks(url=recording.url)
    granted: list[tuple[str, int, int]] = []  # name, token, when it was told
    releasing: dict[tuple[str, int], int] = {}
    released: dict[tuple[str, int], int] = {}

    def note(held: Any) -> Any:
        granted.append((held.name, held.token, recording.now()))
        return held

    async def let_go(held: Any) -> None:
        releasing[held.name, held.token] = recording.now()
        await held.release()
        released[held.name, held.token] = recording.now()

    for turn in range(rounds):
        name = f"a{turn}"
        held = note(await one.lock(name, ttl=3600).acquire(timeout=10))
        if turn % 3 == 0:
            continue  # it is held to the end
        waiting = await kit.queued(two.lock(name, ttl=3600).acquire(timeout=60), name)
        await let_go(held)
        second = note(await waiting)
        if turn % 3 == 1:
            await let_go(second)
    cuts = 0
    moments = {*(at for *_, at in granted), *released.values()}
    for moment, url in recording.cuts(moments, max(10, int(20 * kit.size)), seed=132):
        after = kit.locks(url=url)
        for name in dict.fromkeys(name for name, *_ in granted):
            told = [token for each, token, at in granted if each == name and at <= moment]
            if not told:
                continue
            begun, ended = releasing.get((name, told[-1])), released.get((name, told[-1]))
            shown = [holder.token for holder in await after.holders(name)] if kit.can("holders") else [told[-1]]
            tried = await after.lock(name, ttl=3600).try_acquire()
            when = f"after a loss of power at {moment} {name!r}, granted with {told[-1]},"
            if begun is None or begun > moment:
                assert tried is None, f"{when} and not released, was granted to another"
                assert told[-1] in shown, f"{when} and not released, has no holder"
            elif ended is not None and ended <= moment and not _asked_again(granted, name, moment):
                assert tried is not None, f"{when} was released, and is taken"
            assert tried is None or tried.token > told[-1], f"{when} was granted again with {tried.token}"
        await after.close()
        cuts += 1
    kit.measure("moments at which power was lost", cuts, "cuts")
    assert cuts >= 10, f"only {cuts} moments could be tried"


def _asked_again(granted: list[tuple[str, int, int]], name: str, moment: int) -> bool:
    """Whether a grant of `name` was told after `moment`: it may have been made before."""
    return any(each == name and at > moment for each, _, at in granted)
