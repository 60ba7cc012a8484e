"""The steps that lock scenarios have in common: take, wait, let a lease end, see a loss. No scenario is in here.

Scenarios use them by the module's name, as in `await steps.until_free(kit, "a")`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any, NamedTuple

import narrowboat.aio
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.faults.sweep import Cut
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.users.children import Child
from narrowboat.errors import LeaseLost, LockTimeout, Reason, Unavailable

#: More points at which a call can be cut off than any call has.
POINTS = 5000
#: What a holder may be told whose lease ran out while its renewal, or the whole program, stood still.
RAN_OUT = (Reason.EXPIRED, Reason.PAUSED)
#: The same for a holder that is cut off from its server, which may end its session meanwhile.
CUT_OFF = (*RAN_OUT, Reason.SESSION_ENDED)
#: The same for a holder that comes back and finds the lock taken by another.
ENDED = (*CUT_OFF, Reason.TAKEN)
#: What a holder may be told whose lock was broken: not every backend can tell by whom.
BROKEN = (Reason.EVICTED, Reason.TAKEN, Reason.SESSION_ENDED)


async def evicts(kit: Kit) -> None:
    """The call that a backend without eviction refuses."""
    await kit.locks().evict("a", 1)


# -- taking and waiting -----------------------------------------------------------------------------------------------


def lock(kit: Kit, name: str = "a", *, timeout: float = 5, **terms: Any) -> narrowboat.aio.Lock:
    """The lock `name` on a connection of its own, to be held in an `async with`."""
    return kit.locks().lock(name, timeout=timeout, **terms)


async def taken(kit: Kit, name: str = "a", **terms: Any) -> Any:
    """The possession of `name`, acquired on a connection of its own."""
    return await lock(kit, name, **terms).acquire()


async def waits(kit: Kit, name: str = "a", *, timeout: float = 60, count: int = 1) -> asyncio.Task[Any]:
    """An acquire of `name` on a connection of its own, once `count` users wait for it at the backend."""
    return await kit.queued(kit.locks().lock(name).acquire(timeout=timeout), name, count)


async def started(kit: Kit, program: Callable[..., Any], event: str = "held", **arguments: Any) -> tuple[Child, dict[str, Any]]:
    """A process that runs `program` on the scenario's locks, and the `event` that it has told."""
    child = await kit.child(program, url=kit.locks_url, face=kit.face, **arguments)
    return child, await child.event(event)


async def granted_or_told(waiting: asyncio.Task[Any]) -> Any:
    """What a waiter got; or None, when an error told it that it has nothing."""
    try:
        return await waiting
    except (Unavailable, LockTimeout):
        return None


async def until_free(kit: Kit, *names: str, within: float = 5.0, what: str = "") -> None:
    """Until another connection can take each of `names`. `what` says whose end is waited for."""
    for name in names:
        free = functools.partial(kit.free, name)
        await kit.eventually(free, within=within, what=f"{name} was to be free{': ' + what if what else ''}")


async def shows(kit: Kit, name: str, *tokens: int) -> None:
    """That another connection sees holders with exactly these tokens, where the backend shows holders."""
    if kit.can("holders"):
        seen = [holder.token for holder in await kit.peek(name)]
        assert seen == [*tokens], f"holders() was to show the tokens {[*tokens]} for {name!r}, and showed {seen}"


async def stays_held(kit: Kit, held: Any, other: Any, seconds: float, why: str = "another got in beside the holder") -> None:
    """That for `seconds` `held` stays valid, and a try by `other`, a lock of the same name, finds it busy."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        held.check()
        assert await other.try_acquire() is None, why
        await kit.sleep(0.02)


async def stands_still(kit: Kit, work: Callable[..., object], *args: object) -> None:
    """Run `work` so that the holder's program stands still: its event loop, or on the sync face its thread."""
    if kit.face == "asyncio":
        work(*args)
    else:
        await kit.blocking(work, *args)


class Section:
    """What a lock guards: counts its visits, and the most users that were inside at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.visits = 0

    def __enter__(self) -> None:
        self.inside += 1
        self.visits += 1
        self.most = max(self.most, self.inside)

    def __exit__(self, *error: object) -> None:
        self.inside -= 1

    async def visit(self, turns: int = 1) -> None:
        """Be inside for so many turns of the loop, in which others could come in."""
        with self:
            for _ in range(turns):
                await asyncio.sleep(0)


async def keeps(kit: Kit, held: Any, why: str = "another can have the lock") -> None:
    """That the holder alone has the lock until it releases it, and that the lock is free then. `why` says what went wrong."""
    await kit.stays(held, why)
    await shows(kit, held.name, held.token)
    await held.release()
    assert await kit.free(held.name), f"{held.name} was released, and is held: a second grant, which nobody knows of, is left"


async def lets_go(held: Any) -> None:
    """That the holder still has the lock: it can check, renew and release it."""
    held.check()
    await held.renew()
    await held.release()


# -- driver calls that fail or stand still ------------------------------------------------------------------------------


def faulty(kit: Kit) -> tuple[Faults, narrowboat.aio.Locks]:
    """The plan of the driver calls that fail, and locks that are opened with it."""
    faults = Faults()
    return faults, kit.locks(faults=faults)


@contextlib.asynccontextmanager
async def held_up(
    kit: Kit, faults: Faults, operation: str, work: Coroutine[Any, Any, Any], *, before: bool = False
) -> AsyncIterator[asyncio.Task[Any]]:
    """A task that does `work`: its call of `operation` stands still in the block, after or `before` the driver has made it."""
    gate = faults.hold(operation, before=before)
    task = kit.spawn(work)
    assert await kit.blocking(gate.reached.wait, 10), f"no {operation} reached the driver within 10 s"
    try:
        yield task
    finally:
        gate.open()


# -- leases -----------------------------------------------------------------------------------------------------------


class Lease(NamedTuple):
    """A lease that nobody renews: it was asked for at `sent`, and answered at `granted`."""

    held: Any
    sent: float
    granted: float


async def abandoned(kit: Kit, name: str = "a", ttl: Any = None) -> Lease:
    """A short lease of `name`, or one of `ttl`, that is never renewed."""
    sent = time.monotonic()
    held = await taken(kit, name, ttl=ttl or kit.ttl, renew=False)
    return Lease(held, sent, time.monotonic())


def ended_on_time(kit: Kit, lease: Lease, why: str = "") -> float:
    """That `lease`, whose lock another has got just now, ended neither early nor late. How many seconds late it was."""
    now = time.monotonic()
    early: float = kit.excludes(lease.held.ttl) - (now - lease.sent)
    late: float = now - lease.granted - lease.held.ttl
    assert early <= 0, f"the lock was granted to another {early:.4f} s before the end of the lease{why}"
    assert late < kit.upper(kit.claims.expiry_lag), f"the lock was free {late:.3f} s after the end of the lease{why}"
    return max(0.0, late)


def died_on_time(kit: Kit, ended: float, what: str) -> None:
    """That another, which has the lock now, got it within a lease and the declared lag after its holder's process `ended`."""
    took = time.monotonic() - ended
    kit.measure(what, took)
    assert took <= kit.ttl + kit.upper(kit.claims.expiry_lag), f"{what}: it took {took:.3f} s, longer than lease and lag"


# -- losses -----------------------------------------------------------------------------------------------------------


def is_lost(
    held: Any, reasons: Collection[Reason], what: str = "the lock is lost, and its holder takes it for its own"
) -> None:
    """That the holder knows of its loss, for one of `reasons`."""
    assert held.lost, what
    assert held.reason in reasons, f"the reason of the loss is {held.reason}, and was to be one of {[*reasons]}"


async def says_lost(held: Any, reasons: Collection[Reason]) -> None:
    """That every call of a possession that is lost raises the same LeaseLost, however often it is made."""
    for call in (held.renew, held.release, held.release):
        error = await fails(LeaseLost, call())
        assert (error.name, error.token) == (held.name, held.token)
        assert error.reason in reasons, f"the error's reason is {error.reason}, and was to be one of {[*reasons]}"
    with raises(LeaseLost):
        held.check()
    assert held.expires_in == 0


async def is_told(kit: Kit, told: list[float], since: float, within: float, of: str) -> None:
    """Until a holder is told of its loss (`told` is from `kit.told_of`); how long after `since` goes into the report."""
    await kit.eventually(lambda: told, within=within, what=f"the holder was to be told of its loss: {of}")
    kit.measure(of, max(0.0, told[0] - since))


@contextlib.asynccontextmanager
async def loses(kit: Kit, held: Any, reasons: Collection[Reason], within: float, of: str) -> AsyncIterator[list[float]]:
    """The block costs the holder its lock. After it the holder is told in time, for one of `reasons`. Gives when it is told."""
    told = kit.told_of(held)
    begun = time.monotonic()
    yield told
    await is_told(kit, told, begun, within, of)
    is_lost(held, reasons)


# -- calls that are cut off -------------------------------------------------------------------------------------------


async def swept(kit: Kit, once: Callable[[int, int], Awaitable[Cut]]) -> int:
    """Run `once(point, delay)`, which cuts a call off, for each point of the call. How many points there are."""
    points = 0
    for delay in (0, 1, 3) if kit.face == "asyncio" else (0,):
        for point in range(POINTS):
            if not (await once(point, delay)).struck:
                points += point
                break
        else:
            raise AssertionError(f"a call was cut off at {POINTS} points, and has more: it does not end by itself")
    return points


async def serves_the_next(kit: Kit, other: Any, point: int, cut: Cut) -> None:
    """That `other`, the next user's lock, is granted soon after a call was cut off."""
    where = f"a call was cut off at point {point} ({cut.error})"
    with kit.within(2.0, f"{where}: the wait of the next user"):
        try:
            got = await other.acquire(timeout=kit.upper(4))
        except LockTimeout:
            raise AssertionError(f"{where}: nobody holds the lock, and the next user does not get it") from None
    await got.release()


# -- a server that does not answer ------------------------------------------------------------------------------------


async def all_end(kit: Kit, operation: float, when: str, calls: Mapping[str, Callable[[], Any]]) -> None:
    """That each of `calls` fails in time, with an error that says: try again. `operation` is the timeout of a driver's call.

    The core repeats a call once, and each time the call may find the way taken by an exchange and its repetition.
    """
    for what, call in calls.items():
        with kit.within(6 * operation + 1.0, f"{what} {when}", measure=f"{what} {when}"):
            error = await fails((Unavailable, LockTimeout), call(), what=f"{what} {when}")
        assert error.retryable, f"{what} {when}: the error says that trying again cannot help: {error!r}"
