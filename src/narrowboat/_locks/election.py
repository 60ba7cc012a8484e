"""What an election needs of the locks: a wait for the lock that can be given up, and a term that knows when it is to end.

An election is the lock of its name, and adds nothing that a driver would have to know. What is elected again and again, and
calls a function in each term, is in `narrowboat.electing`.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from narrowboat._engine.runtime import Runtime
from narrowboat._locks.acquire import Acquisition
from narrowboat._locks.core import LockCore
from narrowboat._locks.possession import HELD, Possession
from narrowboat.errors import LockError

H = TypeVar("H", bound=Possession)

#: Seconds after which a wait looks up: the system may give a signal to another thread than the one that waits.
LOOK = 0.5


class Withdrawn(LockError):
    """The candidate was told to stop while it waited; it neither holds the lock nor waits."""


class Candidacy(Acquisition[H]):
    """An acquire that waits until it is told to stop."""

    __slots__ = ("_withdrawn",)
    _withdrawn: bool

    def withdraw(self) -> None:
        """End the wait. From any thread or signal handler."""
        self._withdrawn = True
        self.signal.set()

    def _check_open(self) -> None:
        super()._check_open()
        if getattr(self, "_withdrawn", False):
            name = self.terms.name
            raise Withdrawn(f"election {name!r}: told to stop while waiting", name=name, backend=self.core.backend)


class Ending:
    """Whether the work of a term was asked to end, and who waits to hear of it. `Term` has one; its candidate sets it."""

    __slots__ = ("asked", "signals")

    def __init__(self) -> None:
        self.asked = False
        self.signals: set[Any] = set()

    def ask(self) -> None:
        """From any thread or signal handler."""
        self.asked = True
        for signal in tuple(self.signals):
            signal.set()

    def over(self, term: Possession) -> bool:
        """Whether that work is to end, for whatever reason."""
        return self.asked or term.lost or term._state is not HELD


async def wait_over(core: LockCore, runtime: Runtime, term: Possession, ending: Ending, timeout: float | None) -> bool:
    """Until the term is over (True), or the time is up (False)."""
    ends = math.inf if timeout is None else core.clock() + timeout
    signal = runtime.signal()

    def watcher(over: Possession) -> None:
        signal.set()

    ending.signals.add(signal)
    try:
        if term._watch(watcher):
            try:
                while not ending.over(term) and core.clock() < ends:
                    await runtime.wait(signal, min(ends, core.clock() + LOOK))
            finally:
                term._unwatch(watcher)
    finally:
        ending.signals.discard(signal)
    return ending.over(term)
