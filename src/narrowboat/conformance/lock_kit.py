"""What a scenario about locks is handed: the kit, and the steps that many of these scenarios take.

The steps take a lock, wait for one, let a lease end, cost a holder its lock, and cut calls off. A step that only the scenarios
of one file take stands in that file.
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
from narrowboat.contract import Holder
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

    async def visit(self, turns: int = 1, stay: float = 0.0) -> None:
        """Be inside for so many turns of the loop, in which others could come in, and for `stay` seconds."""
        with self:
            for _ in range(turns):
                await asyncio.sleep(0)
            if stay:
                await asyncio.sleep(stay)


class Lease(NamedTuple):
    """A lease that nobody renews: it was asked for at `sent`, and answered at `granted`."""

    held: Any
    sent: float
    granted: float


class LockKit(Kit):
    """See the module's text."""

    # -- taking and waiting --------------------------------------------------------------------------------------------

    def lock(self, name: str = "a", *, timeout: float = 5, **terms: Any) -> narrowboat.aio.Lock:
        """The lock `name` on a connection of its own, to be held in an `async with`."""
        return self.locks().lock(name, timeout=timeout, **terms)

    async def taken(self, name: str = "a", **terms: Any) -> Any:
        """The possession of `name`, acquired on a connection of its own."""
        return await self.lock(name, **terms).acquire()

    async def waits(self, name: str = "a", *, timeout: float = 60, count: int = 1) -> asyncio.Task[Any]:
        """An acquire of `name` on a connection of its own, once `count` users wait for it at the backend."""
        return await self.queued(self.locks().lock(name).acquire(timeout=timeout), name, count)

    async def started(self, program: Callable[..., Any], event: str = "held", **arguments: Any) -> tuple[Child, dict[str, Any]]:
        """A process that runs `program` on the scenario's locks, and the `event` that it has told."""
        child = await self.child(program, url=self.locks_url, face=self.face, **arguments)
        return child, await child.event(event)

    @staticmethod
    async def granted_or_told(waiting: asyncio.Task[Any]) -> Any:
        """What a waiter got; or None, when an error told it that it has nothing."""
        try:
            return await waiting
        except (Unavailable, LockTimeout):
            return None

    async def until_free(self, *names: str, within: float = 5.0, what: str = "") -> None:
        """Wait until another connection can take each of `names`. `what` says why it should."""
        for name in names:
            free = functools.partial(self.free, name)
            await self.eventually(free, within=within, what=f"{name} was to be free{': ' + what if what else ''}")

    async def holder(self, name: str) -> Holder:
        """The one holder of `name` that another connection sees."""
        seen = await self.peek(name)
        assert len(seen) == 1, f"holders() was to show one holder of {name!r}, and showed {seen}"
        return seen[0]

    async def shows(self, name: str, *tokens: int) -> None:
        """Another connection sees holders with exactly these tokens, where the backend shows holders."""
        if self.can("holders"):
            seen = [holder.token for holder in await self.peek(name)]
            assert seen == [*tokens], f"holders() was to show the tokens {[*tokens]} for {name!r}, and showed {seen}"

    async def stays_held(self, held: Any, other: Any, seconds: float, why: str = "another got in beside the holder") -> None:
        """For `seconds` the holder keeps the lock, and a try by `other`, a lock of the same name, finds it busy."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            held.check()
            assert await other.try_acquire() is None, why
            await self.sleep(0.02)

    async def stands_still(self, work: Callable[..., object], *args: object) -> None:
        """Run `work` so that the holder's program stands still: its event loop, or on the sync face its thread."""
        if self.face == "asyncio":
            work(*args)
        else:
            await self.blocking(work, *args)

    async def keeps(self, held: Any, why: str = "another can have the lock") -> None:
        """The holder alone has the lock until it releases it, and then the lock is free. `why` is the error otherwise."""
        await self.stays(held, why)
        await self.shows(held.name, held.token)
        await held.release()
        assert await self.free(held.name), (
            f"{held.name} was released, and is held: a second grant, which nobody knows of, is left"
        )

    @staticmethod
    async def lets_go(held: Any) -> None:
        """The holder still has the lock: it can check, renew and release it."""
        held.check()
        await held.renew()
        await held.release()

    # -- driver calls that fail or stand still -------------------------------------------------------------------------

    def faulty(self) -> tuple[Faults, narrowboat.aio.Locks]:
        """The plan of the driver calls that fail, and locks that are opened with it."""
        faults = Faults()
        return faults, self.locks(faults=faults)

    @contextlib.asynccontextmanager
    async def held_up(
        self, faults: Faults, operation: str, work: Coroutine[Any, Any, Any], *, before: bool = False
    ) -> AsyncIterator[asyncio.Task[Any]]:
        """A task that does `work`. Its call of `operation` stands still in the block: once it is made, or `before`."""
        gate = faults.hold(operation, before=before)
        task = self.spawn(work)
        assert await self.blocking(gate.reached.wait, 10), f"no {operation} reached the driver within 10 s"
        try:
            yield task
        finally:
            gate.open()

    # -- leases --------------------------------------------------------------------------------------------------------

    async def abandoned(self, name: str = "a", ttl: Any = None) -> Lease:
        """A short lease of `name`, or one of `ttl`, that is never renewed."""
        sent = time.monotonic()
        held = await self.taken(name, ttl=ttl or self.ttl, renew=False)
        return Lease(held, sent, time.monotonic())

    def ended_on_time(self, lease: Lease, why: str = "") -> float:
        """A lease, whose lock another has got just now, ended neither early nor late. How many seconds late it was."""
        now = time.monotonic()
        early: float = self.excludes(lease.held.ttl) - (now - lease.sent)
        late: float = now - lease.granted - lease.held.ttl
        assert early <= 0, f"the lock was granted to another {early:.4f} s before the end of the lease{why}"
        assert late < self.upper(self.claims.expiry_lag), f"the lock was free {late:.3f} s after the end of the lease{why}"
        return max(0.0, late)

    def died_on_time(self, ended: float, what: str) -> None:
        """Another, which has the lock now, got it within a lease and the declared lag after its holder's process `ended`."""
        took = time.monotonic() - ended
        self.measure(what, took, bound=self.ttl + self.claims.expiry_lag)
        assert took <= self.ttl + self.upper(self.claims.expiry_lag), f"{what}: it took {took:.3f} s, longer than lease and lag"

    # -- losses --------------------------------------------------------------------------------------------------------

    @staticmethod
    def is_lost(
        held: Any, reasons: Collection[Reason], what: str = "the lock is lost, and its holder takes it for its own"
    ) -> None:
        """The holder knows of its loss, and of one of `reasons`."""
        assert held.lost, what
        assert held.reason in reasons, f"the reason of the loss is {held.reason}, and was to be one of {[*reasons]}"

    @staticmethod
    async def says_lost(held: Any, reasons: Collection[Reason]) -> None:
        """Every call of a possession that is lost raises the same LeaseLost, however often it is made."""
        for call in (held.renew, held.release, held.release):
            error = await fails(LeaseLost, call())
            assert (error.name, error.token) == (held.name, held.token)
            assert error.reason in reasons, f"the error's reason is {error.reason}, and was to be one of {[*reasons]}"
        with raises(LeaseLost):
            held.check()
        assert held.expires_in == 0

    async def is_told(self, told: list[float], since: float, within: float, of: str) -> None:
        """Wait until a holder is told of its loss, by `told_of`. The time since `since` goes into the report."""
        await self.eventually(lambda: told, within=within, what=f"the holder was to be told of its loss: {of}")
        self.measure(of, max(0.0, told[0] - since), bound=within)

    @contextlib.asynccontextmanager
    async def loses(self, held: Any, reasons: Collection[Reason], within: float, of: str) -> AsyncIterator[list[float]]:
        """The block costs the holder its lock. After it the holder is told in time, and knows one of `reasons`."""
        told = self.told_of(held)
        begun = time.monotonic()
        yield told
        await self.is_told(told, begun, within, of)
        self.is_lost(held, reasons)

    # -- calls that are cut off ----------------------------------------------------------------------------------------

    async def swept(self, once: Callable[[int, int], Awaitable[Cut]]) -> int:
        """Run `once(point, delay)`, which cuts a call off, for each point of the call. How many points there are."""
        points = 0
        for delay in (0, 1, 3) if self.face == "asyncio" else (0,):
            for point in range(POINTS):
                if not (await once(point, delay)).struck:
                    points += point
                    break
            else:
                raise AssertionError(f"a call was cut off at {POINTS} points, and has more: it does not end by itself")
        return points

    async def serves_the_next(self, other: Any, point: int, cut: Cut) -> None:
        """After a call was cut off, `other`, the next user's lock, is granted soon."""
        where = f"a call was cut off at point {point} ({cut.error})"
        with self.within(2.0, f"{where}: the wait of the next user"):
            try:
                got = await other.acquire(timeout=self.upper(4))
            except LockTimeout:
                raise AssertionError(f"{where}: nobody holds the lock, and the next user does not get it") from None
        await got.release()

    # -- a server that does not answer ---------------------------------------------------------------------------------

    async def all_end(self, operation: float, when: str, calls: Mapping[str, Callable[[], Any]]) -> None:
        """Each of `calls` fails in time, with an error that says: try again. `operation` is the timeout of a driver's call.

        The core repeats a call once, and each time the call may find the way taken by an exchange and its repetition.
        """
        for what, call in calls.items():
            with self.within(6 * operation + 1.0, f"{what} {when}", measure=f"{what} {when}"):
                error = await fails((Unavailable, LockTimeout), call(), what=f"{what} {when}")
            assert error.retryable, f"{what} {when}: the error says that trying again cannot help: {error!r}"
