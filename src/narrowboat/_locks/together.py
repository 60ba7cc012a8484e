"""Several acquires as one, all or nothing: once for both faces.

In the order given, one after the other. Whatever way it is left by, what was taken so far is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from narrowboat._locks.acquire import Acquisition
from narrowboat._locks.lease import Possession, State

H = TypeVar("H", bound=Possession)


class Together(Generic[H]):
    """See the module's text. What is left of `timeout` serves each."""

    def __init__(self, acquisitions: Sequence[Acquisition[H]], timeout: float | None) -> None:
        self._acquisitions = acquisitions
        self._timeout = timeout

    async def run(self, *, trying: bool = False) -> list[H] | None:
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
        return taken

    async def _give_back(self) -> None:
        """The caller has time: it is told once everything is free again."""
        for acquisition in reversed(self._acquisitions):
            if acquisition.held is not None:
                await acquisition.give_back()

    def abandon(self) -> None:
        """The caller goes, from any point: afterwards none of them holds or waits. Idempotent; never suspends."""
        for acquisition in reversed(self._acquisitions):
            acquisition.abandon()


class Ending(Generic[H]):
    """How several possessions end, last first, wherever that is interrupted: each of them once, however often it is begun."""

    __slots__ = ("_undecided", "released")

    def __init__(self, held: Sequence[H]) -> None:
        self._undecided: tuple[H, ...] = tuple(held)
        self.released: tuple[H, ...] = ()  #: those to be released; the others are nested in what the caller has kept

    def decide(self) -> None:
        """Step out of those that are nested; the others are to be released. It goes on where an interrupt has cut it off."""
        there = State.HELD  # not in the loop: no call may stand between two of its steps
        while self._undecided:
            held = self._undecided[-1]
            self._undecided = self._undecided[:-1]
            if held._depth > 1 and held._state is there:
                held._depth -= 1
            else:
                self.released = (*self.released, held)

    def leave_behind(self) -> None:
        """What has not ended is nobody's any more. From any thread, at any moment; never blocks."""
        self.decide()
        for held in self.released:
            held._leave_behind()
