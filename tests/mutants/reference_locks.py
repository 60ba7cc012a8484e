"""The in-memory lock driver with one of its own steps done wrongly, where a layer in front of it cannot do it wrongly.

Each is a subclass of that driver, and whatever a scenario opens becomes one.
"""

from __future__ import annotations

import time

from mutants import Mutant
from mutants.layers import becomes, named
from narrowboat.contract.locks import Holder, Request
from narrowboat.driver.admission import admitted
from narrowboat_memory.locks import MemoryLocks
from narrowboat_memory.names import Name, Waiter, holding_of


class WaitersOvertake(MemoryLocks):
    """Grants a free lock to the waiter that asks first, whoever is ahead of it."""

    @staticmethod
    def _may_go(request: Request, entry: Name, waiter: Waiter | None) -> bool:
        if not request.wait and entry.waiters:
            return False
        holding, held = holding_of(entry)
        return admitted(request.mode, request.limit, holding=holding, held=held, ahead=0, writer_ahead=False)


class TriesOvertake(MemoryLocks):
    """Grants a free lock to a try, although others wait for it."""

    @staticmethod
    def _may_go(request: Request, entry: Name, waiter: Waiter | None) -> bool:
        if not request.wait:
            holding, held = holding_of(entry)
            return admitted(request.mode, request.limit, holding=holding, held=held, ahead=0, writer_ahead=False)
        return MemoryLocks._may_go(request, entry, waiter)


class ShowsWhoHasEnded(MemoryLocks):
    """Shows holders whose lease has ended."""

    def holders(self, name: str | None) -> list[Holder]:
        """With what is left of their lease, below nothing."""
        with self._mutex:
            names = sorted(self._names) if name is None else [name] if name in self._names else []
            return [
                Holder(each, it.token, it.label, it.mode, it.limit, it.acquired_at, it.ends - it.clock(), 0)
                for each in names
                for it in self._names[each].holders.values()
            ]


def _by_the_wall_clock(driver: MemoryLocks) -> MemoryLocks:
    """Counts leases by the wall clock."""
    driver._clock = lambda: time.time()  # noqa: PLW0108  # that of the moment: a scenario puts another one in its place
    return driver


_by_the_wall_clock.__name__ = "LeasesByTheWallClock"

MUTANTS: list[Mutant] = [
    named(becomes(WaitersOvertake), "L36", "L108"),
    named(becomes(TriesOvertake), "L36"),
    named(becomes(ShowsWhoHasEnded), "L48", "L60"),
    named(_by_the_wall_clock, "L99"),
]
