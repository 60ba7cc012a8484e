"""Several locks as one, all or nothing: once for both faces.

They are acquired in the order given, one after the other, and end last first. Whatever way either is left by, what was taken so
far is given back. In what order they stand is the caller's to decide; `in_order` gives one in which no two callers deadlock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from narrowboat._engine.runtime import Runtime
from narrowboat._locks.acquire import Acquisition
from narrowboat._locks.core import LockCore
from narrowboat._locks.possession import HELD, Possession
from narrowboat._locks.release import release
from narrowboat.errors import InvalidArgument

E = TypeVar("E")
H = TypeVar("H", bound=Possession)


class Named(Protocol):
    """What has a name to be sorted by."""

    @property
    def name(self) -> str:
        """The lock's name."""
        ...


N = TypeVar("N", bound=Named)


def in_order(locks: Sequence[N]) -> list[N]:
    """Sorted by name: the order that makes a deadlock between two callers impossible."""
    if not locks:
        raise InvalidArgument("all(): give at least one name")
    ordered = sorted(locks, key=lambda lock: lock.name)
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise InvalidArgument(f"all(): {one.name!r} is named twice, and would wait for itself")
    return ordered


class Together(Generic[E, H]):
    """Several acquires under way. What is left of `timeout` serves each; `make` makes one of what they gave."""

    def __init__(self, acquisitions: Sequence[Acquisition[H]], timeout: float | None, make: Callable[[Sequence[H]], E]) -> None:
        self._acquisitions = acquisitions
        self._timeout = timeout
        self._make = make
        self.held: E | None = None

    async def run(self, *, trying: bool = False) -> E | None:
        """All of them; None only for a try that found one busy. Raises as one acquire does, and then holds none."""
        taken: list[H] = []
        try:
            for acquisition in self._acquisitions:
                begun = acquisition.core.clock()
                acquisition.timeout = self._timeout
                held = await acquisition.run(trying=trying)
                if held is None:
                    await self._give_back()
                    return None
                taken.append(held)
                if self._timeout is not None:
                    self._timeout = max(0.0, self._timeout - (acquisition.core.clock() - begun))
        except Exception:
            await self._give_back()
            raise
        self.held = self._make(taken)
        return self.held

    async def _give_back(self) -> None:
        """The caller has time: it is told once everything is free again."""
        for acquisition in reversed(self._acquisitions):
            if acquisition.held is not None:
                await acquisition.give_back()

    def abandon(self) -> None:
        """The caller goes, from any point: afterwards none of them holds or waits. Idempotent; never suspends."""
        for acquisition in reversed(self._acquisitions):
            acquisition.abandon()


class _Share(Generic[H]):
    """One of several possessions. `left`: it was nested in what the caller keeps, and was stepped out of."""

    __slots__ = ("held", "left")

    def __init__(self, held: H) -> None:
        self.held = held
        self.left = False


class HeldTogether(Generic[H]):
    """Several possessions as one, in the order of their names: the base of `HeldAll` on both faces."""

    _depth, _state = 1, HELD  # as one possession's, which is not nested

    def __init__(self, core: LockCore, runtime: Runtime, held: Sequence[H]) -> None:
        self._core = core
        self._runtime = runtime
        self._held = tuple(held)
        self._shares = tuple([_Share(each) for each in reversed(self._held)])  # as they end

    def __getitem__(self, index: int) -> H:
        return self._held[index]

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[H]:
        return iter(self._held)

    @property
    def lost(self) -> bool:
        """Whether any of them is lost."""
        return any(held.lost for held in self._held)

    def check(self) -> None:
        """Raise `LeaseLost` when any may no longer be ours."""
        for held in self._held:
            held.check()

    def _entered_by(self, entry: object) -> None:
        """It was entered, and will be left once. It is not nested, so nothing hangs on that."""

    def _ending(self) -> list[H]:
        """Those that are to be released. The nested ones are stepped out of, once, however often it is begun."""
        for share in self._shares:
            if not share.left:
                share.held._step_out(share)
        return [share.held for share in self._shares if not share.left]

    async def _release(self) -> None:
        """Free all, last first. Whoever is torn away from it leaves them behind: nothing that is still held stays so."""
        first: Exception | None = None
        try:
            for held in self._ending():
                try:
                    await release(self._core, self._runtime, held)
                except Exception as error:
                    held._leave_behind()  # a signal handler's exception may have struck before it began
                    first = first or error
            if first is not None:
                raise first
        finally:
            first = None  # its traceback leads here

    def _leave_behind(self) -> None:
        """Nobody has them any more. From any thread, at any moment; never blocks."""
        for held in self._ending():
            held._leave_behind()
